"""QuantBatchNorm: torch's training, an evaluation of two roundings, and what it is swapped for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import BatchNorm as PyGBatchNorm

from nodebits.core.errors import ShapeError
from nodebits.nn.evaluation import swap_evaluation
from nodebits.nn.norm import QuantBatchNorm, frozen_norms


def norm_of(width: int = 5, **options: Any) -> nn.BatchNorm1d:
    """A norm with statistics and factors of its own."""
    torch.manual_seed(width)
    norm = nn.BatchNorm1d(width, **options)
    if norm.running_mean is not None and norm.running_var is not None:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def swapped(norm: nn.Module) -> Any:
    result = copy.deepcopy(norm)
    swap_evaluation(result)
    return result


OPTIONS = ({}, {"affine": False}, {"momentum": None}, {"track_running_stats": False})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", ((7, 5), (7, 5, 3), (1, 5)))
@pytest.mark.parametrize("training", (True, False))
def test_computes_what_torch_computes(
    options: dict[str, Any], shape: tuple[int, ...], training: bool
) -> None:
    norm = norm_of(**options).train(training)
    mine = swapped(norm)
    assert type(mine) is QuantBatchNorm and mine.training == training
    if shape[0] == 1 and (training or norm.running_mean is None):
        for module in (norm, mine):
            with pytest.raises(ValueError, match="more than 1 value"):
                module(torch.randn(shape))
        return
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    for x in inputs:
        x.requires_grad_()
    one, other = norm(inputs[0]), mine(inputs[1])
    (one.square().sum() + one.sum()).backward()
    (other.square().sum() + other.sum()).backward()
    exact = training or norm.running_mean is None
    tolerance = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(other, one, **tolerance)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, **tolerance)
    for (name, a), b in zip(norm.named_parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=name, **tolerance)
    after = mine.state_dict()
    assert after.keys() == norm.state_dict().keys()
    assert all(torch.equal(after[key], value) for key, value in norm.state_dict().items())


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_frozen_form(options: dict[str, Any]) -> None:
    """Scale and shift are all that is left; whoever reads the attributes gets the same function."""
    norm = norm_of(**options).eval()
    mine, x = swapped(norm), torch.randn(9, 5)
    expected = mine(x).detach()
    scale, shift = mine.scale_and_shift()
    assert torch.equal(expected, x * scale + shift)
    mine.freeze()
    assert mine.frozen and set(mine.state_dict()) == {"weight", "bias"}
    assert torch.equal(mine.weight, scale) and torch.equal(mine.bias, shift)
    for module in (mine, copy.deepcopy(mine), mine.train()):
        assert torch.equal(module(x), expected)
    by_hand = F.batch_norm(
        x, mine.running_mean, mine.running_var, mine.weight, mine.bias, False, 0.1, mine.eps
    )
    torch.testing.assert_close(by_hand, expected)
    torch.testing.assert_close(expected, norm(x).detach())
    before = mine.state_dict()
    mine.freeze()
    assert all(torch.equal(before[key], value) for key, value in mine.state_dict().items())
    assert frozen_norms(nn.ModuleDict({"a": mine, "b": norm})) == ["a"]


def test_a_frozen_norm_needs_statistics() -> None:
    mine = swapped(norm_of(track_running_stats=False))
    mine.freeze()
    assert not mine.frozen and set(mine.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("width, columns", ((5, 1), (1, 5), (5, 4)))
def test_other_widths_are_not_broadcast(width: int, columns: int) -> None:
    with pytest.raises(ShapeError, match=f"{columns} columns, expected {width}"):
        swapped(norm_of(width)).eval()(torch.randn(3, columns))


def test_other_ranks_are_refused_as_by_torch() -> None:
    with pytest.raises(ValueError, match="2D or 3D"):
        swapped(norm_of()).eval()(torch.randn(2, 5, 3, 3))


def test_half_precision() -> None:
    x = torch.randn(4, 5).bfloat16()
    assert swapped(norm_of()).eval()(x).dtype == torch.bfloat16


def test_swapped_in_place() -> None:
    """Hooks, mode and identity stay."""
    norm, seen = norm_of().eval(), []
    norm.register_forward_hook(lambda module, args, out: seen.append(out))
    twice = nn.ModuleList([norm, norm])
    swap_evaluation(norm)
    assert twice[0] is twice[1] is norm and isinstance(norm, nn.BatchNorm1d)
    assert not norm.training
    norm(torch.randn(2, 5))
    assert len(seen) == 1


class Own(nn.BatchNorm1d):
    """A subclass, which may compute anything."""


def test_what_computes_otherwise_is_left() -> None:
    patched = norm_of()
    patched.forward = lambda x: 2 * x  # type: ignore[method-assign]
    for module in (Own(3), nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.InstanceNorm1d(3), patched):
        before = type(module)
        swap_evaluation(module)
        assert type(module) is before
    assert torch.equal(patched(torch.ones(1)), torch.full((1,), 2.0))


def test_single_rows_of_pyg() -> None:
    norm = PyGBatchNorm(5, allow_single_element=True)
    norm.module = norm_of()
    mine = swapped(norm)
    swap_evaluation(mine.module)
    assert isinstance(mine, PyGBatchNorm)
    x = torch.randn(1, 5)
    for training in (True, False):
        torch.testing.assert_close(mine.train(training)(x), norm.train(training)(x))
    rows: Tensor = torch.randn(4, 5)
    many = mine(rows)
    assert torch.equal(many[:1], mine(rows[:1]))
