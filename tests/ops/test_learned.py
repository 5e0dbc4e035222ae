"""Functions of autograd of learned scales: what their operations give one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, max_code
from nodebits.engine.epilogue import rescale
from nodebits.graph import as_graph
from nodebits.ops import force_isa
from nodebits.ops.autograd import FakeQuantize, ScaleGradient, neighbor_sum
from nodebits.ops.learned import CodesProduct, LearnedCodes, LearnedWeightCodes, OwnSum

ISAS = ("reference", "scalar")


def _leaf(*shape: int, low: float = -1.0, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.rand(shape, generator=g) * (1.0 - low) + low).requires_grad_()


def _gradients(made: tuple[Tensor, ...], leaves: list[Tensor]) -> list[Tensor]:
    total = sum((m * torch.linspace(-1, 2, m.numel()).view(m.shape)).sum() for m in made)
    assert isinstance(total, Tensor)
    return list(torch.autograd.grad(total, leaves))


def _scale(parameter: Tensor, count: int, bits: int) -> Tensor:
    factor = (count * max_code(bits)) ** -0.5
    made: Tensor = ScaleGradient.apply(parameter.abs().clamp_min(MIN_SCALE), factor)
    return made


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kept", [None, [1, 4]])
@pytest.mark.parametrize("axis", [-1, 1])
def test_codes(axis: int, kept: list[int] | None, isa: str) -> None:
    x, parameter = _leaf(7, 5), _leaf(5 if axis == 1 else 1, low=-0.5)
    zero = torch.full((parameter.numel(),), 8.0)
    rows = None if kept is None else torch.tensor(kept)
    with force_isa(isa):
        made = LearnedCodes.apply(x, parameter, zero, rows, axis, 4, 0)
        found = _gradients(made, [x, parameter])
        scale = _scale(parameter, 35 // parameter.numel(), 4)
        codes = FakeQuantize.apply(x, scale, zero, axis, 4, 0)
        if rows is not None:
            codes = codes.index_copy(0, rows, x[rows] / scale + zero)
        expected = _gradients((codes, scale), [x, parameter])
    assert torch.equal(made[0], codes) and torch.equal(made[1], scale)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("midrise", [False, True])
def test_weights(midrise: bool, isa: str) -> None:
    weight, parameter = _leaf(6, 5), _leaf(6, low=0.1)
    center = 7.5 if midrise else 8.0
    with force_isa(isa):
        made = LearnedWeightCodes.apply(weight, parameter, center, 4, 0, midrise)
        found = _gradients(made, [weight, parameter])
        scale = _scale(parameter, 5, 4)
        unsigned = FakeQuantize.apply(weight, scale, torch.full((6,), center), 0, 4, 0)
        both = (2 * unsigned - 15, scale * 0.5) if midrise else (unsigned - 8, scale)
        expected = _gradients(both, [weight, parameter])
    for one, other in zip((*made, *found), (*both, *expected), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_product(with_bias: bool, isa: str) -> None:
    codes = torch.randint(0, 16, (7, 5)).float().requires_grad_()
    weight = torch.randint(-8, 8, (3, 5)).float().requires_grad_()
    scale, zero, columns = _leaf(1, low=0.1), _leaf(1), _leaf(3, low=0.1)
    bias = _leaf(3, seed=9) if with_bias else None
    leaves = [codes, scale, zero, weight, columns, *([] if bias is None else [bias])]
    with force_isa(isa):
        made = CodesProduct.apply(codes, scale, zero, weight, columns, bias)
        found = _gradients((made,), leaves)
        offset = zero * weight.sum(1)
        plain = rescale(codes @ weight.t(), columns * scale, offset, None, None, bias)
        expected = _gradients((plain,), leaves)
    assert torch.equal(made, plain)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("columns", [1, 4])
def test_own_sum(columns: int, isa: str) -> None:
    graph = as_graph(torch.tensor([[0, 1, 2, 2, 4], [1, 0, 0, 3, 3]]), 5)
    codes = torch.randint(0, 16, (5, 4)).float().requires_grad_()
    scale, factor = _leaf(columns, low=0.1), _leaf(1, low=0.5)
    zero = torch.full((columns,), 8.0)
    with force_isa(isa):
        made = OwnSum.apply(codes, scale, zero, factor, graph)
        found = _gradients((made,), [codes, scale, factor])
        summed = rescale(
            neighbor_sum(codes, graph), scale, zero, graph.degree.view(-1, 1), None, None
        )
        plain = summed + factor * ((codes - zero) * scale)
        expected = _gradients((plain,), [codes, scale, factor])
    assert torch.equal(made, plain)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
