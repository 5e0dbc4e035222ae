r"""Two builds beside each other, call by call: is a row of `nodebits bench` as fast as before?

    python benchmarks/speed_compare.py --before ../before --json out.json -- \
        aggregate --graph arxiv-like --threads 1

Both trees (``--before``, ``--after``; each with ``src/nodebits`` and its built extension) run the
same bench command in a process of their own. Only one works at a time: they take turns at every
timed call, so that what else the machine does meets both alike. Ratios are time after over time
before. *CPU* is processor time of the whole process; other processes do not count there, though
they still take caches and bandwidth. *Noise* is the same ratio between two halves of the rounds of
the tree before, which are the same program.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
_BLOCK = 0.05  # seconds of calls that are timed together
_MOST = 500


def main() -> None:
    """Starts both trees and prints the table."""
    options = parse()
    if options.worker:
        work(*options.worker, options.command)
        return
    if options.table:
        print("\n".join(HEADER + [section(json.loads(file.read_text())) for file in options.table]))
        return
    trees = {"before": options.before, "after": options.after}
    workers = {name: Worker(tree, options.command) for name, tree in trees.items()}
    rows: list[dict[str, Any]] = []
    try:
        environment = {name: worker.receive() for name, worker in workers.items()}
        while True:
            told = [worker.receive() for worker in workers.values()]
            if None in told:
                break
            names = [name for name in told[0] if name in told[1]]
            for worker in workers.values():
                worker.send(names)
            rows += compare(workers, names, options.rounds)
            for worker in workers.values():
                worker.send(None)
    finally:
        for worker in workers.values():
            worker.process.kill()
    document = {"command": options.command, "environment": environment, "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(render(rows))


class Worker:
    """A process on one tree, which times what it is told to."""

    def __init__(self, tree: Path, command: list[str]) -> None:
        here_read, there_write = os.pipe()
        there_read, here_write = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(there_read), str(there_write), *command],
            pass_fds=(there_read, there_write),
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
        )
        os.close(there_read)
        os.close(there_write)
        self._read, self._write = os.fdopen(here_read), os.fdopen(here_write, "w")

    def send(self, value: Any) -> None:
        """Tells it something."""
        _send(self._write, value)

    def receive(self) -> Any:
        """What it says next; None where it has ended."""
        line = self._read.readline()
        return json.loads(line) if line else None


def compare(workers: dict[str, Worker], names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Times the calls of one table, in turns.

    Args:
        workers: By name, before and after.
        names: Of the calls.
        rounds: How often each has its turn.
    """
    taken: dict[str, dict[str, list[list[float]]]] = {
        name: {which: [] for which in workers} for name in names
    }
    for number in range(rounds):
        for name in names:
            turn = list(workers) if number % 2 == 0 else list(workers)[::-1]
            for which in turn:
                workers[which].send(name)
                taken[name][which].append(workers[which].receive())
    return [_row(name, samples["before"], samples["after"]) for name, samples in taken.items()]


def _row(name: str, before: list[list[float]], after: list[list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"impl": name, "rounds": len(before)}
    for at, kind in enumerate(("wall", "cpu")):
        one, other = [s[at] for s in before], [s[at] for s in after]
        row |= {
            f"{kind}_before_ms": round(1e3 * min(one), 4),
            f"{kind}_after_ms": round(1e3 * min(other), 4),
            f"{kind}_ratio_min": round(min(other) / min(one), 4),
            f"{kind}_ratio_median": round(statistics.median(other) / statistics.median(one), 4),
            f"{kind}_noise": round(min(one[1::2]) / min(one[::2]), 4),
        }
    return row


COLUMNS = ("impl", "cpu_before_ms", "cpu_after_ms", "cpu_ratio_min", "cpu_ratio_median",
           "cpu_noise", "wall_ratio_min", "wall_noise")  # fmt: skip


HEADER = [
    "# Two builds in turns",
    "",
    "Ratios of processor time and wall time, after over before: of the least and the median round.",
    "`noise` is the same ratio of the least times between two halves of the rounds before.",
    "",
]


def section(document: dict[str, Any]) -> str:
    """Returns the table of a file under its command."""
    machine = document["environment"]["after"]
    title = f"    nodebits bench {' '.join(document['command'])}\n\n{machine['processor']}\n"
    return f"{title}\n{render(document['rows'])}\n"


def render(rows: list[dict[str, Any]]) -> str:
    """Returns a table of all rows."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(str(row[name]) for name in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def work(read_fd: int, write_fd: int, command: list[str]) -> None:
    """A worker: the bench command, whose timed calls wait for their turn."""
    orders, answers = os.fdopen(read_fd), os.fdopen(write_fd, "w")
    from nodebits.bench.environment import describe_environment
    from nodebits.bench.speed import rows

    def in_turns(
        candidates: Mapping[str, Callable[[], object]], *args: Any, **options: Any
    ) -> dict[str, list[float]]:
        _send(answers, list(candidates))
        asked = json.loads(orders.readline())
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        for name, call in candidates.items():
            if name not in asked:
                samples[name].append(_timed(call)[0])
        while (name := json.loads(orders.readline())) is not None:
            answer = _timed(candidates[name])
            samples[name].append(answer[0])
            _send(answers, answer)
        return samples

    rows.sample_interleaved = in_turns  # type: ignore[assignment]
    _send(answers, describe_environment())
    project = tomllib.loads((Path(rows.__file__).parents[4] / "pyproject.toml").read_text())
    script = metadata.EntryPoint("nodebits", project["project"]["scripts"]["nodebits"], "")
    sys.argv = ["nodebits", "bench", *command]
    script.load()()


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds and processor seconds of a call, after one that fills the caches."""
    start = time.perf_counter()
    call()
    calls = min(_MOST, max(1, int(_BLOCK / max(time.perf_counter() - start, 1e-9))))
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def _send(stream: IO[str], value: Any) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="tree of the build to compare with")
    parser.add_argument("--after", type=Path, default=HERE.parent, help="tree of the other")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file for all rows")
    parser.add_argument("--table", type=Path, nargs="+", help="render files instead")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of nodebits bench, after --")
    options = parser.parse_args()
    options.command = [part for part in options.command if part != "--"]
    if not options.worker and not options.table and options.before is None:
        parser.error("--before is missing: the tree to compare with")
    return options


if __name__ == "__main__":
    main()
