"""Steps of torch's functions that IEEE 754 fixes: torch's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from executor_case import Case, same
from torch import Tensor

from nodebits.core.errors import NodeIndexError, ShapeError

SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-40])
SHAPES = [((7, 5), (7, 5)), ((7, 5), (5,)), ((7, 1), (7, 5)), ((7, 5), ()), ((3, 1, 4), (2, 1))]
SHAPES += [((1, 5), (7, 1)), ((0, 5), (5,)), ((), ()), ((2, 3, 1, 5), (3, 4, 1))]


def values(shape: tuple[int, ...]) -> Tensor:
    t = torch.randn(shape)
    flat = t.view(-1)
    n = min(flat.numel(), SPECIAL.numel())
    flat[:n] = SPECIAL[torch.randperm(SPECIAL.numel())[:n]]
    return t


def without_signs_of_zero(t: Tensor) -> Tensor:
    """Torch's largest of 0 and -0 depends on where in a vector they stand."""
    return t + 0.0


def check(op: str, expected: Tensor, *args: Any) -> None:
    for as_input in (True, False):
        case = Case()

        def place(arg: Any, case: Case = case, as_input: bool = as_input) -> Any:
            if isinstance(arg, list):
                return [place(item) for item in arg]
            if isinstance(arg, Tensor):
                return case.input(arg) if as_input else case.constant(arg)
            return arg

        ref = case.step(op, *map(place, args))
        (made,) = case.everywhere(ref)
        if op in ("maximum", "minimum"):
            made, expected = without_signs_of_zero(made), without_signs_of_zero(expected)
        assert same(made, expected.contiguous()), op


BINARY: dict[str, Callable[..., Tensor]] = {
    name: getattr(torch, name)
    for name in "add sub mul div maximum minimum gt lt ge le eq ne".split()
}


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("shapes", SHAPES)
def test_binary(op: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = values(shapes[0]), values(shapes[1])
    check(op, BINARY[op](a, b), a, b)
    check(op, BINARY[op](b, a), b, a)
    if op not in ("maximum", "minimum"):
        check(op, BINARY[op](a, 0.3), a, 0.3)
        check(op, BINARY[op](a, 3), a, 3)
        if op in ("sub", "div"):
            check(op, BINARY[op](torch.tensor(0.7), a), 0.7, a)


def test_unary() -> None:
    x = torch.cat([values((6, 9)), torch.randn(6, 9) * 1e30])
    for op in ("relu", "neg", "abs", "reciprocal", "rsqrt"):
        check(op, getattr(torch, op)(x), x)
    # Torch's own root is off by a unit in the last place where MKL computes it.
    check("sqrt", torch.from_numpy(np.sqrt(x.abs().numpy())), x.abs())
    check("inverse", torch.where(x > 0, 1.0 / x, 0.0), x)
    check("clamp_min", x.clamp_min(0.25), x, 0.25)
    check("clamp", x.clamp(-0.5, 0.5), x, -0.5, 0.5)
    check("clamp", x.clamp(None, 0.5), x, None, 0.5)
    check("clamp", x.clamp(-0.5), x, -0.5, None)
    check("leaky_relu", torch.nn.functional.leaky_relu(x, 0.2), x, 0.2)
    check("logical_not", (x > 0).logical_not(), x > 0)
    check("where", torch.where(x > 0, x, 0.0), x > 0, x, 0.0)
    check("where", torch.where(x > 0, x[:1], x), x > 0, x[:1], x)
    check("where", torch.where(x[:, :1] > 0, x, x[0]), x[:, :1] > 0, x, x[0])


def test_large_arrays_are_split() -> None:
    a, b = torch.randn(3000, 64), torch.randn(64)
    check("add", a + b, a, b)
    check("mul", a * a[:, :1], a, a[:, :1].contiguous())
    check("relu", a.relu(), a)
    check("transpose", a.t(), a, 0, 1)


def test_movement() -> None:
    x, y = values((4, 6, 3)), torch.randn(4, 2, 3)
    check("cat", torch.cat([x, y], 1), [x, y], 1)
    check("cat", torch.cat([x, x[:0], x], 0), [x, x[:0], x], 0)
    check("cat", torch.cat([x, x], -1), [x, x], -1)
    for dim in (0, 1, -1):
        check("stack", torch.stack([x, x + 1], dim), [x, x + 1], dim)
    check("slice", x[:, 1:5:2], x, 1, 1, 5, 2)
    check("slice", x[..., :2], x, -1, None, 2, None)
    check("slice", x[-2:], x, 0, -2, None, 1)
    check("select", x[:, 2], x, 1, 2)
    check("select", x[:, :, -1], x, 2, -1)
    check("view", x.view(4, -1), x, [4, -1])
    check("view", x.view(2, 12, 3), x, [2, 12, 3])
    for dims in ((0, 1), (0, 2), (1, 2), (2, 2)):
        check("transpose", x.transpose(*dims), x, *dims)
    check("clone", x, x)
    for t in (torch.arange(9, dtype=torch.uint8), torch.arange(9), torch.arange(9).int(), x > 0):
        check("float", t.float(), t)
    check("full", torch.full((2, 3), 1.5), [2, 3], 1.5)
    for number in (0, 7, -3, (1 << 53) - 1):
        check("full", torch.full((5,), number), [5], number, "=int64")
    for kind in (torch.int64, torch.int32):
        index = torch.tensor([3, 0, 3, 1], dtype=kind)
        check("index_select", x.index_select(0, index), x, 0, index)
    check("amax", x.amax(1), x, 1, False)
    check("amin", x.amin(-1, keepdim=True), x, -1, True)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33, 128])
