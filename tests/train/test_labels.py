"""Labels, masks and features as data sets have them: right, or refused with the number."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import DataLoader

from nodebits.core.errors import ConfigError, GraphError, NodebitsError, NodeIndexError, ShapeError
from nodebits.methods import make_config, prepare
from nodebits.models import ModelSpec, build_model
from nodebits.train import FitConfig, GraphProblem, LabelError, NodeProblem, as_problem, fit

from .small import planted_graph, planted_graphs

SHORT = FitConfig(epochs=2, progress=False)
INDEX = torch.arange(40)


def first(name: str, value: Any) -> Callable[[Data], None]:
    """Changes the entry of the first training node."""

    def change(data: Data) -> None:
        data[name] = data[name].clone()
        data[name][data.train_mask.nonzero()[0]] = value

    return change


def put(name: str, make: Callable[[Data], Any]) -> Callable[[Data], None]:
    return lambda data: setattr(data, name, make(data))


NODE_CASES: dict[str, tuple[Callable[[Data], None], type[NodebitsError], str]] = {
    "float": (put("y", lambda d: d.y.float()), LabelError, r"float32 .*data\.y\.long"),
    "fraction": (put("y", lambda d: d.y + 0.7), LabelError, r"y\[0\] is 0\.7.*regression"),
    "missing": (put("y", lambda d: None), LabelError, "y is missing"),
    "text": (put("y", lambda d: ["a"] * 120), LabelError, "list"),
    "multi-label": (put("y", lambda d: torch.ones(120, 3)), LabelError, r"\[120, 3\].*one class"),
    "short": (put("y", lambda d: d.y[:7]), LabelError, "7 labels for 120 nodes"),
    "negative": (first("y", -1), LabelError, r"node \d+ \(train split\): y is -1"),
    "beyond": (first("y", 7), LabelError, r"node \d+ \(train split\): y is 7, but the model has 2"),
    "columns": (
        put("train_mask", lambda d: d.train_mask.view(-1, 1).expand(120, 10).long()),
        ShapeError,
        r"not torch\.int64: data\.train_mask\.bool|train_mask\.bool",
    ),
    "numbers": (put("train_mask", lambda d: torch.arange(5)), ShapeError, "index_to_mask"),
    "bytes": (put("val_mask", lambda d: d.val_mask.byte()), ShapeError, r"val_mask\.bool"),
    "no x": (put("x", lambda d: None), ShapeError, "x is missing"),
    "sparse x": (put("x", lambda d: d.x.to_sparse()), ShapeError, "to_dense"),
    "3-d x": (put("x", lambda d: d.x[None]), ShapeError, r"\[1, 120, 12\]"),
    "int16 edges": (put("edge_index", lambda d: d.edge_index.short()), GraphError, "long"),
    "no edges": (put("edge_index", lambda d: None), GraphError, "neither edge_index nor adj_t"),
    "weights": (put("edge_weight", lambda d: torch.ones(3)), ShapeError, "edge_weight.*3"),
    "listed weights": (
        put("edge_weight", lambda d: [1.0] * d.num_edges),
        ShapeError,
        "edge_weight is a list",
    ),
    "sparse y": (put("y", lambda d: d.y.to_sparse()), LabelError, "y is sparse"),
    "no mask": (put("val_mask", lambda d: None), ShapeError, "val_mask is missing"),
    "listed mask": (
        put("train_mask", lambda d: d.train_mask.tolist()),
        ShapeError,
        r"not a list: data\.train_mask = torch\.as_tensor",
    ),
    "more nodes": (put("num_nodes", lambda d: 130), ShapeError, "num_nodes is 130.*120 rows"),
}


@pytest.mark.parametrize("case", NODE_CASES)
def test_what_cannot_be_trained_on_is_refused_with_its_place(case: str, model: Any) -> None:
    change, error, words = NODE_CASES[case]
    graph = planted_graph()
    change(graph)
    with pytest.raises(error, match=words):
        fit(model, graph, SHORT)


@pytest.mark.parametrize(
    "change",
    [
        put("y", lambda d: d.y.view(-1, 1)),
        put("y", lambda d: d.y.int()),
        put("y", lambda d: d.y.bool()),
        put("y", lambda d: d.y.tolist()),
        put("y", lambda d: torch.where(d.train_mask | d.val_mask, d.y, -1)),
        put("x", lambda d: d.x.double()),
        put("edge_index", lambda d: d.edge_index.int()),
        put("name", lambda d: "a name"),
    ],
)
def test_other_forms_train_the_same_model(change: Callable[[Data], None], model: Any) -> None:
    plain, graph = planted_graph(), planted_graph()
    change(graph)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = fit(model, plain, SHORT).history
    model.load_state_dict(before)
    assert fit(model, graph, SHORT).history == expected


def test_an_adjacency_matrix_stands_for_edges(model: Any) -> None:
    graph = planted_graph()
    row, col = graph.edge_index
    ones = torch.ones(graph.num_edges)
    graph.adj_t = torch.sparse_coo_tensor(torch.stack([col, row]), ones, (120, 120)).to_sparse_csr()
    graph.edge_index = None
    config = make_config("uniform", 8)
    assert fit(prepare(model, config), graph, SHORT, method=config).epochs == 2


def one(**changes: Any) -> Data:
    return Data(**{**planted_graphs(1)[0].to_dict(), **changes})


GRAPH_CASES: dict[str, tuple[Data, type[NodebitsError], str]] = {
    "regression": (one(y=torch.tensor([0.7])), LabelError, r"graph 6: .*y is 0\.7"),
    "whole regression": (one(y=torch.tensor([1.0])), LabelError, "graph 6: y holds torch.float32"),
    "a float": (one(y=0.5), LabelError, "graph 6"),
    "NaN": (one(y=torch.tensor([float("nan")])), LabelError, "graph 6: .*nan"),
    "multi-task": (one(y=torch.zeros(1, 3)), LabelError, r"graph 6: y has shape \[1, 3\]"),
    "none": (one(y=None), LabelError, "graph 6: y is missing"),
    "negative": (one(y=-1), LabelError, r"graph 6 \(train split\): y is -1"),
    "empty": (
        one(x=torch.zeros(0, 4), edge_index=torch.zeros(2, 0, dtype=torch.int64)),
        GraphError,
        "graph 6 has no nodes",
    ),
    "no x": (one(x=None), ShapeError, "graph 6: x is missing"),
    "narrower": (one(x=torch.randn(6, 3)), ShapeError, r"graph 6: x is .*\[\*, 3\].*graph 0"),
    "more nodes": (one(num_nodes=9), ShapeError, "graph 6: num_nodes is 9, but x has 6 rows"),
    "another field": (one(pos=torch.zeros(6, 3)), ShapeError, "graph 6: pos is .*graph 0 has none"),
    "flat edges": (one(edge_index=torch.zeros(0, dtype=torch.int64)), GraphError, "graph 6"),
    "hetero": (HeteroData(), ConfigError, "graph 6 is a HeteroData"),
}


@pytest.mark.parametrize("case", GRAPH_CASES)
def test_a_graph_that_does_not_fit_is_named(case: str) -> None:
    graph, error, words = GRAPH_CASES[case]
    graphs = planted_graphs()
    graphs[6] = graph
    with pytest.raises(error, match=words):
        GraphProblem(graphs, INDEX[:24], INDEX[24:32], INDEX[32:])


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float64, "edge_weight"), (torch.int64, "edge_weight"), (torch.float64, "edge_attr")],
)
def test_edge_fields_of_another_dtype_train_the_same_model(dtype: torch.dtype, name: str) -> None:
    graph = planted_graph()
    graph[name] = torch.arange(graph.num_edges) % 3 + 1.0
    other = copy.copy(graph)
    other[name] = graph[name].to(dtype)
    problems = [NodeProblem(graph), NodeProblem(other)]
    expected, got = (problem.inputs.others[name] for problem in problems)
    assert got.dtype == torch.float32 and got.equal(expected)
    assert other[name].dtype == dtype  # the caller's own is left as it is


@pytest.mark.parametrize(
    ("graphs", "train", "error", "words"),
    [
        (None, INDEX[:24], ConfigError, "NoneType: pass a list of Data"),
        (planted_graphs(), ["a"], ShapeError, "the train split is a list"),
    ],
)
def test_what_is_no_list_is_refused(
    graphs: Any, train: Any, error: type[NodebitsError], words: str
) -> None:
    with pytest.raises(error, match=words):
        GraphProblem(graphs, train, INDEX[24:32], INDEX[32:])


def test_graph_labels_in_any_form() -> None:
    graphs = planted_graphs()
    forms = [int, lambda v: torch.tensor(v), lambda v: torch.tensor([[v]]), bool]
    for number, graph in enumerate(graphs):
        graph.y = forms[number % 4](number % 2)
    graphs[3].x = graphs[3].x.double()
    mask = torch.zeros(40, dtype=torch.bool)
    mask[:24] = True
    problem = GraphProblem(graphs, mask, range(24, 32), INDEX[32:])
    assert problem.labels.tolist() == [n % 2 for n in range(40)]
    model = build_model(ModelSpec("gin", 4, 8, 2, task="graph"))
    assert fit(model, problem, SHORT).epochs == 2
    with pytest.raises(NodeIndexError, match="train split names graph 40"):
        GraphProblem(graphs, torch.tensor([0, 40]), INDEX[24:32], INDEX[32:])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (planted_graphs(3), "GraphProblem"),
        (DataLoader(planted_graphs(3)), "GraphProblem"),
        (HeteroData(), "HeteroProblem"),
        ("Cora", "load_dataset"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_problem_says_what_to_pass(data: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        as_problem(data)


def test_outputs_that_are_no_logits_are_refused(graph: Data, graphs: GraphProblem) -> None:
    class Few(torch.nn.Linear):
        def forward(self, x: torch.Tensor, edge_index: Any = None, batch: Any = None) -> Any:
            return super().forward(x)[: 5 if batch is None else None]

    with pytest.raises(ShapeError, match=r"\[5, 2\] for 120 nodes"):
        fit(Few(12, 2), graph, SHORT)
    with pytest.raises(ShapeError, match=r"for 24 graphs.*pool"):
        fit(Few(4, 2), graphs, SHORT)
    graph.x = graph.x[:, :5]
    problem = NodeProblem(graph)
    with pytest.raises(LabelError, match="1 output"):
        fit(torch.nn.Linear(5, 1), problem, SHORT)
