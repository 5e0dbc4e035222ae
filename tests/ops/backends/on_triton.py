"""Operators on the kernels in Triton's language, interpreted on the CPU or on a card; inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from operator_inputs import same
from torch import Tensor

from nodebits import ops
from nodebits.core.row_layout import RowLayout
from nodebits.ops import Epilogue, Output
from nodebits.ops.backends.triton import choice
from nodebits.ops.operator import OPERATORS, Operator

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


def why_not() -> str | None:
    """Why these tests cannot run here."""
    problem = choice.triton_problem()
    if problem is None and not INTERPRETED:
        problem = choice.device_problem()
    return None if problem is None else f"{problem}; TRITON_INTERPRET=1 (make triton) needs no card"


needs_triton = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def moved(value: Any) -> Any:
    """Arguments, with their tensors on the device of the tests."""
    if isinstance(value, Tensor):
        return value.to(DEVICE)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(moved, value))
    return type(value)(map(moved, value)) if isinstance(value, (list, tuple)) else value


@contextmanager
def serving() -> Iterator[None]:
    """The kernels are the operators of the device, also where that is the CPU."""
    if not INTERPRETED:
        yield
        return
    from nodebits.ops.backends.triton import calls

    library = torch.library.Library("nodebits", "IMPL")
    try:
        for op in OPERATORS.values():
            compute = partial(op.run, partial(calls.call, op))
            library.impl(op.name, compute, "CPU", allow_override=True)
        yield
    finally:
        library._destroy()  # what served before does again


def on_kernels(op: Operator[..., Any], *flat: Any) -> Any:
    """What the kernels make of the arguments of the schema, which are on the device."""
    with serving():
        found = op.schema(*flat)
    return found.cpu() if isinstance(found, Tensor) else type(found)(one.cpu() for one in found)


def on_definition(op: Operator[..., Any], *flat: Any) -> Any:
    """What they mean."""
    with ops.force_isa("reference"):
        return op.schema(*flat)


def assert_equal(op: Operator[..., Any], found: Any, expected: Any) -> None:
    """The same bits; the sums of floats of a backward pass come close."""
    if op.name.endswith("_backward"):
        assert same(found[0], expected[0])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    else:
        assert same(found, expected), op.name


def assert_kernels_agree(op: Operator[..., Any], *args: Any) -> Any:
    """Result of the definition, which that of the kernels must equal to the bit."""
    expected = on_definition(op, *op.flat(args))
    assert_equal(op, on_kernels(op, *op.flat([moved(one) for one in args])), expected)
    return expected


def epilogue(rows: int, cols: int, heads: int, g: torch.Generator) -> Epilogue:
    wide = [torch.randn(cols, generator=g) for _ in range(3)]
    per_row = torch.rand(rows, heads, generator=g), torch.rand(rows, 1, generator=g)
    return Epilogue(wide[0], wide[1], *per_row, wide[2])


def outputs(rows: int, cols: int, g: torch.Generator) -> list[Output]:
    """Quantizers of every kind: per tensor, per column, in buckets, shifted."""
    where = RowLayout.of(torch.randint(1, 9, (rows,), generator=g))
    shift = ((8 - where.widths) * torch.randint(0, 2, (rows,), generator=g)).to(torch.uint8)
    factor, zeros = torch.rand(rows, generator=g), torch.rand(8, generator=g) * 3
    one, each = torch.rand(1, generator=g) + 0.1, torch.rand(cols, generator=g) + 0.1
    return [
        Output(one, 5 * one, 4),
        Output(each, 3 * each, 3, factor),
        Output(torch.rand(rows, generator=g) + 0.1, zeros, 8, factor, where.widths, where.position),
        Output(each, zeros, 8, None, where.widths, None, shift),
        Output(one, zeros, 8, factor, where.widths, None, shift),
    ]
