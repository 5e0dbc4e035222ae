"""R11: a sum that does not fit int32 is refused, and the largest that fits is exact.

    python benchmarks/reliability/overflow.py

Stars whose centre has as many neighbours of code 255 as int32 holds, and one more.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from record import Result, record

from nodebits import UniformConfig, calibrate, convert, ops, prepare
from nodebits.core.errors import AccumulatorOverflowError
from nodebits.graph import Graph

from torch_geometric.nn import GINConv  # isort: skip
from torch import nn  # isort: skip

LARGEST = (2**31 - 1) // 255  # 8,421,504


def star(leaves: int) -> Graph:
    """All edges go to node 0 and come from node 1."""
    indptr = torch.tensor([0, leaves, leaves])
    return Graph(indptr, torch.ones(leaves, dtype=torch.int32), 2)


def refused(call: Callable[[], object]) -> bool:
    """Whether it names the node and the bound."""
    try:
        call()
    except AccumulatorOverflowError as error:
        return "node 0" in str(error) and f"{LARGEST}" in str(error)
    return False


def main() -> None:
    """Sums the stars with every kernel and with a model."""
    started = time.perf_counter()
    wrong, count = [], 0
    graph = star(LARGEST)
    codes = torch.full((2, 1), 255, dtype=torch.uint8)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            total = int(
                ops.spmm(ops.Edges(graph.indptr, graph.indices), ops.Source(codes, 8, 1))[0, 0]
            )
        count += 1
        if total != 255 * LARGEST:
            wrong.append(f"{isa}: {total}")
    x, pair = torch.tensor([[0.0], [1.0]]), torch.tensor([[1], [0]])
    prepared = prepare(GINConv(nn.Linear(1, 2)), UniformConfig(bits=8, mode="ptq")).eval()
    calibrate(prepared, x, pair)
    packed = convert(prepared)
    expected = packed.predict(x, pair)
    more = star(LARGEST + 1)
    for name, model in (("packed", packed), ("prepared", prepared)):
        count += 2
        if not model(x, graph).isfinite().all():
            wrong.append(f"{name}: not finite")
        if not refused(lambda m=model: m(x, more)):  # type: ignore[misc]
            wrong.append(f"{name}: {LARGEST + 1} neighbours are not refused")
    count += 1
    if not torch.equal(packed.predict(x, pair), expected):
        wrong.append("the model gives another result after the error")
    print("\n".join(wrong))
    record(
        Result(
            "R11",
            "No silent overflow",
            f"a star of {LARGEST:,} leaves of code 255 sums to {255 * LARGEST:,} on "
            f"{', '.join(ops.available_isas())}; {LARGEST + 1:,} leaves are refused by the packed "
            "and the prepared model with the node and the bound",
            count,
            len(wrong),
            not wrong,
        ),
        started,
    )


if __name__ == "__main__":
    main()
