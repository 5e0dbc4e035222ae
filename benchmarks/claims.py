"""Which published figures our rows reach: the table of docs/methods/claims.md.

python benchmarks/claims.py --write

A figure is *reached* where our mean is at least the published one, *within the spread* where our
deviation covers the gap, else *not reached*. Ours are packed models, selected on validation and
loaded back from their files. Bits are counted as the paper does.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from nodebits.report.published import PUBLISHED, Published

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = RESULTS.parent.parent / "docs" / "methods" / "claims.md"
START, END = "<!-- claims.py -->\n", "<!-- end -->\n"
# A width counts as met within the rounding of what papers print.
_ROUNDING = 0.05


@dataclass(frozen=True)
class Ours:
    """Our runs beside a published figure: accuracies, and mean width as the paper counts."""

    packed: list[float]
    bits: float


def _rows(file: str) -> list[dict[str, Any]]:
    lines = (RESULTS / file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def ours(one: Published) -> Ours | None:
    """Our runs of the same data, model and method; None where there are none."""
    find = {"a2q": _per_node, "mixq": _mixed}.get(one.method, _uniform)
    return find(one)


def _uniform(one: Published) -> Ours | None:
    rows = [
        row
        for row in _rows("accuracy.jsonl")
        if (row["dataset"], row["model"], row["method"], row["bits"], row["preset"])
        == (one.dataset, one.model, one.method, one.bits, "default")
    ]
    return Ours([row["packed"] for row in rows], one.bits) if rows else None


def _per_node(one: Published) -> Ours | None:
    """Rows whose target counts as the paper does: the mean over hidden inputs."""
    rows = [
        row
        for row in _rows("a2q/accuracy.jsonl")
        if (row["dataset"], row["model"]) == (one.dataset, one.model)
        and re.fullmatch(r"published-[\d.]+", row["label"])
    ]
    if not rows:
        return None
    target = fmean(row["overrides"]["target_bits"] for row in rows)
    return Ours([row["packed"] for row in rows], target)


def _mixed(one: Published) -> Ours | None:
    """The price of bits that the paper had at this width: the less, the wider."""
    published = sorted(p.bits for p in PUBLISHED if (p.method, p.dataset) == ("mixq", one.dataset))
    rows = [row for row in _rows("mixq.jsonl") if row["preset"] == "published"]
    if one.dataset != "Cora":
        return None
    price = sorted({row["bit_lambda"] for row in rows}, reverse=True)[published.index(one.bits)]
    rows = [row for row in rows if row["bit_lambda"] == price]
    bits = fmean(fmean(row["widths"].values()) for row in rows)
    return Ours([row["packed"] for row in rows], bits)


def verdict(one: Published, found: Ours) -> str:
    """What our rows say of a figure, in words."""
    mean, gap = fmean(found.packed), one.figure - fmean(found.packed)
    spread = stdev(found.packed) if len(found.packed) > 1 else 0.0
    word = "reached" if mean >= one.figure else "not reached"
    if gap > 0 and gap <= spread:
        word = "within the spread"
    return word + (", at more bits" if found.bits > one.bits + _ROUNDING else "")


def table() -> str:
    """All published figures that we have rows for, as Markdown."""
    lines = [
        "| data set, model | method | bits | published | chosen on | ours | at bits | runs | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in PUBLISHED:
        found = ours(one)
        if found is None:
            continue
        spread = f" ± {100 * stdev(found.packed):.1f}" if len(found.packed) > 1 else ""
        theirs = "" if one.spread is None else f" ± {100 * one.spread:.1f}"
        cells = [
            f"{one.dataset}, {one.model.upper()}",
            one.method,
            f"{one.bits:.3g}",
            f"{100 * one.figure:.1f}{theirs}",
            one.selected,
            f"{100 * fmean(found.packed):.1f}{spread}",
            f"{found.bits:.3g}",
            str(len(found.packed)),
            verdict(one, found),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table, or writes it into its page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/methods/claims.md")
    if not parser.parse_args().write:
        print(table(), end="")
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(before + START + table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
