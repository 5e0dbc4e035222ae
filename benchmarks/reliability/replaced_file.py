"""R14: readers of a file that a writer replaces see one version or the other, never a mixture.

    python benchmarks/reliability/replaced_file.py [replacements]

Eight processes open one model file and run it while a writer replaces the file through ``save`` by
one of several models in turn; a result tells which model it came from. Then eight threads run one
packed model at once, on graphs of their own and on one they share.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import torch
from record import Result, record

from nodebits import load

from packed_models import make_case, small_graph  # isort: skip  found by way of record

READERS = 8
REPLACEMENTS = 1000
BITS = (8, 4, 2)  # one version each
PER_THREAD = 200


def read_all(folder: Path) -> None:
    """A reader: opens and runs the file until the writer is done; prints what it saw."""
    torch.set_num_threads(1)
    known = torch.load(folder / "results", weights_only=True)
    x, edge_index = small_graph()
    found: Counter[str] = Counter()
    (folder / f"ready-{sys.argv[3]}").touch()
    while not (folder / "done").exists():
        try:
            result = load(folder / "model.safetensors").predict(x, edge_index)
        except Exception as error:
            print(repr(error)[:300], file=sys.stderr)
            found["errors"] += 1
            continue
        which = [i for i, version in enumerate(known) if torch.equal(version, result)]
        found[f"version {which[0]}" if which else "mixed"] += 1
    print(json.dumps(found))


def replaced(count: int) -> Counter[str]:
    """Replaces the file under the readers."""
    x, edge_index = small_graph()
    models = [make_case("gcn", bits=bits).packed for bits in BITS]
    results = [model.predict(x, edge_index) for model in models]
    if any(torch.equal(results[0], other) for other in results[1:]):
        raise SystemExit("the versions cannot be told apart")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "model.safetensors"
        torch.save(results, folder / "results")
        models[0].save(path)
        readers = [
            subprocess.Popen(
                [sys.executable, __file__, "process", name, str(number)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(READERS)
        ]
        while len(list(folder.glob("ready-*"))) < READERS:
            time.sleep(0.1)
        for i in range(count):
            models[(i + 1) % len(models)].save(path)
        (folder / "done").touch()
        found: Counter[str] = Counter()
        for reader in readers:
            out = reader.communicate()[0]
            found["ended"] += int(reader.returncode != 0)
            found.update(json.loads(out) if reader.returncode == 0 else {})
    return found


def at_once() -> tuple[int, int]:
    """Runs one model in several threads; returns how many runs there were and how many differed."""
    differed = [0] * READERS
    cases = [make_case(name) for name in ("gcn", "gat")]
    graphs = [small_graph(seed=seed) for seed in range(READERS)]
    expected = [[case.packed.predict(*graph) for graph in graphs] for case in cases]
    start = threading.Barrier(READERS)

    def run(number: int) -> None:
        torch.set_num_threads(1 + number % 2)
        start.wait()
        for i in range(PER_THREAD):
            which, graph = i % len(cases), (0, number)[i // 2 % 2]
            result = cases[which].packed.predict(*graphs[graph])
            differed[number] += int(not torch.equal(result, expected[which][graph]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return READERS * PER_THREAD, sum(differed)


def main() -> None:
    """Runs both."""
    if sys.argv[1:2] == ["process"]:
        read_all(Path(sys.argv[2]))
        return
    started = time.perf_counter()
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if sys.argv[1:] else REPLACEMENTS
    found = replaced(count)
    runs, differed = at_once()
    read = sum(n for what, n in found.items() if what.startswith("version"))
    seen = sum(what.startswith("version") for what in found)
    failures = found["mixed"] + found["errors"] + found["ended"] + differed
    short = "" if count >= REPLACEMENTS else f"Fewer than {REPLACEMENTS:,} replacements. "
    record(
        Result(
            "R14",
            "Readers while a writer replaces",
            f"{READERS} processes opened and ran a file {read:,} times while it was replaced "
            f"{count:,} times by {len(BITS)} models in turn: {seen} versions seen, "
            f"{found['mixed']} mixed, {found['errors']} errors, {found['ended']} processes ended; "
            f"{READERS} threads on one model: {differed} of {runs:,} results differ",
            read + runs,
            failures,
            False,
            f"{short}No run under the thread sanitizer.",
        ),
        started,
    )


if __name__ == "__main__":
    main()
