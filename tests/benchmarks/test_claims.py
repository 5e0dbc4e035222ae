"""What the page on published figures says follows from the committed rows."""

from __future__ import annotations

import pytest

import claims
from nodebits.report.published import PUBLISHED, Published


def test_the_page_holds_the_table_of_the_rows() -> None:
    assert claims.table() in claims.PAGE.read_text(encoding="utf-8")


def test_every_method_with_published_figures_has_a_row() -> None:
    found = {one.method for one in PUBLISHED if claims.ours(one) is not None}
    assert found == {one.method for one in PUBLISHED}


@pytest.mark.parametrize(
    ("packed", "bits", "words"),
    [
        ([0.82, 0.83], 4.0, "reached"),
        ([0.79, 0.81], 4.0, "within the spread"),
        ([0.79, 0.791], 4.0, "not reached"),
        ([0.79], 4.0, "not reached"),
        ([0.82, 0.83], 4.2, "reached, at more bits"),
    ],
)
def test_verdicts(packed: list[float], bits: float, words: str) -> None:
    one = Published("Cora", "gcn", "uniform", 4.0, 0.805, 0.01, "validation", "a paper")
    assert claims.verdict(one, claims.Ours(packed, bits)) == words
