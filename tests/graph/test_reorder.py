"""An order of rows that keeps communities together."""

from __future__ import annotations

import pytest
import torch

from nodebits.core.errors import GraphError
from nodebits.graph import Graph, ReorderedGraph, as_graph, reordered
from nodebits.graph.reorder import locality_order, shared_sources


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodebits.graph.reorder._GROUP", 64)


def communities(count: int = 8, size: int = 60, degree: int = 16, outside: int = 3) -> Graph:
    """Nodes i, i + count, i + 2 * count ... are a community: no two neighbours in number."""
    g = torch.Generator().manual_seed(0)
    nodes = count * size
    rows = torch.arange(nodes).repeat_interleave(degree)
    near = rows % count + count * torch.randint(0, size, rows.shape, generator=g)
    far = torch.randint(0, nodes, rows.shape, generator=g)
    leaves = torch.arange(rows.numel()) % degree < outside
    return Graph(torch.arange(nodes + 1) * degree, torch.where(leaves, far, near).int(), nodes)


def test_communities_come_together() -> None:
    graph = communities()
    order = locality_order(graph)
    assert torch.equal(order.sort().values, torch.arange(graph.num_dst))
    label = order % 8
    changes = int((label[1:] != label[:-1]).sum())
    assert changes < 40  # by chance: seven of eight
    before = shared_sources(graph, None, 960)
    after = shared_sources(graph, order, 960)
    assert after > 2 * before


def test_the_same_graph_has_the_same_order() -> None:
    assert torch.equal(locality_order(communities()), locality_order(communities()))


def test_no_community_is_no_harm() -> None:
    g = torch.Generator().manual_seed(0)
    graph = Graph(
        torch.arange(301) * 4, torch.randint(0, 300, (1200,), generator=g, dtype=torch.int32), 300
    )
    order = locality_order(graph)
    assert torch.equal(order.sort().values, torch.arange(300))


def test_a_graph_of_one_group_or_without_edges_stays() -> None:
    ring = Graph(torch.arange(11), (torch.arange(10) + 1).remainder(10).int(), 10)
    assert torch.equal(locality_order(ring), torch.arange(10))
    empty = Graph(torch.zeros(201, dtype=torch.int64), torch.empty(0, dtype=torch.int32), 200)
    assert torch.equal(locality_order(empty), torch.arange(200))
    assert shared_sources(empty) == 0.0


def test_isolated_nodes_and_hubs() -> None:
    # Node 0 reads everybody, half of the nodes nobody.
    degree = torch.zeros(200, dtype=torch.int64)
    degree[0], degree[1:100] = 200, 2
    indptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    indices = torch.cat([torch.arange(200), torch.arange(198) % 100]).int()
    order = locality_order(Graph(indptr, indices, 200))
    assert torch.equal(order.sort().values, torch.arange(200))


def test_shared_sources_counts() -> None:
    # Rows 0 and 2 read {0, 1}, rows 1 and 3 read {2, 3}.
    graph = Graph(torch.arange(5) * 2, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]).int(), 4)
    assert shared_sources(graph, None, 4) == 1.0
    assert shared_sources(graph, torch.tensor([0, 2, 1, 3]), 4) == 2.0
    assert shared_sources(graph, torch.tensor([2, 0, 3, 1]), 4) == 2.0


def test_a_bipartite_graph_is_refused() -> None:
    with pytest.raises(GraphError, match="3 and 1"):
        locality_order(Graph(torch.tensor([0, 1]), torch.tensor([2]).int(), 3))


def test_a_reordered_graph_is_the_same_graph() -> None:
    edge_index = torch.randint(0, 300, (2, 2000), generator=torch.Generator().manual_seed(0))
    weight = torch.rand(2000)
    graph = as_graph(edge_index, 300, edge_weight=weight)
    found = reordered(graph)
    assert not torch.equal(found.order, torch.arange(300))
    assert torch.equal(found.order[found.position], torch.arange(300))
    back = torch.stack([found.order[found.indices.long()], found.order[found.rows]])
    assert found.perm is not None and found.edge_weight is not None
    assert torch.equal(back, edge_index[:, found.perm])
    assert torch.equal(found.edge_weight, weight[found.perm])
    # Weights given later are in the order of the user's edges, too.
    plain = as_graph(reordered(as_graph(edge_index, 300)), 300, edge_weight=weight)
    assert torch.equal(plain.edge_weight, found.edge_weight)


def test_a_graph_from_compressed_rows() -> None:
    graph = communities()
    found = reordered(graph)
    rows = graph.indices.view(480, 16)[found.order]
    assert torch.equal(found.order[found.indices.long()].view(480, 16), rows.long())


@pytest.mark.parametrize(
    "order",
    [torch.arange(479), torch.zeros(480).long(), torch.arange(1, 481)],
)
def test_what_is_no_order(order: torch.Tensor) -> None:
    with pytest.raises(GraphError, match="permutation of the 480 nodes"):
        ReorderedGraph(communities(), order)
