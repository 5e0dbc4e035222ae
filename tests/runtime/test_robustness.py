"""Bad input gets a typed error that names value and place; odd input is computed as PyG does."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GraphConv, SAGEConv

from nodebits.core.errors import (
    AccumulatorOverflowError,
    GraphError,
    NodeIndexError,
    NonFiniteError,
    OutOfMemoryError,
    ShapeError,
)
from nodebits.graph import Graph, csr
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.models import build_model
from nodebits.nn import functional as layer_functions
from nodebits.ops import coo_to_csr
from nodebits.runtime import convert, load
from packed_models import FEATURES, NODES, Case, UserModel, make_case, small_graph, threads

NAMES = ("gcn", "gin", "gat", "sage")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


made = functools.cache(make_case)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return made(request.param)


def no_edges() -> Tensor:
    return torch.zeros(2, 0, dtype=torch.int64)


# ---- features ----


@pytest.mark.parametrize("value", (torch.nan, torch.inf, -torch.inf))
def test_non_finite_features(case: Case, value: float) -> None:
    x = case.x.clone()
    x[7, 3] = x[9, 0] = value
    for call in (
        lambda: case.packed.predict(x, case.edge_index),
        lambda: case.packed.pack_input(x),
    ):
        with pytest.raises(NonFiniteError, match=r"\b2\b.*\[7, 3\]"):
            call()


def freed(t: Tensor, left: int = 0) -> Tensor:
    t = t.clone()
    t.untyped_storage().resize_(left)
    return t


@pytest.mark.parametrize("left", (0, 16))
def test_tensors_whose_memory_was_freed(case: Case, left: int) -> None:
    """PyG's reversible layers free their inputs; whoever reads them then reads anything."""
    x, edge_index = freed(case.x, left), freed(case.edge_index, left)
    packed, prepared = case.packed, case.prepared
    calls: tuple[Callable[[], object], ...] = (
        lambda: packed.predict(x, case.edge_index),
        lambda: packed.predict(case.x, edge_index),
        lambda: packed.pack_input(x, edge_index=case.edge_index),
        lambda: packed.prepare_graph(edge_index, NODES),
        lambda: prepared(x, case.edge_index),
        lambda: prepared(case.x, edge_index),
    )
    for call in calls:
        with pytest.raises(ShapeError, match=r"\] has no memory: it was freed"):
            call()


@pytest.mark.parametrize("width", (0, 1, FEATURES - 1, FEATURES + 1, 2 * FEATURES))
def test_wrong_width(case: Case, width: int) -> None:
    with pytest.raises(ShapeError, match=f"{FEATURES}"):
        case.packed.predict(torch.ones(NODES, width), case.edge_index)


@pytest.mark.parametrize(
    "x",
    (
        torch.ones(FEATURES),
        torch.tensor(1.0),
        torch.ones(NODES, FEATURES, dtype=torch.int64),
        torch.ones(NODES, FEATURES, dtype=torch.bool),
        torch.ones(NODES, FEATURES, dtype=torch.complex64),
    ),
    ids=lambda x: f"{x.dtype}-{x.dim()}d",
)
def test_wrong_form_of_features(x: Tensor, case: Case) -> None:
    with pytest.raises(ShapeError, match=r"torch\.\w+ \[.*expected a float tensor"):
        case.packed.predict(x, case.edge_index)


def test_features_that_are_no_tensor(case: Case) -> None:
    for x, named in ((case.x.numpy(), "ndarray"), (case.x.tolist(), "list")):
        with pytest.raises(ShapeError, match=f"features are a {named}") as caught:
            case.packed.predict(x, case.edge_index)
        assert len(str(caught.value)) < 200


