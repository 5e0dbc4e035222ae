"""Comparisons one after another, as the leaderboard and the graph-level table run them."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from nodebits.jobs.compare import CompareConfig, run_compare


def run_all(parts: Iterable[CompareConfig], command: str) -> int:
    """Runs comparisons, of which those that have their rows are done; returns the exit status.

    Args:
        parts: What to compare.
        command: Of every row, without folders of this machine.
    """
    failed = 0
    for part in parts:
        found = run_compare(part, command)
        failed += len(found["failed"])
        rows = len(found["rows"])
        print(f"{part.dataset}, {part.model}, {', '.join(part.methods)}: {rows} rows", flush=True)
        if found["interrupted"]:
            print("interrupted; the same command continues", file=sys.stderr)
            return 1
    if failed:
        print(f"{failed} rows failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0
