"""The page on what fits where holds what follows from the shapes."""

from __future__ import annotations

import fits


def test_the_page_holds_the_tables() -> None:
    assert fits.tables() in fits.PAGE.read_text(encoding="utf-8")


def test_sizes_are_those_of_the_files() -> None:
    products = fits.SHAPES[2]
    assert products.rows(4) == products.nodes * 50
    assert products.rows(1, 256) == products.nodes * 32
    papers = fits.SHAPES[3]
    assert papers.layer(2) < fits.SHARE * 24 * fits.GIB < papers.layer(4)
