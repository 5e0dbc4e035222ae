"""Predictions from samples: the rows of the whole graph, and those of PyG's loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.typing
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GCNConv, GraphConv
from torch_geometric.utils import add_self_loops, degree

import nodebits
from nodebits import ops
from nodebits.core.errors import (
    ConfigError,
    GraphError,
    GraphMismatchError,
    NodeIndexError,
    NonFiniteError,
    ShapeError,
)
from nodebits.graph import as_graph, sample_neighbors
from nodebits.nn.layer import QuantLayer
from nodebits.runtime import PackedModel
from packed_models import CLASSES, FEATURES, NODES, UserModel, make_case, small_graph, threads

SAMPLERS = torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE
IDS = [3, 0, 3, 39, 7]
pytestmark = [
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.DegenerateSiteWarning"),
    # Degrees of a sample are lower than those of the graph that ranges were made for.
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning"),
]


def packed_of(module: nn.Module, *inputs: Any) -> PackedModel:
    prepared = nodebits.prepare(module, nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *inputs)
    return nodebits.convert(prepared)


def hops(packed: PackedModel) -> int:
    return sum(isinstance(m, QuantLayer) for m in packed.module.modules())


@pytest.mark.parametrize("name", ["sage", "gin", "gat", "gcn"])
@pytest.mark.parametrize("ahead", [False, True])
def test_whole_neighbourhoods_give_the_rows_of_the_whole_graph(name: str, ahead: bool) -> None:
    """One hop more than layers, so that GCN's degrees are those of the whole graph too."""
    case = make_case(name)
    expected = case.packed.predict(case.x, case.edge_index)[IDS]
    features = case.packed.pack_input(case.x) if ahead else case.x
    all_hops = [-1] * (hops(case.packed) + 1)
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    for given in (graph, case.edge_index):
        made = case.packed.predict_nodes(given, features, IDS, all_hops)
        assert torch.equal(made, expected)


@pytest.mark.parametrize("features", [FEATURES, 300])
@pytest.mark.parametrize("method", ["uniform", "sgquant", "degree-quant"])
def test_packed_features_of_every_format(method: str, features: int) -> None:
    """Sparse, dense, and rows of several widths, taken without decoding."""
    case = make_case("sage" if method == "uniform" else "gcn", method, features=features)
    given = case.packed.pack_input(case.x, edge_index=case.edge_index)
    made = case.packed.predict_nodes(case.edge_index, given, IDS, [4, 4], seed=5)
    sample = sample_neighbors(
        case.packed.prepare_graph(case.edge_index, NODES), IDS, [4, 4], seed=5
    )
    expected = case.packed.predict(given.selected(sample.nodes), sample.graph)
    assert torch.equal(made, expected[sample.seeds])


