"""Functions that look beyond the edges of one target stay in float, and say why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import nodebits
from nodebits.core.errors import UnsupportedLayerWarning
from nodebits.runtime.float_layers import float_layers

N, C, E = 30, 8, 120


class Plain(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="add")
        self.lin = nn.Linear(C, C)
        self.calls = 0
        self.register_buffer("sums", torch.zeros(C))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.propagate(edge_index, x=x))


class OverAllEdges(Plain):
    def message(self, x_j: Tensor) -> Tensor:
        return torch.softmax(x_j, 0)


class Random(Plain):
    def message(self, x_j: Tensor) -> Tensor:
        return x_j * torch.rand(x_j.size(0), 1)


class Counting(Plain):
    def message(self, x_j: Tensor) -> Tensor:
        self.calls += 1
        return x_j


class Writing(Plain):
    def message(self, x_j: Tensor) -> Tensor:
        self.sums += x_j.sum(0)
        return x_j


class OtherShape(Plain):
    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return inputs.sum(0, keepdim=True)


class Remembering(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def message(self, x_j: Tensor) -> Tensor:
        self.seen.append(x_j.size(0))
        return x_j


class OfNodes(Plain):
    """Adds to a state of every node, which is no row of an edge."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        state = torch.zeros(x.size(0), C)
        out = self.lin(self.propagate(edge_index, x=x, state=state))
        return out + 0 * state

    def message(self, x_j: Tensor, state: Tensor, index: Tensor) -> Tensor:
        state.index_add_(0, index, x_j)
        return x_j


class Inside(Plain):
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x

    def __init__(self) -> None:
        super().__init__()
        self.counter = self.Counter()

    def message(self, x_j: Tensor) -> Tensor:
        return self.counter(x_j)


STAY = {
    OverAllEdges: "other results for edges by target",
    Random: "other results for edges by target",
    Counting: "change the attribute 'calls'",
    Writing: "write to 'sums'",
    Remembering: "write to 'seen'",
    OfNodes: "write to the argument 'state'",
    Inside: "write to 'counter.calls'",
    OtherShape: r"give \[1, 8\] for all edges at once",
}


@pytest.mark.parametrize("kind", STAY, ids=lambda k: k.__name__)
def test_it_stays_in_float(kind: Any) -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = kind()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index)

    net = Net().eval()
    x, edges = torch.randn(N, C), torch.randint(N, (2, E))
    prepared = nodebits.prepare(net, nodebits.UniformConfig(bits=8, mode="ptq"))
    with pytest.warns(UnsupportedLayerWarning, match=f"layer 'conv'.*{STAY[kind]}"):
        nodebits.calibrate(prepared, x, edges)
    assert prepared.conv.runs == "float"
    packed = nodebits.convert(prepared)
    assert float_layers(packed.module)["conv"]
    if kind is not Random:
        with torch.no_grad():
            expected = net(x, edges)
        assert (packed.predict(x, edges) - expected).norm() < 0.03 * expected.norm()
    if kind is Counting:
        assert net.conv.calls == 1


def test_it_is_named_once(recwarn: pytest.WarningsRecorder) -> None:
    x, edges = torch.randn(N, C), torch.randint(N, (2, E))
    prepared = nodebits.prepare(Counting().eval(), nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, [(x, edges), (x, edges)])
    nodebits.convert(prepared).predict(x, edges)
    assert len([w for w in recwarn if w.category is UnsupportedLayerWarning]) == 1
