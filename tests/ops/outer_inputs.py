"""Arguments of sums of outer products."""

from __future__ import annotations

from typing import Any

import torch
from operator_inputs import codes, generator, graph

from nodebits import ops
from nodebits.ops import Edges, Epilogue, Other, Sink, Source

SOURCES = 40
# Around the ends of the parts in which edges are taken.
DEGREES = [0, 1, 2, 63, 64, 65, 0, 130, 9]


def given(cols: int, heads: int, bits: int, placed: bool, plain: bool) -> dict[str, Any]:
    """Arguments of the operator by name, and the codes ``u`` and ``f`` that they hold."""
    g = generator(cols + heads)
    edges = Edges(*graph(DEGREES, SOURCES, g))
    count = edges.indices.numel()
    u, f = codes(SOURCES, cols, bits, g), codes(count, heads, 9 - bits, g)
    width = (heads + int(plain)) * cols
    return {
        "edges": edges,
        "source": Source(ops.pack(u, bits), bits, cols),
        "factors": Other(ops.pack(f, 9 - bits), 9 - bits, heads),
        "order": torch.randperm(count, generator=g) if placed else None,
        "zero": torch.randint(256, (cols,), generator=g, dtype=torch.int32),
        "factor_zero": torch.randint(256, (heads,), generator=g, dtype=torch.int32),
        "plain": plain,
        "epilogue": Epilogue(torch.rand(width, generator=g) + 0.1),
        "u": u,
        "f": f,
    }


def called(named: dict[str, Any], sink: Sink) -> tuple[Any, ...]:
    return (*(value for name, value in named.items() if name not in ("u", "f")), sink)
