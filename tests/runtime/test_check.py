"""What would become of a model, told from one example."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, MessagePassing

import nodebits
from nodebits.core.errors import ConfigError, NothingToQuantizeError


class Counting(MessagePassing):
    calls = 0

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_j: Tensor) -> Tensor:
        self.calls += 1
        return x_j


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = GCNConv(8, 8), Counting(), nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.second(self.first(x, edge_index).relu(), edge_index))


def test_layers_sizes_and_errors() -> None:
    model = Net().eval()
    x, edges = torch.randn(40, 8), torch.randint(40, (2, 160))
    found = nodebits.check(model, Data(x=x, edge_index=edges), budget=300.0)
    runs = {layer.path: layer.runs for layer in found.layers}
    assert runs == {
        "first": "integer sum",
        "first.lin": "integer product",
        "second": "float",
        "head": "integer product",
    }
    assert "'calls'" in next(layer.reason for layer in found.layers if layer.path == "second")
    assert found.packed_bytes < found.float_bytes
    assert found.packed_activation_bytes < found.float_activation_bytes
    assert 0 < found.errors[8] < found.errors[4] < 1
    shares = {layer.path: layer for layer in found.layers}
    assert 0 < shares["second"].time_share < 1 and shares["second"].byte_share == 0
    assert shares["first.lin"].byte_share > shares["head"].byte_share > 0
    assert shares["second"].errors == {} and shares["second"].safe_bits is None
    for path in ("first", "head"):
        errors, safe = shares[path].errors, shares[path].safe_bits
        assert errors[8] < errors[4] < errors[2]
        assert safe is not None and errors[safe] <= found.limit
        assert all(errors[bits] > found.limit for bits in errors if bits == safe - 1)
    assert found.float_seconds > 0 and found.packed_seconds > 0
    text = str(found)
    assert "second" in text and "stays in float" in text and "at 8 bits the result differs" in text
    assert type(model.first) is GCNConv, "the model is as it was"


def test_the_limit_decides_what_is_safe() -> None:
    model, x, edges = Net().eval(), torch.randn(40, 8), torch.randint(40, (2, 160))
    strict = nodebits.check(model, x, edges, limit=1e-6, budget=300.0)
    loose = nodebits.check(model, x, edges, limit=100.0, budget=300.0)
    assert {layer.safe_bits for layer in strict.layers} == {None}
    assert {layer.safe_bits for layer in loose.layers if layer.runs != "float"} == {
        min(loose.errors)
    }
    with pytest.raises(ConfigError, match="limit is 0"):
        nodebits.check(model, x, edges, limit=0)


def test_no_width_is_tried_after_the_budget() -> None:
    model, x, edges = Net().eval(), torch.randn(40, 8), torch.randint(40, (2, 160))
    found = nodebits.check(model, x, edges, budget=0.0)
    assert list(found.errors) == [8] and set(found.layers[0].errors) == {8}


def test_a_part_of_an_example_that_takes_long() -> None:
    model, x, edges = Net().eval(), torch.randn(3000, 8), torch.randint(3000, (2, 9000))
    whole = nodebits.check(model, x, edges, budget=300.0)
    part = nodebits.check(model, x, edges, budget=1e-6)
    assert whole.nodes is None and "tried on" not in str(whole)
    assert part.nodes == 64 and "tried on 64 nodes" in str(part)
    assert list(part.errors) == [8]
    assert part.packed_bytes == whole.packed_bytes
    assert 0.3 < part.float_activation_bytes / whole.float_activation_bytes < 3
    assert 0.3 < part.errors[8] / whole.errors[8] < 3


def test_a_model_of_one_graph_is_tried_on_all_of_it() -> None:
    class Fixed(Net):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return super().forward(x, edge_index).view(300, 3)

    x, edges = torch.randn(300, 8), torch.randint(300, (2, 900))
    assert nodebits.check(Fixed().eval(), x, edges, budget=1e-6).nodes is None


def test_a_model_without_layers() -> None:
    with pytest.raises(NothingToQuantizeError):
        nodebits.check(nn.ReLU(), torch.randn(3, 2))
