"""What ``fit`` passes to a model: the fields of the data that its forward names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, ChebConv, GCNConv, SAGEConv, global_mean_pool

import nodebits
from nodebits.core.errors import ConfigError, ShapeError
from nodebits.engine.packed_input import PackedInput
from nodebits.train import FitConfig, GraphProblem, IgnoredDataWarning, evaluate, fit
from nodebits.train.inputs import Inputs

from .small import planted_graph, planted_graphs

SHORT = FitConfig(epochs=2, progress=False)
X, EDGES, WEIGHT = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.0, 5.0])
BATCH = torch.zeros(3, dtype=torch.int64)
ALL = Inputs(X, EDGES, None, {"edge_weight": WEIGHT, "pos": X}, Data(x=X, edge_index=EDGES))


def forms() -> dict[str, Any]:
    """Forwards as users write them, and what each must get by position and name."""
    return {
        "named": (lambda x, edge_index: 0, (X, EDGES), {}),
        "other names": (lambda h, adj: 0, (X, EDGES), {}),
        "weights": (lambda x, ei, edge_weight=None: 0, (X, EDGES), {"edge_weight": WEIGHT}),
        "other order": (lambda edge_index, x: 0, (EDGES, X), {}),
        "weights first": (
            lambda x, edge_weight, edge_index: 0,
            (X,),
            {"edge_weight": WEIGHT, "edge_index": EDGES},
        ),
        "keyword only": (lambda x, edge_index, *, pos: 0, (X, EDGES), {"pos": X}),
        "features alone": (lambda x: 0, (X,), {}),
        "an option": (lambda x, edge_index, dropout=0.5: 0, (X, EDGES), {}),
        "optional graph": (lambda x, adj=None: 0, (X, EDGES), {}),
        "data": (lambda data: 0, (ALL.data,), {}),
        "data by another name": (lambda d: 0, (ALL.data,), {}),
    }


@pytest.mark.parametrize("form", forms())
def test_a_forward_gets_what_it_names(form: str) -> None:
    forward, arguments, keywords = forms()[form]
    got, named = ALL.arguments(forward)
    assert len(got) == len(arguments) and all(a is b for a, b in zip(got, arguments, strict=True))
    assert named.keys() == keywords.keys() and all(named[k] is keywords[k] for k in named)


class First(nn.Module):
    """A layer after what a forward may do with its features."""

    def __init__(self, first: Callable[[Tensor], Tensor], conv: nn.Module) -> None:
        super().__init__()
        self.first, self.conv, self.last = first, conv, GCNConv(4, 2)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        out: Tensor = self.last(self.conv(self.first(x), edge_index), edge_index, edge_weight)
        return out


FIRST: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module, bool]] = {
    "codes alone": (lambda x: x, GCNConv(4, 4), True),
    "dropout": (nn.Dropout(0.5), GCNConv(4, 4), True),
    "a sum": (lambda x: x + 1.0, GCNConv(4, 4), False),
    "a product": (lambda x: 2 * x, GCNConv(4, 4), False),
    "a method": (lambda x: x.abs(), GCNConv(4, 4), False),
    "a layer that reads floats": (lambda x: x, ChebConv(4, 4, 2), False),
    "another": (lambda x: x, SAGEConv(4, 4, aggr="max"), False),
}


@pytest.mark.parametrize("name", FIRST)
def test_a_call_that_is_repeated_gets_codes_where_the_model_takes_them(name: str) -> None:
    first, conv, codes = FIRST[name]
    prepared = nodebits.prepare(First(first, conv), nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, X, EDGES, WEIGHT)
    packed = nodebits.convert(prepared.eval())
    repeated = ALL.repeated(packed)
    assert isinstance(repeated.x, PackedInput) is codes
    assert isinstance(repeated.edge_index, nodebits.graph.Graph)
    assert repeated.others["edge_weight"] is WEIGHT
    assert torch.equal(repeated.apply(packed.predict), packed.predict(X, EDGES, WEIGHT))


class Weighted(nn.Module):
    """A GCN that takes edge weights and notes what it was given."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.conv = GCNConv(channels, 2)
        self.seen: list[Tensor | None] = []

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        self.seen.append(edge_weight)
        out = self.conv(x, edge_index, edge_weight)
        return out if batch is None else global_mean_pool(out, batch)


