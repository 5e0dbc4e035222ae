"""Samples as records: those of PyG's loader where one is installed, k-hop subgraphs elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.utils import k_hop_subgraph

from nodebits.core.errors import ConfigError, GraphError, NodeIndexError, ShapeError
from nodebits.graph import Graph, as_graph, reordered, sample_neighbors
from packed_models import NODES, small_graph

SAMPLERS = torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE
IDS = [7, 0, 7, 39]


def edges() -> Tensor:
    return small_graph()[1]


def graph() -> Graph:
    return as_graph(edges(), NODES)


def test_whole_neighbourhoods_are_those_of_pyg() -> None:
    for hops in (1, 2, 3):
        made = sample_neighbors(graph(), IDS, [-1] * hops)
        nodes, _, _, _ = k_hop_subgraph([7, 0, 39], hops, edges(), num_nodes=NODES)
        assert sorted(made.nodes.tolist()) == nodes.tolist()
        # Every node but those of the last hop has all its edges, in their order.
        inner = made.nodes[: made.reached[-2]]
        expected = torch.cat([(edges()[1] == node).nonzero().view(-1) for node in inner])
        assert torch.equal(made.edges, expected)


@pytest.mark.skipif(not SAMPLERS, reason="PyG samples with pyg-lib or torch-sparse")
@pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without a 'pyg-lib'")
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_whole_neighbourhoods_are_the_loaders(hops: int) -> None:
    """The same nodes and edges in each hop; torch-sparse sorts edges by target, not stably."""
    data = Data(x=torch.zeros(NODES, 1), edge_index=edges(), num_nodes=NODES)
    ids = torch.tensor([7, 0, 39])
    loader = NeighborLoader(data, [-1] * hops, input_nodes=ids, batch_size=3)
    batch = next(iter(loader))
    made = sample_neighbors(graph(), ids, [-1] * hops)
    for ours, theirs, sizes in (
        (made.nodes, batch.n_id, made.nodes_per_hop),
        (made.edges, batch.e_id, made.edges_per_hop),
    ):
        for one, other in zip(ours.split(sizes), theirs.split(sizes), strict=True):
            assert torch.equal(one.sort().values, other.sort().values)
    targets = made.graph.edge_index()[1], batch.edge_index[1]
    assert torch.equal(made.nodes[targets[0]].bincount(), batch.n_id[targets[1]].bincount())


@pytest.mark.parametrize("replace", [False, True])
def test_edges_of_a_sample_are_the_users(replace: bool) -> None:
    made = sample_neighbors(graph(), IDS, [3, 2], seed=4, replace=replace)
    whole = edges()[:, made.edges]
    assert torch.equal(made.nodes[made.graph.edge_index()], whole)
    assert made.nodes[made.seeds].tolist() == IDS
    assert sum(made.nodes_per_hop) == made.nodes.numel() == made.graph.num_src
    assert sum(made.edges_per_hop) == made.edges.numel() == made.graph.num_edges
    assert made.nodes_per_hop[0] == 3
    Graph(made.graph.indptr, made.graph.indices, made.graph.num_src).validate()


def test_weights_and_forms_come_along() -> None:
    weight = torch.rand(edges().size(1)) + 0.1
    made = sample_neighbors(as_graph(edges(), NODES, edge_weight=weight), IDS, [3, 2], seed=4)
    assert made.graph.edge_weight is not None
    assert torch.equal(made.graph.edge_weight, weight[made.edges])
    index = edges().flip(0)
    matrix = torch.sparse_coo_tensor(index, weight, (NODES, NODES), check_invariants=True)
    whole = as_graph(matrix, NODES)
    made = sample_neighbors(whole, IDS, [3, 2], seed=4)
    assert made.graph.form == whole.form and whole.edge_weight is not None
    assert torch.equal(made.graph.edge_weight, whole.edge_weight[made.edges])  # type: ignore[arg-type]


def test_seeds_decide() -> None:
    def nodes(**options: Any) -> list[int]:
        found: list[int] = sample_neighbors(graph(), [0], [5, 5], **options).nodes.tolist()
        return found

    assert nodes(seed=1) == nodes(seed=np.int64(1)) != nodes(seed=2)
    torch.manual_seed(0)
    first = [nodes(), nodes()]
    assert first[0] != first[1]
    torch.manual_seed(0)
    assert [nodes(), nodes()] == first


@pytest.mark.parametrize(
    "ids",
    [IDS, tuple(IDS), np.array(IDS), np.array(IDS, dtype=np.uint8), torch.tensor(IDS).int()],
    ids=lambda ids: type(ids).__name__,
)
def test_forms_of_node_ids(ids: Any) -> None:
    expected = sample_neighbors(graph(), torch.tensor(IDS), [2], seed=0)
    assert torch.equal(sample_neighbors(graph(), ids, [2], seed=0).edges, expected.edges)
    assert sample_neighbors(graph(), range(3), [2], seed=0).nodes[:3].tolist() == [0, 1, 2]
    assert not sample_neighbors(graph(), ids[:0], [2]).nodes.numel()


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([40], NodeIndexError, r"node_ids\[0\] is 40, outside \[0, 40\)"),
        ([0, -1], NodeIndexError, r"node_ids\[1\] is -1"),
        ([0.5], ShapeError, "node_ids are torch.float32: expected integers"),
        (torch.ones(NODES, dtype=torch.bool), ShapeError, "mask.nonzero"),
        ([True, False], ShapeError, "mask.nonzero"),
        (["a"], ShapeError, "expected a list of integers"),
        (None, ShapeError, "expected a list of integers"),
        (5, ShapeError, r"shape \[\]: expected a list"),
        (torch.zeros(2, 2, dtype=torch.int64), ShapeError, r"shape \[2, 2\]"),
        ([2**63], ShapeError, "expected a list of integers"),
    ],
)
def test_ids_that_are_none(ids: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sample_neighbors(graph(), ids, [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_neighbors": [-2]}, r"num_neighbors\[0\] is -2: expected 0 to"),
        ({"num_neighbors": [1, 2**31]}, r"num_neighbors\[1\] is 2147483648"),
        ({"num_neighbors": []}, "num_neighbors is empty"),
        ({"num_neighbors": 10}, "num_neighbors is 10: expected a number for each hop"),
        ({"num_neighbors": "10"}, "num_neighbors is '10'"),
        ({"num_neighbors": [1.5]}, r"num_neighbors\[0\] is 1.5: expected an integer"),
        ({"num_neighbors": [True]}, r"num_neighbors\[0\] is True"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"seed": "a"}, "seed is 'a': expected an integer"),
        ({"replace": 1}, "replace is 1"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sample_neighbors(graph(), [0], **{"num_neighbors": [1], **options})


def test_graphs_that_are_not_sampled() -> None:
    with pytest.raises(GraphError, match="40 sources and 41 targets"):
        sample_neighbors(as_graph(edges(), NODES, NODES + 1), [0], [1])
    with pytest.raises(ConfigError, match="reordered"):
        sample_neighbors(reordered(graph()), [0], [1])
    broken = Graph(torch.tensor([0, 1]), torch.tensor([3], dtype=torch.int32), 1)
    with pytest.raises(NodeIndexError):
        sample_neighbors(broken, [0], [1])
