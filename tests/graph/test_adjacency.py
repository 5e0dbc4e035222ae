"""Every adjacency form gives the same graph; malformed ones are named; conversions are shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import coalesce

from nodebits.core.errors import GraphError, NodeIndexError, ShapeError
from nodebits.graph import Graph, as_graph

SRC, DST = 8, 6


def edges() -> Tensor:
    """Sorted by source, without duplicates: sparse matrices keep neither order nor duplicates."""
    return coalesce(torch.stack([torch.randint(0, SRC, (20,)), torch.randint(0, DST - 1, (20,))]))


def transposed(index: Tensor, value: Tensor | None = None) -> Tensor:
    value = torch.ones(index.size(1)) if value is None else value
    return torch.sparse_coo_tensor(index.flip(0), value, (DST, SRC)).coalesce()


def sparse_tensor(index: Tensor) -> Any:
    torch_sparse = pytest.importorskip("torch_sparse")
    return torch_sparse.SparseTensor(row=index[1], col=index[0], sparse_sizes=(DST, SRC))


class CsrLike:
    """The interface of torch_sparse.SparseTensor that is used, for machines without it."""

    def __init__(self, index: Tensor, value: Tensor | None = None) -> None:
        matrix = transposed(index, value).to_sparse_csr()
        self.parts = (matrix.crow_indices(), matrix.col_indices(), None)

    def csr(self) -> tuple[Tensor, Tensor, None]:
        return self.parts

    def sparse_sizes(self) -> tuple[int, int]:
        return DST, SRC


FORMS: dict[str, Any] = {
    "int64": lambda index: index,
    "int32": lambda index: index.int(),
    "not contiguous": lambda index: index.t().contiguous().t(),
    "EdgeIndex": lambda index: EdgeIndex(index, sparse_size=(SRC, DST)),
    "coo": transposed,
    "csr": lambda index: transposed(index).to_sparse_csr(),
    "csc": lambda index: transposed(index).to_sparse_csc(),
    "SparseTensor": sparse_tensor,
    "SparseTensor's interface": CsrLike,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_agree(form: str) -> None:
    index = edges()
    expected = as_graph(index, SRC, DST)
    graph = as_graph(FORMS[form](index), SRC, DST)
    assert torch.equal(graph.indptr, expected.indptr) and graph.indptr.dtype == torch.int64
    assert torch.equal(graph.indices, expected.indices) and graph.indices.dtype == torch.int32
    assert (graph.num_src, graph.num_dst, graph.edge_weight) == (SRC, DST, None)


def test_rows_keep_the_order_and_the_duplicates() -> None:
    index = torch.tensor([[3, 0, 3, 1, 2, 3], [1, 1, 1, 0, 1, 4]])
    graph = as_graph(index, 5)
    assert graph.indptr.tolist() == [0, 1, 5, 5, 5, 6]
    assert graph.indices.tolist() == [1, 3, 0, 3, 2, 3]
    assert graph.perm is not None and graph.perm.tolist() == [3, 0, 1, 2, 4, 5]


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_weights_follow_their_edges(shape: tuple[int, ...]) -> None:
    index = torch.tensor([[3, 0, 3, 1, 2, 3], [1, 1, 1, 0, 1, 4]])
    graph = as_graph(index, 5, edge_weight=torch.arange(6.0).view(shape))
    assert graph.edge_weight is not None
    assert graph.edge_weight.tolist() == [3, 0, 1, 2, 4, 5]


def test_values_of_a_sparse_matrix_are_weights() -> None:
    index = edges()
    value = torch.rand(index.size(1)) + 0.1
    expected = as_graph(index, SRC, DST, edge_weight=value).edge_weight
    graph = as_graph(transposed(index, value), SRC, DST)
    assert graph.edge_weight is not None and expected is not None
    assert torch.equal(graph.edge_weight, expected)


def test_bad_types() -> None:
    index = edges()
    with pytest.raises(GraphError, match=r"dtype torch\.float32"):
        as_graph(index.float(), SRC, DST)
    with pytest.raises(GraphError, match="is a list"):
        as_graph(index.tolist(), SRC, DST)


@pytest.mark.parametrize("shape", [(3, 4), (4, 2), (8,), (1, 2, 4)])
def test_bad_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"expected \[2, num_edges\]"):
        as_graph(torch.zeros(shape, dtype=torch.int64), SRC, DST)


@pytest.mark.parametrize(
    ("row", "value", "text"),
    [
        (0, -1, r"edge_index\[0, 3\] is -1: source .*\[0, 7\] for 8"),
        (0, SRC, r"edge_index\[0, 3\] is 8: source"),
        (1, DST, r"edge_index\[1, 3\] is 6: target .*\[0, 5\] for 6"),
        (1, 2**40, r"is 1099511627776"),
    ],
)
def test_bad_indices(row: int, value: int, text: str) -> None:
    index = edges()
    index[row, 3] = value
    with pytest.raises(NodeIndexError, match=text):
        as_graph(index, SRC, DST)
    with pytest.raises(IndexError):
        as_graph(index, SRC, DST)


def test_bad_sizes() -> None:
    index = edges()
    graph = as_graph(index, SRC, DST)
    with pytest.raises(GraphError, match=r"8 sources and 6 targets.* 9 and 6"):
        as_graph(graph, SRC + 1, DST)
    with pytest.raises(GraphError, match=r"6 x 8.* 8 targets and 6 sources"):
        as_graph(transposed(index), DST, SRC)
    for adjacency in (index, graph):
        with pytest.raises(ShapeError, match=r"\[3\].* one value for each of the"):
            as_graph(adjacency, SRC, DST, edge_weight=torch.ones(3))
    with pytest.raises(ShapeError):
        as_graph(index, SRC, DST, edge_weight=torch.ones(index.size(1), 2).t().contiguous())


def test_conversion_is_shared() -> None:
    index = edges()
    graph = as_graph(index, SRC, DST)
    assert as_graph(index, SRC, DST) is graph
    assert as_graph(graph, SRC, DST) is graph
    assert as_graph(index.clone(), SRC, DST) is not graph
    assert as_graph(index, SRC + 1, DST) is not graph
    matrix = transposed(index)
    assert as_graph(matrix, SRC, DST) is as_graph(matrix, SRC, DST)


def test_in_place_edit_is_noticed() -> None:
    index = edges()
    before = as_graph(index, SRC, DST)
    index[1] = (index[1] + 1) % DST
    after = as_graph(index, SRC, DST)
    assert after is not before
    assert torch.equal(after.indices, as_graph(index.clone(), SRC, DST).indices)
    whole = torch.cat([index, index], 1)
    view = whole[:, : index.size(1)]
    assert as_graph(view, SRC, DST) is as_graph(view, SRC, DST)
    whole[0, 0] = (whole[0, 0] + 1) % SRC
    assert int(as_graph(view, SRC, DST).indices.long().sum()) == int(view[0].sum())


def test_a_dead_tensor_is_not_mistaken_for_a_new_one() -> None:
    for _ in range(50):  # freed memory is soon given out again, with the same id
        index = edges()
        assert int(as_graph(index, SRC, DST).indices.sum()) == int(index[0].sum())
        del index


def test_weighted_graphs_are_shared_too() -> None:
    index = edges()
    weight = torch.rand(index.size(1))
    graph = as_graph(index, SRC, DST, edge_weight=weight)
    assert as_graph(index, SRC, DST, edge_weight=weight) is graph
    weight.mul_(2)
    again = as_graph(index, SRC, DST, edge_weight=weight)
    assert again is not graph and again.edge_weight is not None
    assert torch.equal(again.edge_weight.sort().values, weight.sort().values)
    assert as_graph(index, SRC, DST).edge_weight is None


def test_weights_that_are_trained_are_not_remembered() -> None:
    index = edges()
    weight = torch.rand(index.size(1), requires_grad=True)
    first = as_graph(index, SRC, DST, edge_weight=weight)
    assert as_graph(index, SRC, DST, edge_weight=weight) is not first
    assert first.edge_weight is not None
    first.edge_weight.sum().backward()
    assert weight.grad is not None and weight.grad.eq(1).all()


def test_inference_tensors() -> None:
    with torch.inference_mode():
        index = edges().clone()
        graph = as_graph(index, SRC, DST, edge_weight=torch.rand(index.size(1)))
    assert isinstance(graph, Graph) and graph.num_edges == index.size(1)
