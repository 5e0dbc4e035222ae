"""Markdown tables of the files that ``nodebits bench --json`` wrote.

python benchmarks/speed_table.py benchmarks/results/speed/*.json > benchmarks/results/speed.md
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


def table_of(document: dict[str, Any]) -> str:
    """Tables of one file, one per operation, graph and number of threads."""
    machine = document["environment"]
    rates = ", ".join(
        f"{rate['read'] / 1e9:.1f} GB/s read and {rate['triad'] / 1e9:.1f} GB/s triad with "
        f"{threads} thread{'s' * (threads != '1')}"
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
        title = f"{op}{', ' * bool(graph)}{graph}, {threads} thread{'s' * (threads != '1')}"
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
    parser.add_argument("files", nargs="+", type=Path)
    files = parser.parse_args().files
    print(HEADER)
    for file in files:
        print(f"## {file.stem}\n")
        print(table_of(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