@pytest.mark.parametrize("op", ["amax", "amin"])
def test_extremes_of_rows(op: str, length: int) -> None:
    x = torch.randn(length + 2, length)
    # NaN stays wherever it stands, and infinity is a number.
    x[range(length), range(length)] = torch.nan
    x[-1, -1] = torch.inf if op == "amax" else -torch.inf
    check(op, getattr(x, op)(1), x, 1, False)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("shape", [(50, 3), (50,), (3000, 65), (0, 4), (40, 2, 3)])
def test_segments(ordered: bool, shape: tuple[int, ...]) -> None:
    src = torch.randn(shape)
    index = torch.randint(0, 11, (shape[0],))
    if ordered:
        index = index.sort()[0]
    spread = index.view([-1] + [1] * (src.dim() - 1)).expand_as(src)
    zeros = torch.zeros(12, *shape[1:])
    check("segment_sum", zeros.scatter_add(0, spread, src), src, index, 12)
    for op, reduce in (("segment_max", "amax"), ("segment_min", "amin")):
        expected = zeros.scatter_reduce(0, spread, src, reduce, include_self=False)
        check(op, expected, src, index, 12)
    most = index.max().view(1) if shape[0] else torch.tensor([-1])
    check("max_index", most, index)


def test_sizes_come_from_values() -> None:
    case = Case()
    x, batch = case.input(torch.randn(9, 4)), case.input(torch.tensor([0] * 4 + [2] * 5), "batch")
    top = case.step("max_index", batch)
    pooled = case.step("segment_sum", x, batch, f"n{top[1:]}+1")
    flat = case.step("view", pooled, [f"n{top[1:]}+1", "d0.1"])
    mean = case.step("div", flat, "d0.0")
    expected = torch.zeros(3, 4).index_add(0, case.given[1], case.given[0])
    made = case.everywhere(pooled, mean)
    assert same(made[0], expected) and same(made[1], expected / 9)


def test_shapes_and_indices_that_do_not_fit() -> None:
    x = torch.randn(4, 3)
    for op, args, error in [
        ("add", (x, torch.randn(4)), ShapeError),
        ("add", (x, x > 0), ShapeError),
        ("cat", ([x, x[:, :2].contiguous()], 0), ShapeError),
        ("view", (x, [5, -1]), ShapeError),
        ("select", (x, 1, 3), NodeIndexError),
        ("select", (x, 2, 0), ShapeError),
        ("index_select", (x, 0, torch.tensor([4])), NodeIndexError),
        ("segment_sum", (x, torch.tensor([0, 1, 5, 0]), 5), NodeIndexError),
        ("segment_sum", (x, torch.tensor([0, 1, -1, 0]), 5), NodeIndexError),
        ("segment_sum", (x, torch.tensor([0, 1]), 5), ShapeError),
        ("max_index", (torch.tensor([0, -2]),), NodeIndexError),
        ("full", ([1 << 40, 1 << 40], 0.0), ShapeError),
        ("full", ([3], 0.5, "=int64"), ShapeError),
    ]:
        case = Case()
        with pytest.raises(error, match=rf"step 0 \({op}\)|\[\d\] is|index"):
            case.run(case.step(op, *args))


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "maximum"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_results_take_the_place_of_operands_that_nobody_reads_later(
    op: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    a, b = (torch.randn(shape) for shape in shapes)
    given = a.clone(), b.clone()
    case = Case()
    x, y = case.input(a), case.input(b)
    one, other, kept = case.step("neg", x), case.step("abs", y), case.step("neg", y)
    first = case.step(op, one, other)
    second = case.step(op, first, other)
    third = case.step(op, second, second)
    found = case.everywhere(third, kept, case.step("relu", case.step(op, kept, 0.5)))
    run = BINARY[op]
    twice = run(run(-a, b.abs()), b.abs())
    half = torch.tensor(0.5)
    for got, want in zip(found, (run(twice, twice), -b, run(-b, half).relu()), strict=True):
        assert same(without_signs_of_zero(got), without_signs_of_zero(want.contiguous()))
    assert torch.equal(a, given[0]) and torch.equal(b, given[1])


def test_a_value_that_is_read_under_another_shape_is_not_written_over() -> None:
    a = torch.randn(4, 6)
    case = Case()
    x = case.input(a)
    rows = case.step("neg", x)
    flat = case.step("view", rows, [24])
    more = case.step("view", case.step("add", rows, 1.0), [24])
    (found,) = case.everywhere(case.step("mul", more, flat))
    assert same(found, ((-a + 1.0) * -a).view(24))
