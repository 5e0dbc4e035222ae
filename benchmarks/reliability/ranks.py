"""Several processes: the bits of one, packed bytes alone, and what becomes of a killed rank.

    python benchmarks/reliability/ranks.py
    python benchmarks/reliability/ranks.py --kills 10    # a try

Ranks are processes on this machine. A kill point is a call of a rank: a step of the plan, an
exchange that begins or ends, a layer that is kept. At each of them one rank ends by ``SIGKILL``;
the others must say so, and the same run must then go on to the same bits.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import Result, record
from torch import Tensor, nn
from torch_geometric.nn import AGNNConv, RGCNConv

from nodebits.distributed.errors import RankError
from nodebits.distributed.exchange import Arriving, Exchange
from nodebits.distributed.files import Contents, read_part, write_parts
from nodebits.distributed.launch import gathered, joined
from nodebits.distributed.progress import Progress
from nodebits.distributed.run import run_part
from nodebits.distributed.runner import Runner
from nodebits.methods import UniformConfig
from nodebits.runtime import PackedModel, convert

from packed_models import CLASSES, FEATURES, NODES, make_case, small_graph, two_steps  # isort: skip
from distributed.ranks import ended, start  # isort: skip

WORLDS = range(1, 9)
MODELS = ("gcn", "sage", "gin", "appnp", "kinds")
# Those of which a rank is killed: the rounds of APPNP are many points of one kind.
FALLEN = ("kinds", "gcn", "sage", "gin")
# Widths of what the two sums of a model read, where nothing else crosses.
COLUMNS = {"gcn": (16, CLASSES), "gin": (FEATURES, 16), "sage": (FEATURES, 16)}
# Where a rank may be killed.
POINTS = ((Runner, "_made"), (Exchange, "begin"), (Arriving, "wait"), (Progress, "save"))
STALLS = 5
# Seconds that a rank waits for another: where one is killed, and where one is stopped.
PATIENT, TIMEOUT = 60.0, 3.0


class Kinds(nn.Module):
    """Kinds of edges, and scores that are made edge by edge."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RGCNConv(FEATURES, 8, 2), AGNNConv()

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        """A row for each node."""
        out: Tensor = self.second(self.first(x, edge_index, edge_type).relu(), edge_index)
        return out


class Tried(NamedTuple):
    """A packed model and what it is run on.

    Attributes:
        packed: The model.
        x: Features.
        edges: Edges.
        others: What belongs to edges, by the names of the forward's arguments.
        expected: What one process gives.
    """

    packed: PackedModel
    x: Tensor
    edges: Tensor
    others: dict[str, Tensor]
    expected: Tensor

    def divide(self, folder: Path, world: int, way: str = "range") -> Contents:
        """Writes parts."""
        given = self.edges, {"x": self.x}, self.others, world, way
        return write_parts(folder, *given, name="small")


def tried(name: str, bits: int = 4) -> Tried:
    """A model by name."""
    if name == "kinds":
        x, edges = small_graph()
        others = {"edge_type": torch.arange(edges.size(1)) % 2}
        torch.manual_seed(bits)
        packed = convert(two_steps(Kinds(), UniformConfig(bits=bits), x, edges, **others))
    else:
        case = make_case(name, bits=bits)
        packed, x, edges, others = case.packed, case.x, case.edge_index, {}
    return Tried(packed, x, edges, others, packed.predict(x, edges, **others))


def same(first: Tensor, second: Tensor) -> bool:
    """Bit for bit."""
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def work(packed: PackedModel, parts: Path, timeout: float, kept: bool) -> Callable[[int], Any]:
    """What a rank does; all outputs are on the first."""

    def run(rank: int) -> tuple[Tensor | None, int, int]:
        loaded = read_part(parts, rank)
        with joined(timeout) as ranks:
            progress = Progress(parts, rank, "key") if kept else None
            found = run_part(packed, loaded, ranks.world, timeout, progress)
            out = gathered(found.outputs, loaded.part.nodes, NODES, ranks, timeout)
        return out, found.sent, found.resumed

    return run


