"""The README's table and picture are those of the committed rows."""

from __future__ import annotations

from pathlib import Path

import methods_plot

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_readme_shows_what_was_measured() -> None:
    assert methods_plot.table() in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_picture_is_that_of_the_rows() -> None:
    def words(svg: str) -> set[str]:
        return {line.strip() for line in svg.split("\n") if "</text>" in line}

    drawn, kept = methods_plot.draw().decode(), methods_plot.PICTURE.read_text(encoding="utf-8")
    assert all(method.title in kept for method in methods_plot.METHODS)
    assert drawn.count("<use ") == kept.count("<use ") and len(words(drawn)) == len(words(kept))


def test_every_method_has_points_with_seeds() -> None:
    for method in methods_plot.METHODS:
        found = methods_plot.points(method)
        assert found and all(len(point.packed) >= 3 for point in found.values())
