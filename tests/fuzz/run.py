"""The fuzz driver: mutated files of every form, in two processes that are watched.

    make fuzz FUZZ_ARGS="[--count N] [--seed S] [--jobs J] [--out FOLDER] [--only TARGETS]"
    make fuzz FUZZ_ARGS="--replay FILE ..."

Input number n of a seed is always the same one. The numbers are tried in chunks, each in a process
of its own and each leaving a file in the folder: the same command continues a run that was
interrupted. An input that breaks a promise is kept in ``findings``; its name says target, seed file
and number, and ``--replay`` tries it again.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fuzz.attempt import CRASH, HANG, Meter, Outcome, Place, attempt
from fuzz.chunk import GOOD, keep, make_input, run_chunk
from fuzz.target import Target
from fuzz.targets import TARGETS
from nodebits import ops

HERE = Path(__file__).resolve().parent
CHUNK = 20_000
# Without progress for so long on a busy machine, an input never ends.
STUCK_SECONDS = 60.0


def code_state() -> str:
    """Digest of the library, its compiled part and the driver: one count is of one state."""
    import nodebits

    roots = (Path(nodebits.__file__).parent, HERE)
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted((*root.rglob("*.py"), *root.glob("*.so"), *root.glob("corpus/*/*"))):
            if not path.name.startswith("test_"):
                digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def load_targets(only: str = "") -> list[Target]:
    """The readers, all or those named, with their seeds."""
    chosen = [made for made in TARGETS if not only or made.name in only.split(",")]  # type: ignore[attr-defined]
    if not chosen:
        raise SystemExit(f"no such target: {only}")
    return [made() for made in chosen]


@dataclass
class Job:
    """A chunk in its process."""

    number: int
    numbers: list[int]
    at: Any
    process: Any
    seen: tuple[int, float] = (-1, 0.0)


@dataclass
class Driver:
    """Runs chunks until ``count`` inputs are done.

    Attributes:
        targets: The readers.
        seed: Of the run.
        count: Inputs.
        jobs: Processes.
        out: Folder of the results.
        sanitized: Whether the kernels are those of ``make sanitize``.
        lost: Inputs that ended or held up their process, by number.
    """

    targets: list[Target]
    seed: int
    count: int
    jobs: int
    out: Path
    sanitized: bool = False
    lost: dict[int, str] = field(default_factory=dict)

    def _file(self, chunk: int) -> Path:
        return self.out / "chunks" / f"{chunk:06}.json"

    def _start(self, chunk: int) -> Job:
        last = min((chunk + 1) * CHUNK, self.count)
        numbers = [n for n in range(chunk * CHUNK, last) if n not in self.lost]
        context = multiprocessing.get_context("fork")
        at = context.RawValue("Q", 0)
        process = context.Process(target=self._work, args=(chunk, numbers, at))
        process.start()
        return Job(chunk, numbers, at, process, (-1, time.monotonic()))

    def _work(self, chunk: int, numbers: Iterable[int], at: Any) -> None:
        started = time.process_time()
        found = run_chunk(
            self.targets, self.seed, numbers, self.out / "findings", at, not self.sanitized
        )
        found["seconds"] = time.process_time() - started
        work = self._file(chunk).with_suffix(".work")
        work.write_text(json.dumps(found))
        os.replace(work, self._file(chunk))

    def run(self, report: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """Runs what is missing; returns the sum of all chunks.

        Args:
            report: Called with the sum after every chunk.
        """
        self._file(0).parent.mkdir(parents=True, exist_ok=True)
        lost = self.out / "lost.json"
        if lost.exists():
            self.lost = {int(n): kind for n, kind in json.loads(lost.read_text()).items()}
        chunks = range((self.count + CHUNK - 1) // CHUNK)
        with tempfile.TemporaryDirectory() as work:
            for target in self.targets:
                target.warm_up(Path(work) / "seed")
        gc.freeze()  # the collector writes to what the processes share
        waiting = [chunk for chunk in chunks if not self._file(chunk).exists()]
        running: list[Job] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    running.append(self._start(waiting.pop(0)))
                time.sleep(0.05)
                for job in list(running):
                    if self._over(job):
                        running.remove(job)
                        if not self._file(job.number).exists():
                            waiting.insert(0, job.number)
                            lost.write_text(json.dumps(self.lost))
                        if report is not None:
                            report(self.summary())
        finally:
            for job in running:
                job.process.kill()
        return self.summary()

    def _over(self, job: Job) -> bool:
        """Whether a chunk's process ended, perhaps by us or at an input that ended it."""
        now, number = time.monotonic(), int(job.at.value)
        kind = ""
        if job.process.is_alive():
            if number != job.seen[0]:
                job.seen = (number, now)
            if now - job.seen[1] < STUCK_SECONDS:
                return False
            job.process.kill()
            kind = HANG
        job.process.join()
        if not kind and job.process.exitcode != 0:
            kind = CRASH
        if kind:
            self.lost[number] = kind
            target, name, data = make_input(self.seed, number, self.targets)
            outcome = Outcome(kind, "", 0.0, 0, f"exit code {job.process.exitcode}")
            keep(self.out / "findings", self.seed, number, target.name, name, data, outcome)
        return True

    def summary(self) -> dict[str, Any]:
        """Sum of the chunks that are done."""
        counts: Counter[str] = Counter()
        worst = {"seconds": 0.0, "grown": 0.0, "above": -1e30}
        seconds = 0.0
        for path in sorted(self._file(0).parent.glob("*.json")):
            found = json.loads(path.read_text())
            counts.update(found["counts"])
            worst = {name: max(value, found["worst"][name]) for name, value in worst.items()}
            seconds += found["seconds"]
        for number, kind in self.lost.items():
            counts[f"{make_input(self.seed, number, self.targets)[0].name}/refused/{kind}"] += 1
        bad = sum(n for key, n in counts.items() if key.rpartition("/")[2] not in GOOD)
        return {
            "inputs": counts.total(),
            "bad": bad,
            "counts": dict(sorted(counts.items())),
            "worst": worst,
            "processor_seconds": round(seconds, 1),
        }


