"""Writes the figures of ``results/reliability.jsonl`` into ``docs/reliability.md``.

python benchmarks/reliability/table.py
"""

from __future__ import annotations

import json
from typing import Any

from record import RESULTS, ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def table() -> str:
    """One row per promise and title: the last one that was measured."""
    rows = {}
    for line in RESULTS.read_text().splitlines():
        row = json.loads(line)
        rows[row["promise"], row["title"]] = row
    lines = [
        "| | promise | found | target of the scale | command | commit |",
        "|---|---|---|---|---|---|",
    ]

    def place(item: tuple[tuple[str, str], Any]) -> tuple[str, int, str]:
        promise, title = item[0]
        return promise[0], int(promise[1:]), title

    for (promise, title), row in sorted(rows.items(), key=place):
        reached = "reached" if row["reached"] else "not in full"
        target = ". ".join(filter(None, (reached, row["missing"])))
        command = f"`{row['command']}` ({row['seconds']:.0f} s)"
        lines.append(
            f"| {promise} | {title} | {row['figure']} | {target} | {command} | {row['commit']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Replaces what is between the markers."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
