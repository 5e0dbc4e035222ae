"""What does not fit a session is refused with its place, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN, FeaStConv, MixHopConv, SAGEConv

import nodebits
from nodebits.core.errors import (
    AccumulatorOverflowError,
    ConfigError,
    GraphError,
    NodeIndexError,
    NonFiniteError,
    ShapeError,
    UnsupportedLayerError,
)
from nodebits.ops import force_isa
from packed_models import FEATURES, NODES, make_case, small_graph, two_steps
from session.test_exact import weighted_model

X = torch.zeros(1, FEATURES)
NAN = X.clone()
NAN[0, 3] = float("nan")


@pytest.fixture(scope="module")
def session() -> nodebits.GraphSession:
    case = make_case("gcn")
    made = nodebits.GraphSession(case.packed, case.edge_index, case.x)
    made.remove_nodes([7])
    return made


CASES: dict[str, tuple[Callable[[nodebits.GraphSession], Any], type[Exception], str]] = {
    "negative": (
        lambda s: s.add_edges([[0, -1], [1, 1]]), NodeIndexError,
        r"edge_index\[0\]\[1\] is -1.*source",
    ),
    "beyond": (
        lambda s: s.add_edges([[0], [NODES]]), NodeIndexError,
        rf"is {NODES}: .* 0 to {NODES - 1}.*target",
    ),
    "to a removed node": (
        lambda s: s.add_edges([[0, 1], [1, 7]]), NodeIndexError,
        r"\[1\] is 7, a node that was removed",
    ),
    "floats": (lambda s: s.add_edges(torch.zeros(2, 1)), GraphError, "expected integers"),
    "a row": (lambda s: s.add_edges([1, 2]), GraphError, r"expected integers \[2, k\]"),
    "words": (lambda s: s.add_edges("edges"), GraphError, "expected integers"),
    "weights": (lambda s: s.add_edges([[0], [1]], [0.5]), ConfigError, "no weights"),
    "no such edge": (lambda s: s.remove_edges([[2], [2]]), GraphError, r"\[:, 0\] is \(2, 2\)"),
    "once too often": (lambda s: s.remove_edges(first(s).repeat(1, 9)), GraphError, "not as many"),
    "removed twice": (lambda s: s.remove_nodes([3, 7]), NodeIndexError, r"node_ids\[1\] is 7"),
    "unknown node": (lambda s: s.remove_nodes([99]), NodeIndexError, "is 99"),
    "a mask": (lambda s: s.remove_nodes(torch.ones(4, dtype=torch.bool)), ShapeError, "of a mask"),
    "features of it": (lambda s: s.set_features([7], X), NodeIndexError, "removed"),
    "twice": (lambda s: s.set_features([1, 1], X.repeat(2, 1)), ShapeError, "twice"),
    "NaN": (lambda s: s.set_features([1], NAN), NonFiniteError, r"\[0, 3\]"),
    "a NaN node": (lambda s: s.add_nodes(NAN), NonFiniteError, r"\[0, 3\]"),
    "narrow": (lambda s: s.add_nodes(X[:, 1:]), ShapeError, rf"shape \[{FEATURES}\]"),
    "whole numbers": (lambda s: s.add_nodes(X.long()), ShapeError, "began with others"),
    "too few": (lambda s: s.set_features([1, 2], X), ShapeError, "1 rows of features for 2"),
    "asked for": (lambda s: s.predict([7]), NodeIndexError, "removed"),
    "asked beyond": (lambda s: s.predict(torch.tensor([NODES])), NodeIndexError, f"is {NODES}"),
}  # fmt: skip


def first(session: nodebits.GraphSession) -> Tensor:
    graph = session.graph()
    return nodebits.Graph(graph.indptr, graph.indices, graph.num_src).edge_index()[:, :1]


@pytest.mark.parametrize("name", CASES)
def test_an_update_is_refused_whole(session: nodebits.GraphSession, name: str) -> None:
    update, error, words = CASES[name]
    before, edges, nodes = session.predict(), session.num_edges, session.num_nodes
    with pytest.raises(error, match=words):
        update(session)
    assert (session.num_edges, session.num_nodes) == (edges, nodes)
    assert torch.equal(session.predict(), before)


def test_a_removed_node_is_one_without_edges(session: nodebits.GraphSession) -> None:
    alone = session.add_nodes(session.features[7:8])
    assert torch.equal(session.predict()[7], session.predict(alone)[0])


def test_weights(session: nodebits.GraphSession) -> None:
    x, edge_index = small_graph()
    model = weighted_model()
    weight = torch.rand(edge_index.size(1))
    made = nodebits.GraphSession(model, edge_index, x, weight)
    with pytest.raises(ConfigError, match="pass edge_weight"):
        made.add_edges([[0], [1]])
    with pytest.raises(ConfigError, match=r"edge_weight\[1\] is -1"):
        made.add_edges([[0, 1], [1, 2]], [1.0, -1.0])
    with pytest.raises(NonFiniteError):
        made.add_edges([[0], [1]], [float("inf")])
    with pytest.raises(ShapeError, match="1 values for 2 edges"):
        made.add_edges([[0, 1], [1, 2]], [1.0])
    for bad in ("a", [None], ["a"], [1 + 1j], torch.ones(1).to_sparse()):
        with pytest.raises(ShapeError, match="edge_weight is"):
            made.add_edges([[0], [1]], bad)
    assert made.num_edges == edge_index.size(1)
    with pytest.raises(ConfigError, match=r"missing 1 required.*edge_weight"):
        nodebits.GraphSession(model, edge_index[:, :0], x)
    with pytest.raises(ConfigError, match=r"missing 1 required.*edge_weight"):
        nodebits.GraphSession(model, edge_index, x)
    with pytest.raises(GraphError, match="real numbers"):
        nodebits.GraphSession(model, edge_index, x, weight + 1j)
    with pytest.raises(ConfigError, match="from 0 on"):
        nodebits.GraphSession(model, edge_index, x, -weight)


class _Layer(nn.Module):
    """A layer alone, and what follows it."""

    def __init__(self, layer: nn.Module, shift: bool = False) -> None:
        super().__init__()
        self.layer, self.shift = layer, shift

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.layer(x, edge_index[:, 1:] if self.shift else edge_index)
        return out


class _Powers(MixHopConv):  # type: ignore[misc]  # PyG has no types
    """Normalises its edges itself, as every subclass does."""


OTHER_EDGES = "the model cannot be.*other edges of those that it is given"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: _Layer(SAGEConv(FEATURES, 3, flow="target_to_source")), OTHER_EDGES),
        (lambda: _Layer(SAGEConv(FEATURES, 3), shift=True), OTHER_EDGES),
        (lambda: _Layer(_Powers(FEATURES, 3, powers=[0, 1])), OTHER_EDGES),
        (lambda: _Layer(FeaStConv(FEATURES, 3)), "layer 'layer' cannot.*'module: layer', which is"),
        (lambda: _Layer(GCN(FEATURES, 8, 2, 3, norm="GraphNorm")), "which is not known to work"),
    ],
)
def test_what_stands_in_the_way_is_said(make: Callable[[], nn.Module], words: str) -> None:
    x, edge_index = small_graph()
    with torch.enable_grad():
        model = two_steps(make(), nodebits.UniformConfig(bits=4), x, edge_index)
    with pytest.raises(UnsupportedLayerError, match=words) as caught:
        nodebits.GraphSession(nodebits.convert(model), edge_index, x)
    assert "all nodes at once" not in str(caught.value)


class _Central(nn.Module):
    """Takes the mean of all nodes away, which no row can know."""

    def __init__(self) -> None:
        super().__init__()
        self.gcn = GCN(FEATURES, 8, 2, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.gcn(x, edge_index)
        return x - x.mean(0, keepdim=True)


def test_models_that_need_all_rows() -> None:
    x, edge_index = small_graph()
    with torch.enable_grad():
        model = two_steps(_Central(), nodebits.UniformConfig(bits=4), x, edge_index)
    with pytest.raises(UnsupportedLayerError, match=r"'sum|'mean"):
        nodebits.GraphSession(nodebits.convert(model), edge_index, x)


def test_what_a_session_begins_with() -> None:
    case = make_case("gcn")
    packed, x, edges = case.packed, case.x, case.edge_index
    with pytest.raises(UnsupportedLayerError, match="not known to work row by row"):
        nodebits.GraphSession(make_case("gcn", "a2q").packed, edges, x)
    with pytest.raises(ConfigError, match="a packed model, this is a GCN"):
        nodebits.GraphSession(GCN(4, 4, 1), edges, x)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="reordered"):
        nodebits.GraphSession(packed, packed.prepare_graph(edges, NODES, reorder=True), x)
    with pytest.raises(GraphError, match="matrix"):
        size = (NODES, NODES)
        ones = torch.ones(edges.size(1))
        nodebits.GraphSession(packed, torch.sparse_coo_tensor(edges, ones, size), x)
    with pytest.raises(ShapeError, match="dense tensor"):
        nodebits.GraphSession(packed, edges, x.numpy())  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError):
        nodebits.GraphSession(packed, edges, x / 0)
    with force_isa("reference"), pytest.raises(ConfigError, match="compiled kernels"):
        nodebits.GraphSession(packed, edges, x)


def test_a_degree_beyond_int32(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("gcn")
    session = nodebits.GraphSession(case.packed, case.edge_index, case.x)
    monkeypatch.setattr(session._plan, "most_edges", {None: NODES + 10})
    with pytest.raises(AccumulatorOverflowError, match="node 0 would have"):
        session.add_edges(torch.stack([torch.arange(12), torch.zeros(12, dtype=torch.int64)]))
