"""K steps in one operator: the operators one by one, at every level and thread count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import flat
from nodebits import ops
from nodebits.core.errors import BitwidthError, ShapeError

from .operator_inputs import COMPILED, assert_all_levels_agree, generator


def inputs(
    cols: int, bits: list[int], coefficients: list[float], rows: int = 300, hub: int = 0
) -> tuple[Any, ...]:
    g = generator()
    degrees = torch.randint(0, 12, (rows,), generator=g)
    degrees[7] = hub
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), degrees.cumsum(0)])
    indices = torch.randint(0, rows, (int(indptr[-1]),), generator=g, dtype=torch.int32)
    x = torch.randn(rows, cols, generator=g)
    factor = (degrees + 1.0).rsqrt()
    ranges = (torch.rand(len(bits), cols, generator=g) + 0.5) * torch.tensor(
        [4.0 / 2**b for b in bits]
    ).view(-1, 1)
    zero = torch.rand(len(bits), cols, generator=g) * torch.tensor([2.0**b for b in bits]).view(
        -1, 1
    )
    made = zero + 0.1
    return indptr, indices, x, factor, ranges, zero, made, bits, coefficients


def one_by_one(*args: Any) -> Tensor:
    indptr, indices, x, factor, scale, zero, made, bits, coefficients, laplacian, alpha = args
    degree = indptr.diff().float().view(-1, 1)
    state, at = x, 0

    def sums(values: Tensor) -> Tensor:
        nonlocal at
        packed = ops.quantize_pack(values, scale[at], made[at], 1, bits[at], factor)
        acc = flat.spmm(indptr, indices, packed, bits[at], x.size(1))
        column = None if factor is None else factor.view(-1, 1)
        out = flat.rescale(acc, scale[at], zero[at], degree, column)
        at += 1
        return out

    pull = alpha * x
    for coefficient in coefficients:
        stepped = sums(state) * (1 - alpha) + pull
        if coefficient:
            change = stepped - state
            spread = sums(change)
            stepped = stepped + (change - spread if laplacian else spread) * coefficient
        state = stepped
    return state


@pytest.mark.parametrize("cols", [1, 3, 7, 16, 41, 64, 130])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_plain_steps(bits: int, cols: int) -> None:
    args = (*inputs(cols, [bits] * 4, [0.0] * 4), False, 0.1)
    out = assert_all_levels_agree(flat.propagate, *args)
    assert torch.equal(out, one_by_one(*args)) and bool(torch.isfinite(out).all())


@pytest.mark.parametrize("laplacian", [False, True])
@pytest.mark.parametrize("coefficients", [[0.0, 0.3, 0.0], [-0.5, 0.25, 0.1], [0.0, 0.0, -0.2]])
def test_corrected_steps(coefficients: list[float], laplacian: bool) -> None:
    sums = len(coefficients) + sum(c != 0 for c in coefficients)
    bits = [8, 2, 4, 3, 1, 5][:sums]
    args = (*inputs(7, bits, coefficients), laplacian, 0.2)
    assert torch.equal(assert_all_levels_agree(flat.propagate, *args), one_by_one(*args))


@pytest.mark.parametrize("steps", [2, 4])  # few steps are not worth renumbering the nodes
def test_hub_and_no_factor(steps: int) -> None:
    args = list((*inputs(7, [2] * steps, [0.0] * steps, hub=40_000), False, 0.1))
    assert torch.equal(assert_all_levels_agree(flat.propagate, *args), one_by_one(*args))
    args[3] = None
    assert torch.equal(assert_all_levels_agree(flat.propagate, *args), one_by_one(*args))


def test_more_nodes_than_sixteen_bits_number() -> None:
    for rows in (65_535, 65_537):
        args = (*inputs(3, [4] * 3, [0.0] * 3, rows=rows, hub=300), False, 0.1)
        assert torch.equal(assert_all_levels_agree(flat.propagate, *args), one_by_one(*args))


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("cols", [3, 5, 16])
@pytest.mark.parametrize("bits", [1, 2, 4, 5, 8])
def test_long_rows_of_few_columns(bits: int, cols: int, steps: int) -> None:
    """Sums that outgrow bytes, then 16 bits, of the largest codes."""
    args = list((*inputs(cols, [bits] * steps, [0.0] * steps, hub=70_000), False, 0.1))
    args[2] = args[2].abs() + 100.0
    args[4] = torch.full_like(args[4], 1e-3)
    assert torch.equal(assert_all_levels_agree(flat.propagate, *args), one_by_one(*args))


def test_empty() -> None:
    none = torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    row = torch.ones(1, 3)
    out = flat.propagate(*none, torch.zeros(0, 3), None, row, row, row, [4], [0.0])
    assert out.shape == (0, 3)


@pytest.mark.parametrize(
    ("at", "value", "error", "message"),
    [
        (2, torch.zeros(5, 7), ShapeError, "x has 5 rows for a square adjacency of 300"),
        (3, torch.ones(4), ShapeError, "factor has 4 values"),
        (4, torch.ones(2, 6), ShapeError, "scale must be"),
        (7, [4], ShapeError, "bits has 1 entries for 2 neighbour sums"),
        (7, [4, 9], BitwidthError, "9"),
        (8, [0.0, 0.5], ShapeError, "for 3 neighbour sums"),
        (8, [], ShapeError, "for 0 neighbour sums"),
    ],
)
def test_mistakes(at: int, value: Any, error: type[Exception], message: str) -> None:
    args = list(inputs(7, [4, 4], [0.0, 0.0]))
    args[at] = value
    with pytest.raises(error, match=message):
        flat.propagate(*args)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("cols", [7, 41, 300])
def test_edge_blocks_change_nothing(cols: int, bits: int) -> None:
    args = (*inputs(cols, [bits] * 3, [0.0, 0.2], hub=700), False, 0.1)
    expected = one_by_one(*args)
    before = torch.get_num_threads()
    try:
        for isa in COMPILED:
            with ops.force_isa(isa):
                blocks = ops.edge_blocks(args[0], args[1], 300, (32, 64))
                for threads in (1, 2):
                    torch.set_num_threads(threads)
                    assert torch.equal(flat.propagate(*args, blocks), expected)
    finally:
        torch.set_num_threads(before)