def test_both_sides_of_a_bipartite_layer() -> None:
    x, target = torch.randn(6, FEATURES), torch.randn(4, FEATURES)
    edge_index = torch.tensor([[0, 5, 2, 3], [0, 1, 1, 3]])
    prepared = prepare(SAGEConv((FEATURES, FEATURES), 3), UniformConfig(bits=4)).eval()
    calibrate(prepared, (x, target), edge_index)
    packed = convert(prepared)
    with torch.no_grad():
        expected = prepared((x, target), edge_index)
    assert torch.equal(packed.predict((x.double(), target), edge_index), expected)
    for bad in ((x * torch.nan, target), (x, target * torch.inf)):
        with pytest.raises(NonFiniteError):
            packed.predict(bad, edge_index)


def test_memory_that_runs_out(case: Case) -> None:
    beyond = torch.zeros(1, FEATURES).expand(2**44, FEATURES)  # no machine has as much
    with pytest.raises(OutOfMemoryError, match=r"allocate.*smaller batches"):
        case.packed.predict(beyond, case.edge_index)
    assert torch.equal(case.packed.predict(case.x, case.edge_index), case.simulated)


# ---- edges ----


def with_value(edge_index: Tensor, row: int, at: int, value: int) -> Tensor:
    edge_index = edge_index.clone()
    edge_index[row, at] = value
    return edge_index


@pytest.mark.parametrize("value", (-1, NODES, NODES + 1, 2**31, 2**40, -(2**40)))
@pytest.mark.parametrize("row", (0, 1))
def test_index_outside_the_graph(case: Case, row: int, value: int) -> None:
    bad = with_value(case.edge_index, row, 11, value)
    message = rf"edge_index\[{row}, 11\] is {value}.*\[0, {NODES - 1}\]"
    with pytest.raises(NodeIndexError, match=message):
        case.packed.predict(case.x, bad)
    with pytest.raises(NodeIndexError, match=message):
        case.packed.prepare_graph(bad, NODES)


def test_wrong_form_of_edges(case: Case) -> None:
    for bad, named in (
        (case.edge_index.float(), r"torch\.float32.*\.long\(\)"),
        (case.edge_index.bool(), r"torch\.bool"),
        (case.edge_index[0], r"\[2, num_edges\]"),
        (case.edge_index.t(), r"\[2, num_edges\]"),
        (case.edge_index.tolist(), "list"),
        (None, "NoneType"),
        (case.edge_index.to("meta"), "meta device"),
    ):
        with pytest.raises(GraphError, match=named):
            case.packed.predict(case.x, bad)
        with pytest.raises(GraphError, match=named):
            case.packed.prepare_graph(bad, NODES)


def test_graph_of_another_size(case: Case) -> None:
    for nodes in (NODES - 1, NODES + 1):
        edges = case.edge_index % (NODES - 1)
        graph = case.packed.prepare_graph(edges, nodes)
        with pytest.raises(GraphError, match=f"{nodes}.*{NODES}|{NODES}.*{nodes}"):
            case.packed.predict(case.x, graph)
        with pytest.raises(GraphError, match=f"{nodes}"):
            case.packed.predict(case.packed.pack_input(case.x), graph)


def test_sparse_matrix_of_another_size(case: Case) -> None:
    with pytest.raises(GraphError, match=f"{NODES + 2}"):
        case.packed.predict(case.x, torch.eye(NODES + 2).to_sparse_csr())


# ---- accumulator ----


