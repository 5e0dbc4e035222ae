"""Layers with all their arguments, and known models: from float to a file and back.

    python benchmarks/grid_table.py [--grid arguments known_models] [--only REGEX] [--missing]
        [--write]

A row is a class with arguments of its constructor and its forward, as PyG's own tests try them, or
a model. It is prepared, calibrated, converted, saved, loaded and run on a graph of 60 nodes; tiles
hold a few targets each. A row passes if the packed result is within 5 % of the float one at 8 bits,
prepared and packed agree to rounding, and the loaded model gives the same bits. ``--write`` keeps
the rows in ``results/grids.jsonl`` and makes ``docs/coverage.md`` of it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch_geometric.nn import conv

from grids import arguments, known_models
from grids.case import Case
from grids.outcome import outcome_of
from nodebits.bench.environment import versions

ROOT = Path(__file__).resolve().parent
RESULTS, PAGE = ROOT / "results" / "grids.jsonl", ROOT.parent / "docs" / "coverage.md"
GRIDS: dict[str, Any] = {"arguments": arguments, "known_models": known_models}
MESSAGES = ("integer sum", "integer max", "integer min", "integer statistics", "tiled", "at once")
Row = dict[str, Any]


def run(cases: list[tuple[str, Case]], keep: bool) -> list[Row]:
    """Runs cases, each with the name of its grid; keeps every row at once."""
    made = []
    for name, case in cases:
        row = {"grid": name, **asdict(outcome_of(case)), "versions": versions()}
        made.append(row)
        said = "passed" if row["passed"] else f"FAILED: {row['reason']}"
        print(f"{case.title}: {said}", flush=True)
        if keep:
            _keep(row)
    return made


def _keep(row: Row) -> None:
    """Puts a row into the results, in the order of the grids; other processes may do the same."""
    order = {(g, c.title): i for g, m in GRIDS.items() for i, c in enumerate(m.CASES)}
    place = {g: i for i, g in enumerate(GRIDS)}
    with RESULTS.open("a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        found = {_key(known): known for known in map(json.loads, stream)}
        found[_key(row)] = row
        kept = [known for key, known in found.items() if key in order]
        kept.sort(key=lambda known: (place[known["grid"]], order[_key(known)]))
        stream.truncate(0)
        stream.write("".join(f"{json.dumps(known)}\n" for known in kept))


def _read() -> list[Row]:
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def _key(row: Row) -> tuple[str, str]:
    return row["grid"], _title(row)


def from_messages(found: list[Row]) -> bool:
    """Whether a class runs its messages from packed rows, wherever nodes have features."""
    found = [row for row in found if row["variant"] != "no features"]
    return bool(found) and all(
        row["passed"]
        and "float" not in row["runs"]
        and any(run.startswith(MESSAGES) for run in row["runs"])
        for row in found
    )


def table(found: list[Row], left_out: dict[str, str], first: str) -> list[str]:
    """A line per name, in Markdown."""
    lines = [f"| {first} | rows passed | runs | largest error |", "|---|---|---|---|"]
    names = sorted({row["name"] for row in found} | set(left_out), key=str.lower)
    for name in names:
        own = [row for row in found if row["name"] == name]
        if not own:
            lines.append(f"| `{name}` | not tried: {left_out[name]} | | |")
            continue
        passed = [row for row in own if row["passed"]]
        runs = sorted({kind for row in passed for kind in row["runs"]})
        error = max((row["error"] for row in passed), default=None)
        shown = "" if error is None else f"{100 * error:.2f} %"
        lines.append(f"| `{name}` | {len(passed)} of {len(own)} | {', '.join(runs)} | {shown} |")
    return lines


def page(found: list[Row]) -> str:
    """The page of the documentation."""
    layers = [row for row in found if row["grid"] == "arguments"]
    models = [row for row in found if row["grid"] == "known_models"]
    by_class = {n: [row for row in layers if row["name"] == n] for n in conv.__all__}
    classes = [name for name in conv.__all__ if name != "MessagePassing"]
    packed = [name for name in classes if from_messages(by_class[name])]
    lines = [
        "# What was tried",
        "",
        "Written by `python benchmarks/grid_table.py --write`.",
        "The command says what a row is and when it passes.",
        "Rows with versions are in `benchmarks/results/grids.jsonl`.",
        "",
        f"* {_passed(layers)} layers with arguments pass, as PyG's own tests of layers try them.",
        f"* {_passed(models)} known models pass.",
        f"* {len(packed)} of {len(classes)} classes of convolutions run messages from packed rows "
        "wherever nodes have features.",
        "",
        "Errors are those of 8 bits, calibrated and not trained, on random weights and features.",
        "`float` beside others says that a part of the model stayed in float.",
        "Without pyg-lib and torch-sparse, `benchmarks/grids/stand_ins.py` has what layers ask of "
        "them.",
        "",
        "## Layers",
        "",
        *table(layers, arguments.LEFT_OUT, "layer"),
        "",
        "## Known models",
        "",
        *table(models, known_models.LEFT_OUT, "model"),
    ]
    failed = [row for row in found if not row["passed"]]
    if failed:
        lines += ["", "## What failed", "", "| row | why |", "|---|---|"]
        lines += [f"| `{_title(row)}` | {row['reason'].replace('|', ' ')} |" for row in failed]
    return "\n".join(lines) + "\n"


def _title(row: Row) -> str:
    return f"{row['name']} {row['variant']}".strip()


def _passed(found: list[Row]) -> str:
    return f"{sum(row['passed'] for row in found)} of {len(found)}"


def main() -> None:
    """Runs the grids, and keeps what came out where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grid", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--only", default="", help="run the titles that this expression finds")
    parser.add_argument("--missing", action="store_true", help="run what the results do not have")
    parser.add_argument("--write", action="store_true", help="keep rows, and write the page")
    asked = parser.parse_args()
    there = {_key(row) for row in _read()} if asked.missing else set()
    cases = [
        (name, case)
        for name in asked.grid
        for case in GRIDS[name].CASES
        if re.search(asked.only, case.title) and (name, case.title) not in there
    ]
    print(f"{_passed(run(cases, asked.write))} passed")
    if asked.write:
        PAGE.write_text(page(_read()), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