class Wrapped(nn.Module):
    """Passes everything on, as DistributedDataParallel and torch.compile do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self.module(*inputs, **keywords)


@pytest.mark.parametrize("wrap", [lambda m: m, Wrapped])
def test_edge_weights_reach_float_prepared_and_packed_models(wrap: Any) -> None:
    graph = planted_graph()
    graph.edge_weight = torch.rand(graph.num_edges) + 0.1
    model = Weighted()
    fit(wrap(model), graph, SHORT)
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8))
    fit(wrap(prepared), graph, SHORT)
    packed = nodebits.convert(prepared)
    packed.module.seen.clear()  # a plan is made on a small part of the data
    assert evaluate(packed, graph).accuracy == evaluate(prepared, graph).accuracy
    for net in (model, prepared, packed.module):
        assert net.seen and all(torch.equal(w, graph.edge_weight) for w in net.seen)


def test_graph_level_fields_are_batched_with_the_graphs() -> None:
    graphs = planted_graphs()
    for graph in graphs:
        graph.edge_weight = torch.full((graph.num_edges,), float(graph.num_nodes))
    model = Weighted(4)
    index = torch.arange(40)
    fit(model, GraphProblem(graphs, index[:24], index[24:32], index[32:]), SHORT)
    assert {float(v) for w in model.seen for v in w} == {float(n) for n in range(6, 11)}


class Plain(Weighted):
    """Takes no weights."""

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:  # type: ignore[override]
        return self.conv(x, edge_index)


@pytest.mark.parametrize("field", ["edge_weight", "edge_attr"])
def test_weights_that_a_model_does_not_take_are_warned_about(field: str) -> None:
    graph = planted_graph()
    with warnings.catch_warnings():
        warnings.simplefilter("error", IgnoredDataWarning)
        fit(Plain(), graph, SHORT)
    graph[field] = torch.rand(graph.num_edges)
    with pytest.warns(IgnoredDataWarning, match=f"{field}.*Plain does not take it"):
        fit(Plain(), graph, SHORT)


def test_pyg_models_that_drop_edge_attr_are_warned_about() -> None:
    graph = planted_graph()
    graph.edge_attr = torch.rand(graph.num_edges)
    with pytest.warns(IgnoredDataWarning, match="edge_attr.*GCN does not take it"):
        fit(GCN(12, 8, 2, 2), graph, SHORT)


class NeedsPositions(Weighted):
    """Asks for a field that the data lack."""

    def forward(self, x: Tensor, edge_index: Any, pos: Tensor) -> Tensor:  # type: ignore[override]
        return self.conv(x + pos, edge_index)


class TakesData(Weighted):
    """Reads a ``Data``."""

    def forward(self, data: Data) -> Tensor:  # type: ignore[override]
        return super().forward(data.x, data.edge_index, data.edge_weight, data.batch)


def test_missing_fields_are_named_and_data_is_passed_whole() -> None:
    graph = planted_graph()
    with pytest.raises(ConfigError, match=r"forward needs pos.*edge_index"):
        fit(NeedsPositions(), graph, SHORT)
    fit(nodebits.prepare(TakesData(), nodebits.UniformConfig(bits=4)), graph, SHORT)
    index = torch.arange(40)
    problem = GraphProblem(planted_graphs(), index[:24], index[24:32], index[32:])
    fit(nodebits.prepare(TakesData(4), nodebits.UniformConfig(bits=4)), problem, SHORT)
    with pytest.raises(ConfigError, match="takes no 'batch'"):
        fit(Plain(4), problem, SHORT)


def test_node_numbers_need_an_embedding() -> None:
    graph = planted_graph()
    graph.x = torch.arange(graph.num_nodes)

    class Embedded(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(120, 12)

        def forward(self, x: Tensor, edge_index: Any) -> Tensor:  # type: ignore[override]
            return self.conv(self.table(x), edge_index)

    assert fit(Embedded(), graph, SHORT).epochs == 2
    with pytest.raises(ShapeError, match=r"int64.*no embedding"):
        fit(Plain(), graph, SHORT)
