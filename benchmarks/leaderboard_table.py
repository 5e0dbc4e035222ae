"""The leaderboard of committed rows: files of ``results/leaderboard``, and the page's tables.

    python benchmarks/leaderboard.py --write

Figures are of models loaded back from their files, epochs are chosen on validation, and a row that
failed is shown as such.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from nodebits.jobs.compare_rows import ROWS_FILE, read_rows, write_rows
from nodebits.report.compare import grouped, leaderboard_csv, leaderboard_markdown, method_of
from nodebits.report.words import spread_of
from nodebits.tasks import NODE, find_task

RESULTS = Path(__file__).resolve().parent / "results" / "leaderboard"
PAGE = RESULTS.parent.parent.parent / "docs" / "methods" / "leaderboard.md"
PROMPTS_PAGE = PAGE.with_name("lorap.md")
START, END = "<!-- leaderboard_table.py -->\n", "<!-- end -->\n"
ADDON = "+lorap"
Row = dict[str, Any]


def write(runs: Path) -> None:
    """Takes over the rows of a folder that the grid ran into, and draws everything of them."""
    rows = read_rows(runs / ROWS_FILE) or read_rows(RESULTS / ROWS_FILE)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_rows(RESULTS / ROWS_FILE, rows)
    (RESULTS / "leaderboard.md").write_text(leaderboard_markdown(rows), encoding="utf-8")
    (RESULTS / "leaderboard.csv").write_text(leaderboard_csv(rows), encoding="utf-8")
    for page, made in ((PAGE, tables(rows)), (PROMPTS_PAGE, prompts(rows))):
        text = page.read_text(encoding="utf-8")
        text = re.sub(f"{START}.*{END}", lambda _, m=made: START + m + END, text, flags=re.DOTALL)
        page.write_text(text, encoding="utf-8")


def against(runs: Path) -> list[str]:
    """Rows of a folder that differ from the committed ones of the same settings, in words."""
    known = {row["key"]: row for row in read_rows(RESULTS / ROWS_FILE)}
    pairs = [(row, known[row["key"]]) for row in read_rows(runs / ROWS_FILE) if row["key"] in known]
    return [text for row, other in pairs if (text := _difference(row, other))]


def _difference(row: Row, other: Row) -> str:
    name = f"{row['dataset']}, {method_of(row)}, {row['bits']} bits: "
    if row["error"] or other["error"]:
        return "" if row["error"] == other["error"] else name + f"{row['error']}, {other['error']}"
    unlike = [
        f"{what} {row[what]['values']}, committed {other[what]['values']}"
        for what in ("float", "packed")
        if row[what]["values"] != other[what]["values"]
    ]
    where = f" (here {row['isa']}, {row['threads']} threads; {other['isa']}, {other['threads']})"
    return name + "; ".join(unlike) + where if unlike else ""


def tables(rows: list[Row]) -> str:
    """The summary over data sets, the widths, and a table per data set."""
    nodes = [row for row in rows if row["error"] or find_task(row["task"]).level is NODE]
    parts = ["## Over the data sets of nodes\n", _summary(nodes)]
    parts += ["## Average widths\n", _widths(nodes)]
    for (dataset, model), members in grouped(rows).items():
        parts += [f"## {dataset}, {model.upper()}\n", _floats(members), _of_data(members)]
    return "\n" + "\n".join(parts) + "\n"


def prompts(rows: list[Row]) -> str:
    """Every method with prompts beside itself without, on all data sets that have both."""
    known = {(r["dataset"], r["method"], r["preset"], r["bits"]): r for r in rows}
    body: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for (dataset, method, preset, bits), row in known.items():
        plain = known.get((dataset, method.removesuffix(ADDON), preset, bits))
        if method.endswith(ADDON) and plain is not None:
            title = method_of(plain)
            body[dataset, title][bits] = f"{_cell(plain)} → {_cell(row)}"
    widths = sorted({bits for cells in body.values() for bits in cells}, reverse=True)
    lines = [[*key, *(cells.get(bits, "") for bits in widths)] for key, cells in body.items()]
    head = ["data set", "method, without → with prompts", *map(_bits, widths)]
    return "\n" + _table(head, lines) + "\n"


def _summary(rows: list[Row]) -> str:
    """Mean gain over the float model that was trained alike, in points, and of how many sets."""
    lost: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if not row["error"]:
            points = 100 * (row["packed"]["mean"] - row["float_distilled"]["mean"])
            lost[method_of(row), row["bits"]][row["dataset"]] = points
    widths = sorted({bits for _, bits in lost}, reverse=True)
    body = []
    for method in _methods(rows):
        cells = []
        for bits in widths:
            found = lost.get((method, bits))
            cells.append(f"{fmean(found.values()):+.1f}, of {len(found)}" if found else "")
        body.append([method, *cells])
    return _table(["points against float, trained alike", *map(_bits, widths)], body)


def _widths(rows: list[Row]) -> str:
    """Mean of the average widths over data sets, scales counted."""
    held: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        if not row["error"]:
            held[method_of(row), row["bits"]].append(row["average_bits_with_scales"])
    widths = sorted({bits for _, bits in held}, reverse=True)
    body = [
        [
            method,
            *(f"{fmean(held[method, b]):.2f}" if (method, b) in held else "" for b in widths),
        ]
        for method in _methods(rows)
    ]
    return _table(["bits per activation, with scales", *map(_bits, widths)], body)


def _of_data(rows: list[Row]) -> str:
    cells = {(method_of(row), row["bits"]): _cell(row) for row in rows}
    widths = sorted({bits for _, bits in cells}, reverse=True)
    body = [[method, *(cells.get((method, b), "") for b in widths)] for method in _methods(rows)]
    return _table(["method", *map(_bits, widths)], body)


def _cell(row: Row) -> str:
    if row["error"]:
        return f"failed: {row['error'].partition(':')[0]}"
    return spread_of(row["packed"], row["metric"])


def _floats(rows: list[Row]) -> str:
    done = [row for row in rows if not row["error"]]
    if not done:
        return ""
    first = next((row for row in done if row["preset"] == "default"), done[0])
    metric = first["metric"]
    cells = [spread_of(first[name], metric) for name in ("float", "float_distilled")]
    return _table([f"{metric['name']}: float", "float, trained alike"], [cells])


def _methods(rows: Iterable[Row]) -> list[str]:
    """Titles of the methods, deployable presets first."""
    found = dict.fromkeys((row["preset"], method_of(row)) for row in rows)
    return [title for _, title in sorted(found)]


def _bits(bits: int) -> str:
    return f"{bits} bits"


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