def test_in_degree_beyond_the_bound(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub of the small graph, with an accumulator made small."""
    largest = int(torch.bincount(case.edge_index[1]).max())
    assert case.edge_index[1].mode().values == 0
    monkeypatch.setattr(csr, "INT32_MAX", 15 * (largest - 2))
    with pytest.raises(AccumulatorOverflowError, match=r"node 0 .*in-degree \d+.*fewer"):
        case.packed.predict(case.x, case.edge_index)


def test_bound_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("gin")
    largest = int(torch.bincount(case.edge_index[1]).max())
    monkeypatch.setattr(csr, "INT32_MAX", 15 * largest)
    assert torch.equal(case.packed.predict(case.x, case.edge_index), case.simulated)
    monkeypatch.setattr(csr, "INT32_MAX", 15 * largest - 1)
    with pytest.raises(AccumulatorOverflowError):
        case.packed.predict(case.x, case.edge_index)


class Crowded(Graph):
    """A prepared graph that says it has a node of very high degree."""

    @property
    def max_degree(self) -> int:
        return 2**31 // 15 + 1


def test_real_bound_of_a_prepared_graph() -> None:
    case = make_case("gin")
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    crowded = Crowded(graph.indptr, graph.indices, NODES)
    with pytest.raises(AccumulatorOverflowError, match=f"{2**31 // 15 + 1}"):
        case.packed.predict(case.x, crowded)
    indptr = torch.tensor([0, 2**31, 2**31])
    with pytest.raises(AccumulatorOverflowError, match="node 0"):
        Graph(indptr, torch.zeros(0, dtype=torch.int32), 2).check_accumulator(1)


def test_too_many_columns_at_prepare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_functions, "INT32_MAX", 255 * 128 * 11)
    with pytest.raises(AccumulatorOverflowError, match=r"layer '.+'.*12 columns.*11 columns"):
        prepare(UserModel(), UniformConfig(bits=8))


# ---- odd but legal graphs ----


def agree(case: Case, x: Tensor, edge_index: Tensor) -> Tensor:
    """Packed equals simulated; returns what both say."""
    packed = case.packed.predict(x, edge_index)
    with torch.no_grad():
        assert torch.equal(case.prepared(x, edge_index), packed)
    return packed


def test_no_edges(case: Case) -> None:
    out = agree(case, case.x, no_edges())
    assert out.isfinite().all()
    one = agree(case, case.x[4:5], no_edges())
    assert torch.equal(one, out[4:5])


def test_isolated_nodes_change_nothing_else(case: Case) -> None:
    more = torch.cat([case.x, torch.randn(3, FEATURES)])
    out = agree(case, more, case.edge_index)
    assert torch.equal(out[:NODES], case.simulated)
    assert torch.equal(out[NODES:], agree(case, more[NODES:], no_edges()))


def test_no_nodes(case: Case) -> None:
    assert agree(case, case.x[:0], no_edges()).shape == (0, 3)
    graph = case.packed.prepare_graph(no_edges(), 0)
    assert case.packed.predict(case.packed.pack_input(case.x[:0]), graph).shape == (0, 3)


def test_edge_without_nodes(case: Case) -> None:
    with pytest.raises(NodeIndexError):
        case.packed.predict(case.x[:0], torch.zeros(2, 1, dtype=torch.int64))


GRAPHS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda e: e,
    "none": lambda e: e[:, :0],
    "only self loops": lambda e: torch.arange(NODES).repeat(2, 1),
    "each loop twice": lambda e: torch.arange(NODES).repeat(2, 2),
    "each edge three times": lambda e: e.repeat(1, 3),
    "one direction": lambda e: e[:, e[0] < e[1]],
    "one target": lambda e: torch.stack([e[0], torch.zeros_like(e[1])]),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_odd_graphs_as_in_pyg(name: str, graph: str) -> None:
    """Packed equals simulated, and with every site left in float both equal PyG's model.

    At eight bits no bound would be sharp: a row that sums all others stretches the range that the
    others share.
    """
    x, edge_index = small_graph()
    edge_index = GRAPHS[graph](edge_index)
    torch.manual_seed(2)
    model = build_model(made(name).spec).eval()
    with torch.no_grad():
        expected = model(x, edge_index)
    for bits in (8, 2):
        prepared = prepare(model, UniformConfig(bits=bits, mode="ptq"))
        calibrate(prepared, x, edge_index)
        with torch.no_grad():
            simulated = prepared(x, edge_index)
        assert torch.equal(convert(prepared).predict(x, edge_index), simulated)
    unrounded = prepare(model, UniformConfig(overrides={"*": 32}))
    found = convert(unrounded).predict(x, edge_index)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# ---- edge weights ----


def test_edge_weights_that_were_never_seen(tmp_path: str) -> None:
    case = make_case("gcn")
    weight = torch.rand(case.edge_index.size(1))
    case.packed.save(f"{tmp_path}/model.safetensors")
    expected = case.packed.predict(case.x, case.edge_index, edge_weight=weight)
    assert not torch.equal(expected, case.simulated)
    for model in (case.packed, load(f"{tmp_path}/model.safetensors")):
        graph = model.prepare_graph(case.edge_index, NODES, weight)
        assert torch.equal(model.predict(case.x, graph), expected)
        assert torch.equal(model.predict(case.x, case.edge_index), case.simulated)


def test_wrong_number_of_edge_weights() -> None:
    case = make_case("gcn")
    with pytest.raises(ShapeError, match=r"\[3\].*edges"):
        case.packed.predict(case.x, case.edge_index, edge_weight=torch.ones(3))
    with pytest.raises(ShapeError, match="edges"):
        case.packed.prepare_graph(case.edge_index, NODES, torch.ones(3))


@pytest.mark.parametrize("value", (torch.nan, torch.inf))
def test_non_finite_edge_weights(value: float) -> None:
    x, edge_index = small_graph()
    weight = torch.rand(edge_index.size(1))
    prepared = prepare(GraphConv(FEATURES, 3), UniformConfig(bits=4)).eval()
    calibrate(prepared, x, edge_index, weight)
    packed = convert(prepared)
    weight[5] = value
    with pytest.raises(NonFiniteError, match=r"edge_weight.*5"):
        packed.predict(x, edge_index, weight)
    with pytest.raises(NonFiniteError, match="edge_weight"):
        packed.prepare_graph(edge_index, NODES, weight)


def test_model_works_after_every_error() -> None:
    case = make_case("gat")
    for x, edge_index in (
        (case.x[:, :3], case.edge_index),
        (case.x * torch.nan, case.edge_index),
        (case.x, case.edge_index + NODES),
    ):
        with pytest.raises((ShapeError, NonFiniteError, NodeIndexError)):
            case.packed.predict(x, edge_index)
    assert torch.equal(case.packed.predict(case.x, case.edge_index), case.simulated)


# ---- features packed ahead ----


@pytest.mark.parametrize("binary", (False, True))
def test_packed_features_of_another_shape(binary: bool) -> None:
    """Whatever was packed, nothing is read beyond it: a typed error, at every width."""
    features = 300 if binary else FEATURES
    for name in NAMES:
        case = make_case(name, features=features)
        shapes = [(NODES, width) for width in (features + 1, 3 * features, features - 1)]
        shapes += [(rows, features) for rows in (1, NODES - 1, NODES + 5)]
        for rows, cols in shapes:
            x = (torch.rand(rows, cols) > 0.95).float() if binary else torch.randn(rows, cols)
            with pytest.raises((ShapeError, GraphError)):
                packed = case.packed.pack_input(x)
                case.packed.predict(packed, Graph(*_csr(case.edge_index), NODES))
            with pytest.raises(ShapeError):
                packed = case.packed.pack_input(x)
                dataclasses.replace(packed, shape=(NODES, features))


def test_graph_that_lies_about_its_sources(case: Case) -> None:
    indptr, indices = _csr(case.edge_index)
    x = case.x[:5].contiguous()
    with pytest.raises((ShapeError, GraphError, NodeIndexError)):
        case.packed.predict(case.packed.pack_input(x), Graph(indptr, indices, 5))


def test_edited_width_of_a_layer() -> None:
    case = make_case("gcn")
    layer = case.packed.module.convs[0].lin
    layer.in_channels = FEATURES - 1
    with pytest.raises(ShapeError, match=rf"{FEATURES - 1}.*{FEATURES}"):
        case.packed.predict(case.packed.pack_input(case.x[:, :-1]), case.edge_index)


def _csr(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    indptr, indices, _ = coo_to_csr(edge_index[1], edge_index[0], NODES)
    return indptr, indices
