"""R10: the same bits for every number of threads and processes, every time, in any edge order.

    python benchmarks/reliability/determinism.py

Models of every architecture run on a graph large enough for the kernels to share their work. A
case is one result that must equal the first, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter

import torch
from record import Result, record
from torch import Tensor

from nodebits import ModelSpec, UniformConfig, build_model, calibrate, convert, prepare
from nodebits.core.context import current  # noqa: F401  fails early without the package
from nodebits.runtime import PackedModel

NODES, EDGES, FEATURES = 6000, 60_000, 64
MODELS = ("gcn", "gin", "gat", "sage", "appnp")
THREADS = (1, 2, 3, 8)
PROCESSES = 8
REPEATS = 100
ORDERS = 20


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges with a hub, and edge weights."""
    g = torch.Generator().manual_seed(0)
    edges = torch.randint(0, NODES, (2, EDGES), generator=g)
    edges[1, :3000] = 7
    x = torch.randn(NODES, FEATURES, generator=g)
    return x, edges, torch.rand(EDGES, generator=g)


def packed_model(name: str) -> PackedModel:
    """A packed model, the same in every process."""
    x, edges, _ = inputs()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(ModelSpec(name, FEATURES, 32, 8, heads=4)).eval()
    prepared = prepare(model, UniformConfig(bits=4, mode="ptq"))
    calibrate(prepared, x, edges)
    return convert(prepared)


def digest(t: Tensor) -> str:
    """Of all bits."""
    return hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest()


def in_a_process(number: int) -> dict[str, str]:
    """What one process of several at once computes."""
    x, edges, _ = inputs()
    models = {name: packed_model(name) for name in MODELS}
    torch.set_num_threads(1 + number % 3)
    return {name: digest(model.predict(x, edges)) for name, model in models.items()}


def main() -> None:
    """Repeats forwards in all these ways."""
    if sys.argv[1:2] == ["process"]:
        print(json.dumps(in_a_process(int(sys.argv[2]))))
        return
    started = time.perf_counter()
    command = [sys.executable, __file__, "process"]
    others = [
        subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(PROCESSES)
    ]
    x, edges, _ = inputs()
    count: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    first: dict[str, str] = {}
    g = torch.Generator().manual_seed(1)
    for name in MODELS:
        model = packed_model(name)
        first[name] = digest(model.predict(x, edges))

        def check(way: str, found: str, name: str = name) -> None:
            count[way] += 1
            wrong[way] += int(found != first[name])

        for threads in THREADS:
            torch.set_num_threads(threads)
            for _ in range(REPEATS // len(THREADS)):
                check("threads and repeats", digest(model.predict(x, edges.clone())))
        torch.set_num_threads(2)
        for _ in range(ORDERS):
            order = torch.randperm(EDGES, generator=g)
            check("orders of the edges", digest(model.predict(x, edges[:, order])))
    for other in others:
        found = json.loads(other.communicate()[0])
        for name in MODELS:
            count["processes at once"] += 1
            wrong["processes at once"] += int(found[name] != first[name])
    ways = ", ".join(f"{n - wrong[way]:,} of {n:,} by {way}" for way, n in count.items())
    record(
        Result(
            "R10",
            "Deterministic",
            f"{len(MODELS)} models, {', '.join(map(str, THREADS))} threads: equal {ways}",
            count.total(),
            wrong.total(),
            not wrong.total(),
        ),
        started,
    )


if __name__ == "__main__":
    main()
