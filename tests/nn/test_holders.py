"""Tensors that hold no plain matrix, and values that a code would hide: refused by every form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.masked import masked_tensor
from torch_geometric.nn import GCNConv

from nodebits.core.errors import GraphError, NonFiniteError, ShapeError
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.runtime import convert
from packed_models import FEATURES, small_graph

X, EDGES = small_graph()


class Root(nn.Module):
    """Takes the root of a result: NaN where that is negative and ``shift`` is too small."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(FEATURES, 8), GCNConv(8, 3)
        self.register_buffer("shift", torch.tensor(100.0))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.first(x, edge_index)
        out: Tensor = self.second((h + self.shift).sqrt(), edge_index)
        return out


def _forms() -> dict[str, Callable[..., Any]]:
    prepared = prepare(Root(), UniformConfig(bits=8, mode="ptq")).eval()
    calibrate(prepared, X, EDGES)
    again = prepare(Root(), UniformConfig(bits=8, mode="ptq"))
    packed = convert(prepared)
    return {
        "prepared": prepared,
        "packed": packed.predict,
        "calibrate": lambda *inputs: calibrate(again, *inputs),
    }


@pytest.mark.parametrize("form", ("prepared", "packed", "calibrate"))
def test_odd_holders_are_named(form: str) -> None:
    call = _forms()[form]
    with pytest.raises(ShapeError, match="nested tensor"):
        call(torch.nested.nested_tensor([X[:3], X[3:]]), EDGES)
    with pytest.raises(ShapeError, match="meta device"):
        call(X.to("meta"), EDGES)
    with pytest.raises(ShapeError, match="MaskedTensor"):
        call(masked_tensor(X, X > 0), EDGES)
    with pytest.raises(GraphError, match="nested tensor"):
        call(X, torch.nested.nested_tensor([EDGES[0], EDGES[1]]))


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
@pytest.mark.parametrize("form", ("prepared", "packed", "calibrate"))
def test_features_that_are_not_finite(form: str, value: float) -> None:
    x = X.clone()
    x[3, 4] = value
    with pytest.raises(NonFiniteError, match=r"1 value.*\[3, 4\]"):
        _forms()[form](x, EDGES)


def test_a_hidden_result_that_is_not_finite() -> None:
    prepared = prepare(Root(), UniformConfig(bits=8, mode="ptq")).eval()
    calibrate(prepared, X, EDGES)
    prepared.shift.fill_(0.0)
    for call in (prepared, convert(prepared).predict):
        with pytest.raises(NonFiniteError, match=r"site 'second\.lin\.input'"):
            call(X, EDGES)
