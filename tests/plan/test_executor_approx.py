"""Steps that torch rounds in its own way: within two units in the last place of torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case
from torch import Tensor
from torch.nn import functional as F


def check(op: str, expected: Tensor, *args: Any) -> None:
    case = Case()
    ref = case.step(op, *[case.input(a) if isinstance(a, Tensor) else a for a in args])
    (made,) = case.everywhere(ref)
    torch.testing.assert_close(made, expected, rtol=3e-7, atol=1e-7, equal_nan=True)


def test_single_values() -> None:
    x = torch.cat([torch.randn(500) * 5, torch.tensor([0.0, -0.0, 80.0, -90.0, float("nan")])])
    for op in ("exp", "tanh", "sigmoid", "sin", "cos", "expm1"):
        check(op, getattr(torch, op)(x.double()).float(), x)
    for op in ("elu", "gelu", "silu", "softplus"):
        check(op, getattr(F, op)(x.double()).float(), x)
    positive = x.abs() + 1e-3
    for op in ("log", "log1p"):
        check(op, getattr(torch, op)(positive.double()).float(), positive)


def test_an_exponential_beyond_float32_is_infinite() -> None:
    case = Case()
    (made,) = case.run(case.step("exp", case.input(torch.tensor([200.0, -200.0]))))
    assert made.tolist() == [float("inf"), 0.0]


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax(dim: int) -> None:
    x = torch.randn(7, 5, 3) * 20
    check("softmax", x.double().softmax(dim).float(), x, dim)
    check("log_softmax", x.double().log_softmax(dim).float(), x, dim)


@pytest.mark.parametrize("dims", [[0], [1], [-1], [0, 2], [1, 2], [0, 1, 2]])
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(dims: list[int], keep: bool) -> None:
    x = torch.randn(7, 5, 3)
    y = x.double()
    check("sum", y.sum(dims, keepdim=keep).float(), x, dims, keep)
    check("mean", y.mean(dims, keepdim=keep).float(), x, dims, keep)
    check("norm", torch.linalg.vector_norm(y, 2, dims, keep).float(), x, dims, keep)
    check("var", y.var(dims, correction=1, keepdim=keep).float(), x, dims, 1.0, keep)
    check("std", y.std(dims, correction=0, keepdim=keep).float(), x, dims, 0.0, keep)


def test_layer_norm() -> None:
    x, w, b = torch.randn(7, 5, 3), torch.rand(5, 3), torch.randn(5, 3)
    y = F.layer_norm(x.double(), [5, 3], w.double(), b.double(), 1e-5).float()
    check("layer_norm", y, x, [5, 3], w, b, 1e-5)
    check("layer_norm", F.layer_norm(x.double(), [3]).float(), x, [3], None, None, 1e-5)
