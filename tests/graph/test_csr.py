"""Self loops, normalisation and bounds of a graph, against torch_geometric."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops

from nodebits.core.errors import AccumulatorOverflowError, GraphError
from nodebits.graph import Graph, as_graph

NODES = 9


def edges() -> Tensor:
    """Random edges with a loop (twice, on node 2), duplicates, and nodes 7 and 8 isolated."""
    index = torch.randint(0, 7, (2, 25))
    return torch.cat([index, index[:, :4], torch.tensor([[2, 5, 2], [2, 5, 2]])], 1)


def dense(row: Tensor, col: Tensor, value: Tensor) -> Tensor:
    return torch.zeros(NODES, NODES).index_put((row, col), value, accumulate=True)


def dense_of(graph: Graph) -> Tensor:
    weight = torch.ones(graph.num_edges) if graph.edge_weight is None else graph.edge_weight
    return dense(graph.rows, graph.indices.long(), weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fill", [1.0, 2.0])
def test_self_loops_equal_pyg(weighted: bool, fill: float) -> None:
    index = edges()
    weight = torch.rand(index.size(1)) + 0.5 if weighted else None
    graph = as_graph(index, NODES, edge_weight=weight).with_self_loops(fill=fill)
    ones = torch.ones(index.size(1))
    expected, value = add_remaining_self_loops(
        index, ones if weight is None else weight, fill, NODES
    )
    assert graph.num_edges == expected.size(1)
    torch.testing.assert_close(dense_of(graph), dense(expected[1], expected[0], value))
    assert torch.equal(graph.indices[graph.indptr[1:] - 1].long(), torch.arange(NODES))
    if not weighted and fill == 1.0:
        assert graph.edge_weight is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("improved", [False, True])
@pytest.mark.parametrize("loops", [False, True])
def test_normalisation_equals_gcn_norm(weighted: bool, improved: bool, loops: bool) -> None:
    index = edges()
    weight = torch.rand(index.size(1)) + 0.5 if weighted else None
    graph = as_graph(index, NODES, edge_weight=weight)
    if loops:
        graph = graph.with_self_loops(fill=2.0 if improved else 1.0)
    factor = graph.deg_inv_sqrt
    # PyG drops the fill value where there are no weights at all; see test_gcn_conv.py.
    weight = torch.ones(index.size(1)) if weight is None else weight
    expected, value = gcn_norm(index, weight, NODES, improved, loops)
    torch.testing.assert_close(
        factor.view(-1, 1) * dense_of(graph) * factor, dense(expected[1], expected[0], value)
    )


def test_negative_degrees_are_refused() -> None:
    """PyG goes on with NaN rows."""
    index = torch.tensor([[0, 1, 2], [1, 2, 1]])
    weight = torch.tensor([-2.5, 1.0, 0.25])
    for given in (weight, weight.clone().requires_grad_()):
        graph = as_graph(index, 3, edge_weight=given)
        with pytest.raises(GraphError, match=r"deg_inv_sqrt: node 1 .* -2\.25 "):
            _ = graph.deg_inv_sqrt
        with pytest.raises(GraphError, match=r"node 1 .* -1\.25 "):
            _ = graph.with_self_loops().deg_inv_sqrt


def test_isolated_nodes_have_zero_factors() -> None:
    graph = as_graph(edges(), NODES)
    assert graph.degree[7:].tolist() == graph.deg_inv_sqrt[7:].tolist() == [0, 0]
    assert graph.inverse_degree[7:].tolist() == [0, 0]
    assert graph.degree.sum() == graph.num_edges


def test_transposed_is_the_reversed_graph() -> None:
    graph = as_graph(edges(), NODES)
    indptr, indices, order = graph.transposed()
    reversed_graph = Graph(indptr, indices, NODES)
    assert torch.equal(dense_of(reversed_graph), dense_of(graph).t())
    assert torch.equal(graph.indices[order].long(), reversed_graph.rows)
    assert torch.equal(graph.rows[order].int(), indices)


def test_empty_graph() -> None:
    graph = as_graph(torch.zeros(2, 0, dtype=torch.int64), 3)
    assert (graph.num_edges, graph.max_degree) == (0, 0)
    assert graph.deg_inv_sqrt.tolist() == [0, 0, 0]
    assert graph.with_self_loops().indices.tolist() == [0, 1, 2]
    nothing = as_graph(torch.zeros(2, 0, dtype=torch.int64), 0)
    assert nothing.num_dst == nothing.max_degree == nothing.with_self_loops().num_edges == 0


def test_bipartite_graphs_have_no_gcn_normalisation() -> None:
    graph = as_graph(torch.tensor([[4, 0], [1, 0]]), 5, 2)
    with pytest.raises(GraphError, match="5 and 2"):
        _ = graph.deg_inv_sqrt
    assert graph.with_self_loops().num_edges == 3  # a loop on 0 was there; node 1 gets one


@pytest.mark.parametrize(("max_code", "max_weight"), [(255, 1), (255, 255), (15, 1), (1, 255)])
def test_accumulator_bound(max_code: int, max_weight: int) -> None:
    bound = (2**31 - 1) // (max_code * max_weight)
    # Only the row pointer is read: no need for 8 million edges.
    none = torch.zeros(0, dtype=torch.int32)
    fits = Graph(torch.tensor([0, 1, 1 + bound]), none, 2)
    fits.check_accumulator(max_code, max_weight)
    too_many = Graph(torch.tensor([0, 1, 2 + bound]), none, 2)
    with pytest.raises(AccumulatorOverflowError, match=rf"node 1 .*{bound + 1}, .*{bound}"):
        too_many.check_accumulator(max_code, max_weight)


def test_cached_for_follows_its_source() -> None:
    graph, source, calls = as_graph(edges(), NODES), torch.ones(2), []

    def make() -> Tensor:
        calls.append(1)
        return source * 2

    assert graph.cached_for(source, "k", make) is graph.cached_for(source, "k", make)
    source.add_(1)
    assert graph.cached_for(source, "k", make).tolist() == [4, 4]
    assert len(calls) == 2
    source.requires_grad_()
    graph.cached_for(source, "k", make)
    graph.cached_for(source, "k", make)
    assert len(calls) == 4


def test_pickle_leaves_the_cache_behind() -> None:
    graph = as_graph(edges(), NODES)
    degree = graph.degree
    copy = pickle.loads(pickle.dumps(graph))
    assert not copy._cache and torch.equal(copy.degree, degree)
    assert repr(copy) == "Graph(num_src=9, num_dst=9, num_edges=32)"


def test_edges_are_sources_of_their_own_rows() -> None:
    graph = as_graph(torch.tensor([[3, 1, 0, 1], [2, 0, 2, 0]]), 4)
    made = graph.by_edge()
    assert made.num_src == 4 and made.num_dst == 4 and made.indices.tolist() == [0, 1, 2, 3]
    assert torch.equal(made.indptr, graph.indptr) and graph.by_edge() is made