def agree(folder: Path) -> None:
    """S1 and S2: bits and bytes for every number of ranks."""
    started = time.perf_counter()
    ways = ["range", *(["metis"] if importlib.util.find_spec("pymetis") else [])]
    differ = count = 0
    over, saved = [], []
    for name in MODELS:
        for bits in (8, 4):
            case = tried(name, bits)
            for way in ways:
                for world in WORLDS:
                    parts = folder / f"{name}-{bits}-{way}-{world}"
                    about = case.divide(parts, world, way)
                    runs = start(world, work(case.packed, parts, 30.0, False), folder)
                    found = ended(runs, folder)
                    differ += not same(found[0][0], case.expected)
                    count += 1
                    sent = sum(one[1] for one in found) if name in COLUMNS else 0
                    if not sent:
                        continue
                    packed = about.boundary * sum(-(-bits * c // 8) for c in COLUMNS[name])
                    over.append(sent / packed)
                    if bits == 4:
                        saved.append(about.boundary * 4 * sum(COLUMNS[name]) / sent)
    record(
        Result(
            "S1",
            "Processes have the bits of one",
            f"{len(MODELS)} models at 8 and 4 bits, divided by {' and '.join(ways)} among "
            f"{WORLDS[0]} to {WORLDS[-1]} processes: {differ} of {count} runs differ",
            count,
            differ,
            not differ and len(ways) > 1,
            "" if len(ways) > 1 else "pymetis was not there",
        ),
        started,
    )
    record(
        Result(
            "S2",
            "Only packed rows travel",
            f"the bytes of boundary rows as packed, {max(over):.3f} times them at most; at 4 bits "
            f"{min(saved):.2f} to {max(saved):.2f} times fewer than float32",
            len(over),
            sum(ratio > 1.05 for ratio in over),
            min(saved) >= 7,
            "" if min(saved) >= 7 else "rows of few columns end within a byte",
        ),
        started,
    )


def harmed(
    packed: PackedModel, parts: Path, victim: int, point: int, number: int, timeout: float
) -> Callable[[int], Any]:
    """A rank that gets a signal at its n-th call; what others saw of it, and when."""

    def run(rank: int) -> Any:
        left = point

        def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **keywords: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    (parts / "harmed").write_text(repr(time.monotonic()))
                    os.kill(os.getpid(), number)
                return real(*args, **keywords)

            return call

        if rank == victim:
            for owner, name in POINTS:
                call = deadly(getattr(owner, name))
                setattr(owner, name, staticmethod(call) if name == "_made" else call)
        try:
            return work(packed, parts, timeout, True)(rank)
        except RankError:
            return "RankError", time.monotonic()

    return run


def fall(folder: Path, kills: int) -> None:
    """S4: a rank ends, or stalls, at every point."""
    started = time.perf_counter()
    seconds, late, wrong, resumed, done = [], [], 0, 0, 0
    victim = 1
    for name in (*FALLEN, *FALLEN):
        case = tried(name)
        case.packed.plan(case.x, case.edges, **case.others)
        point = 1
        while done < kills:
            parts = folder / f"fall-{victim}-{name}-{point}"
            case.divide(parts, 2)
            run = harmed(case.packed, parts, victim, point, signal.SIGKILL, PATIENT)
            found = ended(start(2, run, folder), folder)
            if not (parts / "harmed").exists():
                break  # the rank has no such call
            done += 1
            at = float((parts / "harmed").read_text())
            other = found[1 - victim]
            if other is not None and other[0] == "RankError":
                seconds.append(other[1] - at)
            elif other is None or isinstance(other, BaseException):
                wrong += 1
            found = ended(start(2, work(case.packed, parts, 30.0, True), folder), folder)
            wrong += not (isinstance(found[0], tuple) and same(found[0][0], case.expected))
            resumed += isinstance(found[0], tuple) and found[0][2] > 0
            point += 1
        victim = 1 - victim if name == FALLEN[-1] else victim
    for point in range(1, STALLS + 1):
        case = tried("gcn")
        parts = folder / f"stall-{point}"
        case.divide(parts, 2)
        run = harmed(case.packed, parts, 1, 3 * point, signal.SIGSTOP, TIMEOUT)
        processes = start(2, run, folder)
        while not (folder / "0").exists():
            time.sleep(0.02)
        os.kill(processes[1], signal.SIGKILL)
        other = ended(processes, folder)[0]
        if (parts / "harmed").exists():  # else the machine was too busy to get there in time
            late.append(other[1] - float((parts / "harmed").read_text()))
    slow = sum(one > 1 for one in seconds) + sum(one > TIMEOUT + 1 for one in late)
    record(
        Result(
            "S4",
            "A rank that ends",
            f"one of two ranks killed at {done} points: RankError on the other after "
            f"{statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s; {wrong} later runs "
            f"differ, {resumed} resumed. {len(late)} stops, timeout {TIMEOUT:g} s: RankError after "
            f"at most {max(late):.2f} s",
            done + len(late),
            wrong,
            not (wrong or slow) and done >= 100,
            f"{slow} errors came late" if slow else "" if done >= 100 else "fewer kills than 100",
        ),
        started,
    )


def main() -> None:
    """Runs, counts, kills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--only", choices=("bits", "kills"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "kills":
            agree(Path(folder))
        if args.only != "bits":
            fall(Path(folder), args.kills)


if __name__ == "__main__":
    main()