def check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a run, or compares them with those of the run in the folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if not path.exists():
        path.write_text(json.dumps(settings))
        return
    found = json.loads(path.read_text())
    other = [key for key in settings if settings[key] != found.get(key)]
    if other:
        raise SystemExit(f"{out} is a run with another {', '.join(other)}: choose another --out")


def replay(paths: list[Path]) -> bool:
    """Tries kept inputs again; returns whether all keep the promises now."""
    targets = {target.name: target for target in load_targets()}
    good = True
    for path in paths:
        name, seed = path.name.split("--")[:2]
        work = path.with_name(f".{path.name}.replayed")
        try:
            outcome = attempt(targets[name], seed, path.read_bytes(), Place(work), Meter())
        finally:
            work.unlink(missing_ok=True)
        print(f"{path.name}: {outcome.kind} ({outcome.depth}) {outcome.error}\n{outcome.trace}")
        good = good and outcome.kind in GOOD
    return good


def main() -> int:
    """Parses the command line; returns 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--only", default="", help="targets, with commas between them")
    parser.add_argument("--replay", type=Path, nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.replay:
        return 0 if replay(arguments.replay) else 1
    sanitized = "sanitize" in str(sys.modules["nodebits._kernels"].__file__)
    settings = {"seed": arguments.seed, "only": arguments.only, "sanitized": sanitized}
    check_settings(arguments.out, {**settings, "code": code_state(), "isa": ops.describe()["isa"]})
    driver = Driver(
        load_targets(arguments.only),
        arguments.seed,
        arguments.count,
        arguments.jobs,
        arguments.out,
        sanitized,
    )

    def report(summary: dict[str, Any]) -> None:
        text = json.dumps({"count": arguments.count, **settings, **summary}, indent=1)
        (arguments.out / "summary.json").write_text(text)
        print(f"\r{summary['inputs']:,} inputs, {summary['bad']} bad ", end="", flush=True)

    summary = driver.run(report)
    report(summary)
    print()
    for key, number in summary["counts"].items():
        print(f"{number:>12,}  {key}")
    return 1 if summary["bad"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
