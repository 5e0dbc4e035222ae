"""R2 and R3: any bytes give a result or a typed error, in bounded time and memory.

    python benchmarks/reliability/fuzz_count.py FOLDER[@COMMIT] [FOLDER[@COMMIT] ...]

FOLDER is what ``make fuzz FUZZ_ARGS="--out FOLDER"`` left: this adds up what it counted. Folders
of runs under the sanitizers and without them make one row. COMMIT is what a run was of, where that
is not the present one.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from record import Result, record

TARGET, DEEP_TARGET = 50_000_000, 5_000_000


def main() -> None:
    """Writes both rows."""
    given = [argument.partition("@")[::2] for argument in sys.argv[1:]]
    if not given:
        raise SystemExit(__doc__)
    folders = [Path(folder) for folder, _ in given]
    earlier = "".join(f" {folder} is of commit {commit}." for folder, commit in given if commit)
    counts: Counter[str] = Counter()
    sanitized, seconds = 0, 0.0
    worst: dict[str, float] = {"seconds": 0.0, "grown": 0.0, "above": -1e30}
    for folder in folders:
        found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        counts.update(found["counts"])
        sanitized += found["inputs"] if found["sanitized"] else 0
        seconds += found["processor_seconds"]
        if not found["sanitized"]:  # the sanitizers' own memory is no promise of ours
            worst = {name: max(value, found["worst"][name]) for name, value in worst.items()}
    inputs, outcomes, depths = counts.total(), Counter[str](), Counter[str]()
    for key, number in counts.items():
        _, depth, kind = key.split("/")
        outcomes[kind] += number
        depths[depth] += number
    bad = {kind: outcomes[kind] for kind in ("crash", "hang", "untyped")}
    started = time.perf_counter() - seconds
    deep = inputs - depths["refused"]
    result = Result(
        "R2",
        "Any bytes give a result or a typed error",
        f"{inputs:,} mutated inputs, {sanitized:,} of them under ASan and UBSan: "
        f"{outcomes['ran']:,} ran, {outcomes['typed']:,} typed errors "
        f"({deep - outcomes['ran']:,} behind the checksums), {bad['crash']} crashes, "
        f"{bad['hang']} hangs over 1 s, {bad['untyped']} untyped errors",
        inputs,
        sum(bad.values()),
        inputs >= TARGET and not sum(bad.values()),
        ("" if inputs >= TARGET else f"The scale asks for {TARGET // 10**6} million inputs.")
        + earlier,
    )
    memory = Result(
        "R3",
        "No allocation bombs",
        f"{inputs - sanitized:,} of these inputs: resident memory grew by at most "
        f"{worst['grown'] / 2**20:.0f} MiB while one was read and run, and by "
        f"{worst['above'] / 2**20:.0f} MiB beyond 20 bytes per byte of its file; "
        f"{outcomes['memory']} above 20 bytes per byte and 64 MiB",
        inputs - sanitized,
        outcomes["memory"],
        False,
        "The bound is 20 bytes per byte and 64 MiB, of reading and running; the scale's is 1.1 "
        f"and 16 MiB, of opening.{earlier}",
    )
    if bad_total := sum(bad.values()):
        print(f"{bad_total} broken promises", file=sys.stderr)
    record(memory, started)
    record(result, started)


if __name__ == "__main__":
    main()
