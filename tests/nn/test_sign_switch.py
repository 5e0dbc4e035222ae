"""Ranges that first saw one sign, or few values: what later batches of a training make of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodebits import calibrate, convert, prepare
from nodebits.methods import make_config, method_names
from nodebits.nn.quantizers import LearnedQuantizer
from packed_models import FEATURES, NODES, small_graph

X, EDGES = small_graph()


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, FEATURES)

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class Recurrent(One):
    """The layer's second call in a step sees negative values, its first one saw none."""

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        return super().forward(super().forward(x, edge_index), edge_index)


def prepared_one(method: str, bits: int, kind: type[One] = One) -> nn.Module:
    torch.manual_seed(0)
    return prepare(kind(), make_config(method, bits=bits))


def error(prepared: nn.Module) -> float:
    """Of the packed model, relative to float; it says what the prepared one says."""
    torch.manual_seed(0)
    expected = One()(X, EDGES).detach()
    with torch.no_grad():
        simulated = prepared.eval()(X, EDGES)
    out = convert(prepared).predict(X, EDGES)
    assert torch.equal(out, simulated)
    return float((out - expected).norm() / expected.norm())


@pytest.mark.parametrize("bits", (8, 4, 2))
@pytest.mark.parametrize("method", method_names())
def test_first_batch_without_negative_values(method: str, bits: int) -> None:
    both, first, calibrated = (prepared_one(method, bits) for _ in range(3))
    with torch.no_grad():
        calibrate(both, torch.cat([X.abs(), X]) if method != "a2q" else X, EDGES)
        calibrate(calibrated, X.abs(), EDGES)
        first.train()(X.abs(), EDGES)
        for model in (first, calibrated):
            model.train()(X, EDGES)
    good = error(both)
    assert error(first) <= 1.02 * good + 1e-3
    assert error(calibrated) <= 1.02 * good + 1e-3


@pytest.mark.parametrize("method", method_names())
def test_negative_values_after_training_steps(method: str) -> None:
    both, late = prepared_one(method, 8), prepared_one(method, 8)
    for model, first in ((both, X), (late, X.abs())):
        optimizer = torch.optim.SGD(model.train().parameters(), 1e-6)
        for _ in range(3):
            optimizer.zero_grad()
            model(first, EDGES).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            model(X, EDGES)
    assert error(late) <= 1.2 * error(both) + 2e-3


@pytest.mark.parametrize("method", method_names())
def test_a_sign_that_turns_within_a_step_leaves_gradients(method: str) -> None:
    model = prepared_one(method, 4, Recurrent).train()
    for _ in range(2):
        model.zero_grad()
        model(X.abs(), EDGES).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            assert parameter.grad is not None and bool(parameter.grad.any())


def test_batches_before_the_first_step_count_as_one() -> None:
    parts, whole = LearnedQuantizer(4).train(), LearnedQuantizer(4).train()
    for part in X.split(NODES // 4):
        parts(part)
    whole(X)
    assert torch.equal(parts.scale, whole.scale)
    with torch.no_grad():
        parts.scale.mul_(0.5)  # as a step does
        before = parts.scale.clone()
    parts(X)
    assert torch.equal(parts.scale, before)
