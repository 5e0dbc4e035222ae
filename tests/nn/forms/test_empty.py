"""Integer forms of layers of users on graphs without edges, and without nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

import nodebits

N, E, HEADS, C = 20, 60, 2, 8


class Weighed(MessagePassing):
    """Two numbers per edge and one of the target."""

    def forward(self, x: Tensor, edge_index: Tensor, a: Tensor, b: Tensor) -> Tensor:
        made: Tensor = self.propagate(edge_index, x=x, a=a, b=b, f=x[:, :1])
        return made

    def message(self, x_j: Tensor, a: Tensor, b: Tensor, f_i: Tensor) -> Tensor:
        return a[:, :1] * b[:, :1] * x_j * f_i


class Heads(MessagePassing):
    """A number per edge and head."""

    def __init__(self, **options: Any) -> None:
        super().__init__(node_dim=0, **options)

    def forward(self, x: Tensor, edge_index: Tensor, a: Tensor, b: Tensor) -> Tensor:
        made: Tensor = self.propagate(edge_index, x=x.view(x.size(0), HEADS, C // HEADS), a=a)
        return made.flatten(1)

    def message(self, x_j: Tensor, a: Tensor) -> Tensor:
        return x_j * a.unsqueeze(-1)


class Rows(Heads):
    """Matrices of nodes as they are."""

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


LAYERS: dict[str, Any] = {
    "weighed": Weighed,
    "mean of weighed": lambda: Weighed(aggr="mean"),
    "heads": Heads,
    "max of heads": lambda: Rows(aggr="max"),
    "statistics of heads": lambda: Rows(aggr=["mean", "std"]),
}


def given(nodes: int, edges: int) -> tuple[Tensor, ...]:
    index = torch.randint(0, max(nodes, 1), (2, edges))
    return torch.randn(nodes, C), index, torch.rand(edges, HEADS), torch.rand(edges, HEADS)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_is_a_graph_too(name: str) -> None:
    layer = LAYERS[name]().eval()
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=8, mode="ptq")).eval()
    inputs = given(N, E)
    nodebits.calibrate(prepared, *inputs)
    packed = nodebits.convert(prepared)
    for _ in range(4):  # until it runs as its plan
        assert torch.equal(packed.predict(*inputs), prepared(*inputs))
    for nodes in (N, 1, 0):
        others = given(nodes, 0)
        expected, found = layer(*others), packed.predict(*others)
        assert found.shape == expected.shape and torch.equal(found, prepared(*others))
        torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