@pytest.mark.skipif(not SAMPLERS, reason="PyG samples with pyg-lib or torch-sparse")
@pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without a 'pyg-lib'")
@pytest.mark.parametrize("name", ["sage", "gin", "gat", "gcn", "appnp"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_whole_neighbourhoods_equal_the_loader(name: str, count: int) -> None:
    """Also with fewer or more hops than layers, and GCN with the sample's degrees."""
    case = make_case(name)
    ids = torch.tensor([3, 0, 39, 7])
    data = Data(x=case.x, edge_index=case.edge_index)
    loader = NeighborLoader(data, [-1] * count, input_nodes=ids, batch_size=4)
    batch = next(iter(loader))
    expected = case.packed.predict(batch.x, batch.edge_index)[: batch.batch_size]
    made = case.packed.predict_nodes(case.edge_index, case.x, ids, [-1] * count)
    assert torch.equal(made, expected)


def test_samples_tend_to_the_mean_over_all() -> None:
    """A mean over samples without replacement is, on average, the mean over all neighbours."""
    x, edge_index = small_graph()
    graph = as_graph(edge_index, NODES)
    some = [sample_neighbors(graph, [0], [3], seed=seed) for seed in range(1000, 1100)]
    data = [(x, edge_index), *((x[s.nodes], s.graph.edge_index()) for s in some)]
    prepared = nodebits.prepare(
        GraphConv(FEATURES, 2, aggr="mean"), nodebits.UniformConfig(bits=8, mode="ptq")
    )
    nodebits.calibrate(prepared, data)
    packed = nodebits.convert(prepared)
    expected = packed.predict(x, graph)[0]
    made = torch.stack([packed.predict_nodes(graph, x, [0], [3], seed=s)[0] for s in range(400)])
    deviation = made.std(0)
    assert bool((deviation > 0.05).all())
    assert bool(((made.mean(0) - expected).abs() < 4 * deviation / 20 + 0.01).all())


def test_a_seed_gives_the_same_rows_with_any_number_of_threads() -> None:
    case = make_case("sage")

    def rows(seed: int | None = 8) -> Tensor:
        return case.packed.predict_nodes(case.edge_index, case.x, IDS, [2, 2], seed=seed)

    expected = rows()
    for count in (1, 3):
        with threads(count):
            assert torch.equal(rows(), expected)
    with ops.force_isa("reference"):
        assert torch.equal(rows(), expected)
    assert torch.equal(expected[0], expected[2])  # node 3 stands twice
    assert not torch.equal(rows(9), expected)
    torch.manual_seed(3)
    fresh = rows(None)
    torch.manual_seed(3)
    assert torch.equal(rows(None), fresh)


def test_a_module_of_the_users_own() -> None:
    x, edge_index = small_graph()
    packed = packed_of(UserModel().eval(), x, edge_index)
    made = packed.predict_nodes(edge_index, x.double(), np.array(IDS), (-1, -1, -1))
    assert torch.equal(made, packed.predict(x, edge_index)[IDS])


class Inputs(nn.Module):
    """Edge weights, an embedding of ids, and a value per node."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NODES, 8)
        self.conv = GCNConv(8, CLASSES, add_self_loops=False)

    def forward(
        self, ids: Tensor, edge_index: Any, edge_weight: Tensor, shift: Tensor, factor: float = 1.0
    ) -> Tensor:
        out: Tensor = self.conv(self.embedding(ids), edge_index, edge_weight)
        return out * factor + shift


def test_other_inputs_follow_nodes_and_edges() -> None:
    _, edge_index = small_graph()
    weight, shift = torch.rand(edge_index.size(1)) + 0.1, torch.randn(NODES, 1)
    ids = torch.arange(NODES)
    packed = packed_of(Inputs().eval(), ids, edge_index, weight, shift)
    expected = packed.predict(ids, edge_index, weight, shift, 2.0)[IDS]
    inputs: dict[str, Any] = {"edge_weight": weight, "shift": shift, "factor": 2.0}
    made = packed.predict_nodes(edge_index, ids, IDS, [-1, -1], **inputs)
    torch.testing.assert_close(made, expected)
    with pytest.raises(ShapeError, match=r"edge_weight has shape \[3\]: expected a row for each"):
        packed.predict_nodes(edge_index, ids, IDS, [1], **{**inputs, "edge_weight": weight[:3]})
    with pytest.raises(ShapeError, match=r"shift has shape \[2, 1\].* 40 nodes"):
        packed.predict_nodes(edge_index, ids, IDS, [1], **{**inputs, "shift": shift[:2]})


def test_weights_of_a_prepared_graph() -> None:
    x, edge_index = small_graph()
    weight = torch.rand(edge_index.size(1)) + 0.1
    packed = packed_of(GraphConv(FEATURES, CLASSES), x, edge_index, weight)
    graph = packed.prepare_graph(edge_index, NODES, weight)
    made = packed.predict_nodes(graph, x, IDS, [-1])
    torch.testing.assert_close(made, packed.predict(x, edge_index, weight)[IDS])


def test_no_nodes_and_nodes_alone() -> None:
    case = make_case("sage")
    assert case.packed.predict_nodes(case.edge_index, case.x, [], [2, 2]).shape == (0, CLASSES)
    none = torch.empty(2, 0, dtype=torch.int64)
    made = case.packed.predict_nodes(none, case.x, IDS, [2, 2])
    assert torch.equal(made, case.packed.predict(case.x, none)[IDS])
    made = case.packed.predict_nodes(case.edge_index, case.x, IDS, [0, 0])
    assert torch.equal(made, case.packed.predict(case.x, none)[IDS])


def test_features_in_a_mapped_file(tmp_path: Path) -> None:
    """Only the rows that are reached are read, so NaN elsewhere is nobody's business."""
    case = make_case("sage")
    x = case.x.clone()
    sample = sample_neighbors(
        case.packed.prepare_graph(case.edge_index, NODES), IDS, [2, 2], seed=1
    )
    unread = torch.ones(NODES, dtype=torch.bool).index_fill(0, sample.nodes, False)
    assert bool(unread.any())
    x[unread] = torch.nan
    file = np.memmap(tmp_path / "x", np.float32, "w+", shape=tuple(x.shape))
    file[:] = x.numpy()
    mapped = torch.from_numpy(file)
    made = case.packed.predict_nodes(case.edge_index, mapped, IDS, [2, 2], seed=1)
    expected = case.packed.predict_nodes(case.edge_index, case.x, IDS, [2, 2], seed=1)
    assert torch.equal(made, expected)


def test_bad_values_name_the_node() -> None:
    case = make_case("sage")
    x = case.x.clone()
    x[39, 2] = torch.inf
    with pytest.raises(NonFiniteError, match=r"features of node 39, .* hold inf in column 2"):
        case.packed.predict_nodes(case.edge_index, x, [3, 39], [0, 0])


def test_models_with_parameters_of_single_nodes() -> None:
    case = make_case("gcn", "a2q")
    with pytest.raises(GraphMismatchError, match=r"site .* has parameters for every node of one"):
        case.packed.predict_nodes(case.edge_index, case.x, IDS, [-1, -1])
    case.packed.serve_other_graphs()
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    sample = sample_neighbors(graph, IDS, [2, 2], seed=1)
    expected = case.packed.predict(case.x[sample.nodes], sample.graph)[sample.seeds]
    assert torch.equal(case.packed.predict_nodes(graph, case.x, IDS, [2, 2], seed=1), expected)


def sage_arguments() -> Iterator[tuple[dict[str, Any], type[Exception], str]]:
    case = make_case("sage")
    x, edge_index = case.x, case.edge_index
    yield {"features": x[:5]}, NodeIndexError, "edge_index"
    yield {"features": x[0]}, ShapeError, r"features are torch.float32 \[12\]"
    yield {"features": x.numpy()}, ShapeError, "features are a ndarray.*from_numpy"
    yield {"features": x.to_sparse()}, ShapeError, "sparse matrix"
    yield {"features": {"a": x}}, ShapeError, "features are a dict"
    yield {"features": x[:, :3]}, ShapeError, "3"
    yield {"graph": {"a": edge_index}}, GraphError, "adjacency is a dict"
    yield {"graph": case.packed.prepare_graph(edge_index, 41)}, GraphError, "prepared for 41"
    yield {"node_ids": [40]}, NodeIndexError, r"node_ids\[0\] is 40"
    yield {"num_neighbors": [-5]}, ConfigError, "num_neighbors"
    reordered = case.packed.prepare_graph(edge_index, NODES, reorder=True)
    yield {"graph": reordered}, ConfigError, "reordered"
    ahead = case.packed.pack_input(x, edge_index=reordered)
    yield {"features": ahead}, ConfigError, "packed for a reordered graph"


@pytest.mark.parametrize("number", range(12))
def test_bad_arguments(number: int) -> None:
    bad, error, message = list(sage_arguments())[number]
    case = make_case("sage")
    good = {
        "graph": case.edge_index,
        "features": case.x,
        "node_ids": IDS,
        "num_neighbors": [2, 2],
    }
    with pytest.raises(error, match=message):
        case.packed.predict_nodes(**{**good, **bad})


class Pooled(UserModel):
    def forward(self, x: Any, edge_index: Any) -> Tensor:
        return super().forward(x, edge_index).sum(0)


class OfData(UserModel):
    def forward(self, data: Any) -> Tensor:  # type: ignore[override]
        return super().forward(data.x, data.edge_index)


def test_models_without_a_row_per_node() -> None:
    x, edge_index = small_graph()
    packed = packed_of(Pooled().eval(), x, edge_index)
    with pytest.raises(ConfigError, match=r"returned \[3\] for a sample of .* nodes"):
        packed.predict_nodes(edge_index, x, IDS, [2, 2])
    packed = packed_of(OfData().eval(), Data(x=x, edge_index=edge_index))
    with pytest.raises(ConfigError, match=r"takes \(data\): predict_nodes calls"):
        packed.predict_nodes(edge_index, x, IDS, [2, 2])


class Reversed(nn.Module):
    """Does with its edges what can be done with a tensor."""

    def __init__(self, rule: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.one, self.two = GCNConv(FEATURES, 8), GCNConv(FEATURES, 8)
        self.last, self.rule = GCNConv(8, CLASSES), rule

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        other = self.rule(edge_index, x.size(0))
        result: Tensor = self.last(self.one(x, edge_index) + self.two(x, other), edge_index)
        return result


def looped(edges: Tensor, num_nodes: int) -> Tensor:
    return add_self_loops(edges, num_nodes=num_nodes)[0]


def masked(edges: Tensor, num_nodes: int) -> Tensor:
    return edges[:, degree(edges[1], num_nodes)[edges[1]] > 1]


@pytest.mark.parametrize("rule", [lambda e, n: e.flip(0), lambda e, n: e[[1, 0]], looped, masked])
def test_models_that_use_their_edges_as_a_tensor(rule: Any) -> None:
    x, edges = small_graph()
    packed = packed_of(Reversed(rule), x, edges)
    graph = packed.prepare_graph(edges, NODES)
    expected = packed.predict(x, edges)
    seeds = list(range(NODES))
    for call in range(9):  # by the module at first, by a plan, and when the use of codes is seen
        assert torch.equal(packed.predict(x, graph), expected), call
        found = packed.predict_nodes(edges, x, seeds, [-1])
        assert torch.equal(found, packed.predict_nodes(graph, x, seeds, [-1])), call
        if rule is not masked:  # whose degrees are those of the sample
            assert torch.equal(found, expected), call


def test_a_graph_that_was_prepared_for_other_nodes_is_refused_still() -> None:
    case = make_case("gcn")
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    with pytest.raises(GraphError, match="prepared for"):
        case.packed.predict(case.x[:-1], graph)


class OneRow(nn.Module):
    """Returns one row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(FEATURES, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        result: Tensor = self.conv(x, edge_index).mean(0, keepdim=True)
        return result


@pytest.mark.parametrize("neighbors", [[2, 2], [0]])
@pytest.mark.parametrize("planned", [False, True])
def test_a_model_of_whole_graphs_is_refused_for_one_node_too(
    neighbors: list[int], planned: bool
) -> None:
    x, edges = small_graph()
    packed = packed_of(OneRow(), x, edges)
    packed.use_plans = planned
    for _ in range(3):
        with pytest.raises(ConfigError, match="a row per node"):
            packed.predict_nodes(edges, x, [5], neighbors, seed=1)


def test_one_node_without_neighbours() -> None:
    case = make_case("gcn")
    case.packed.use_plans = False
    found = case.packed.predict_nodes(case.edge_index, case.x, [5], [0])
    none = case.packed.predict(case.x, case.edge_index[:, :0])
    assert torch.equal(found, none[[5]])


def test_a_node_without_neighbours_is_a_sample_without_edges() -> None:
    """Also when a plan runs it, which the second call has made."""
    case = make_case("gcn")
    alone = NODES - 1
    assert not bool((case.edge_index[1] == alone).any())
    case.packed.plan(case.x, case.packed.prepare_graph(case.edge_index, NODES))
    expected = case.packed.predict(case.x, case.edge_index)[alone]
    for _ in range(3):
        found = case.packed.predict_nodes(case.edge_index, case.x, [alone], [3, 3])
        assert torch.equal(found[0], expected)
    empty = case.packed.prepare_graph(case.edge_index[:, :0], NODES)
    rows = [case.packed.predict(case.x, empty) for _ in range(3)]
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])
