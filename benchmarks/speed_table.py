"""Markdown tables of the files that ``nodebits bench --json`` wrote.

python benchmarks/speed_table.py benchmarks/results/speed/*.json > benchmarks/results/speed.md
python benchmarks/speed_table.py --short  # the first table of docs/performance.md, from the results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HEADER = """# Speed

Median milliseconds of calls interleaved in one run, ± half the distance between the quartiles;
`stream` is the share of the memory bandwidth measured in the same run that the bytes that must move
come to; `x float32` and `x float` are ratios to the fastest float32 and the fastest float peer;
`MiB` is the resident memory that a call takes beyond its operands. How to read and repeat this:
`docs/performance.md`.
"""

RESULTS = Path(__file__).resolve().parent / "results"
# Column of the short table, file, what the name of a row ends in.
SHORT_COLUMNS = (
    ("sum over neighbours, AVX-512", "speed/aggregate-reddit-2t.json", ""),
    ("the same, AVX2, one thread", "speed-avx2/aggregate-reddit-1t.json", ""),
    ("two GCN layers, AVX-512", "speed/model-reddit-gcn-2t.json", ", float input"),
    ("features packed ahead", "speed/model-reddit-gcn-2t.json", ", packed input"),
)
SHORT_WIDTHS = (8, 4, 2)


def short_table() -> str:
    """How many times faster than the fastest float32 of the same run, by width."""
    lines = [
        "| times faster at Reddit's size | " + " | ".join(c for c, _, _ in SHORT_COLUMNS) + " |",
        "|---" * (len(SHORT_COLUMNS) + 1) + "|",
    ]
    for bits in SHORT_WIDTHS:
        cells = [_times(file, f"nodebits u{bits}{end}") for _, file, end in SHORT_COLUMNS]
        lines.append(f"| {bits} bits | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _times(file: str, impl: str) -> str:
    rows = json.loads((RESULTS / file).read_text())["rows"]
    (found,) = (row for row in rows if row["impl"] == impl)
    return f"{found['ratio_best_float32']:.1f}"


def table_of(document: dict[str, Any]) -> str:
    """Tables of one file, one per operation, graph and number of threads."""
    machine = document["environment"]
    rates = ", ".join(
        f"{rate['read'] / 1e9:.1f} GB/s read and {rate['triad'] / 1e9:.1f} GB/s triad "
        f"{_where(machine, threads)}"
        for threads, rate in document["bandwidth"].items()
    )
    parts = [
        f"    {document['command']}\n\n{machine['processor']}, {machine['cores']} cores, "
        f"{machine['isa']}, torch {machine['versions']['torch']}; {rates}; "
        f"other programs on {machine['other_load']} cores\n"
    ]
    growth = "slopes" in document
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        graph = "" if growth else row["graph"]
        groups.setdefault((row["op"], graph, str(row["threads"])), []).append(row)
    for (op, graph, threads), rows in groups.items():
        where = machine.get("card") or f"{threads} thread{'s' * (threads != '1')}"
        title = f"{op}{', ' * bool(graph)}{graph}, {where}"
        parts.append(f"| {title} | ms | stream | x float32 | x float | MiB |")
        parts.append("|---|---|---|---|---|---|")
        parts += [_line(row, growth) for row in rows if row["median_s"] is not None]
        skipped = [f"{row['impl']}: {row['note']}" for row in rows if row["median_s"] is None]
        parts.append("".join(f"\n{line}" for line in skipped) + "\n" * bool(skipped))
    for threads, slopes in document.get("slopes", {}).items():
        parts.append(f"| log-log slope, {threads} thread{'s' * (threads != '1')} | |")
        parts.append("|---|---|")
        parts += [f"| {impl} | {slope:.3f} |" for impl, slope in slopes.items()]
        parts.append("")
    return "\n".join(parts)


def _where(machine: dict[str, Any], threads: str) -> str:
    """What a bandwidth is of: the card, or a number of threads."""
    if "card" in machine:
        return f"of {machine['card']}, CUDA {machine['cuda']}"
    return f"with {threads} thread{'s' * (threads != '1')}"


def _line(row: dict[str, Any], growth: bool) -> str:
    name = row["impl"]
    if growth:
        name += f", {int(row['graph'].rsplit(':', 1)[1]):,} edges"
    cells = [
        name,
        f"{1e3 * row['median_s']:,.2f} ± {500 * row['spread']:,.2f}",
        "" if row["stream_share"] is None else f"{100 * row['stream_share']:.0f} %",
        "" if row["ratio_best_float32"] is None else f"{row['ratio_best_float32']:.2f}",
        "" if row["ratio_best_float"] is None else f"{row['ratio_best_float']:.2f}",
        "" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the tables of the files named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument(
        "--short", action="store_true", help="the first table of docs/performance.md"
    )
    options = parser.parse_args()
    if options.short:
        print(short_table(), end="")
        return
    files = options.files
    print(HEADER)
    for file in files:
        print(f"## {file.stem}\n")
        print(table_of(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
