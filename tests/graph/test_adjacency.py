"""Every adjacency form gives the same graph; malformed ones are named; conversions are shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import coalesce

from nodebits.core.errors import GraphError, NodeIndexError, NonFiniteError, ShapeError
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
    with pytest.raises(ShapeError, match="one value for each of the"):  # as many, but not by edge
        as_graph(index, SRC, DST, edge_weight=torch.ones(1, index.size(1)))


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


def hostile(layout: str, **parts: Any) -> Tensor:
    """A matrix that torch did not look at: two entries per row unless ``parts`` says otherwise."""
    count = 2 * DST
    ptr, many = torch.arange(0, count + 1, 2), torch.arange(count) % DST
    if layout == "coo":
        index = parts.get("index", torch.stack([many, many]))
        values = parts.get("values", torch.ones(count))
        return torch.sparse_coo_tensor(
            index, values, (DST, DST), check_invariants=False, is_coalesced=parts.get("flag", False)
        )
    make = torch.sparse_csr_tensor if layout == "csr" else torch.sparse_csc_tensor
    made: Tensor = make(
        parts.get("ptr", ptr),
        parts.get("index", many),
        parts.get("values", torch.ones(count)),
        (DST, DST),
        check_invariants=False,
    )
    return made


def edited(t: Tensor, at: int, value: int) -> Tensor:
    t = t.clone()
    t.view(-1)[at] = value
    return t


PTR, INDEX = torch.arange(0, 2 * DST + 1, 2), torch.arange(2 * DST) % DST
HOSTILE: dict[str, tuple[str, dict[str, Any], str]] = {
    "coo, negative": ("coo", {"index": edited(INDEX.repeat(2, 1), 0, -5)}, r"\[0\] is -5"),
    "coo, beyond": ("coo", {"index": edited(INDEX.repeat(2, 1), 13, 10**9)}, "1000000000"),
    "coo, flagged": ("coo", {"index": edited(INDEX.repeat(2, 1), 0, 99), "flag": True}, "99"),
}
for _layout in ("csr", "csc"):
    HOSTILE |= {
        f"{_layout}, index beyond": (_layout, {"index": edited(INDEX, 3, 2 * 10**9)}, "2000000000"),
        f"{_layout}, negative index": (_layout, {"index": edited(INDEX, 3, -1)}, "is -1"),
        f"{_layout}, falls": (_layout, {"ptr": edited(PTR, 2, 10)}, "falls from 10 to 6 at row 2"),
        f"{_layout}, not from 0": (_layout, {"ptr": edited(PTR, 0, 1)}, "from 1 to 12"),
        f"{_layout}, ends beyond": (_layout, {"ptr": edited(PTR, DST, 10**12)}, "1000000000000"),
        f"{_layout}, ends before": (_layout, {"ptr": edited(PTR, DST, 11)}, "to the number of"),
        f"{_layout}, short pointer": (_layout, {"ptr": PTR[:3]}, "has 3 entries for 6 rows"),
        f"{_layout}, no pointer": (_layout, {"ptr": PTR[:0]}, "has 0 entries"),
        f"{_layout}, few values": (_layout, {"values": torch.ones(3)}, r"\[3\] for 12 entries"),
        f"{_layout}, wide values": (_layout, {"values": torch.ones(12, 2)}, "one value each|shape"),
        f"{_layout}, NaN": (_layout, {"values": torch.ones(12) / 0}, "infinite"),
        f"{_layout}, complex": (_layout, {"values": torch.ones(12) * 1j}, "complex64"),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_matrices_that_nobody_validated(name: str) -> None:
    layout, parts, text = HOSTILE[name]
    with pytest.raises((GraphError, NodeIndexError, NonFiniteError), match=text):
        as_graph(hostile(layout, **parts), DST)


def test_a_coo_matrix_is_not_believed_to_be_coalesced() -> None:
    """PyG's layers set the flag on matrices that are not."""
    index = torch.tensor([[3, 0, 3, 0], [1, 2, 1, 0]])
    graph = as_graph(hostile("coo", index=index, values=torch.arange(4.0), flag=True), DST)
    assert graph.indptr.tolist() == [0, 2, 2, 2, 3, 3, 3]
    assert graph.indices.tolist() == [0, 2, 1] and graph.edge_weight is not None
    assert graph.edge_weight.tolist() == [3, 1, 2]


@pytest.mark.parametrize("shape", [(2, DST, DST), (DST, DST, 2)])
def test_batched_and_hybrid_matrices(shape: tuple[int, ...]) -> None:
    matrix = torch.ones(shape).to_sparse_csr(dense_dim=0 if shape[0] == 2 else 1)
    for adjacency in (matrix, torch.ones(shape).to_sparse(2)):
        with pytest.raises(GraphError, match="one matrix"):
            as_graph(adjacency, DST)
    with pytest.raises(GraphError, match="layout"):
        as_graph(torch.ones(DST, DST).to_sparse_bsr((2, 2)), DST)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
@pytest.mark.parametrize("nodes", [0, DST])
def test_matrices_without_entries(layout: torch.layout, nodes: int) -> None:
    graph = as_graph(torch.zeros(nodes, nodes).to_sparse(layout=layout), nodes)
    assert (graph.num_edges, graph.num_dst, graph.edge_weight) == (0, nodes, None)


def test_transposed_layouts_and_small_indices() -> None:
    matrix = (torch.rand(DST, DST) < 0.4).float()
    expected = as_graph(matrix.to_sparse_csr(), DST)
    csr = matrix.to_sparse_csr()
    int32 = torch.sparse_csr_tensor(
        csr.crow_indices().int(), csr.col_indices().int(), csr.values(), csr.shape
    )
    for form in (matrix.t().contiguous().to_sparse_csr().t(), matrix.t().to_sparse().t(), int32):
        graph = as_graph(form, DST)
        assert torch.equal(graph.indptr, expected.indptr)
        assert torch.equal(graph.indices, expected.indices)


class Lying(CsrLike):
    def __init__(self, **parts: Tensor) -> None:
        super().__init__(edges())
        indptr, indices, _ = self.parts
        self.parts = (parts.get("ptr", indptr), parts.get("index", indices), None)


def test_sparse_tensors_are_validated() -> None:
    indptr, indices, _ = CsrLike(edges()).parts
    for parts in (
        {"ptr": edited(indptr, 2, 10**9)},
        {"ptr": indptr[:-1]},
        {"index": edited(indices, 0, SRC)},
        {"index": edited(indices, 0, -1)},
        {"index": indices[:-1]},
    ):
        with pytest.raises((GraphError, NodeIndexError)):
            as_graph(Lying(**parts), SRC, DST)


def test_an_edge_index_that_names_another_size() -> None:
    with pytest.raises(GraphError, match="sparse_size"):
        as_graph(EdgeIndex(edges(), sparse_size=(SRC, DST)), SRC + 1, DST)
    index = edges()
    assert as_graph(EdgeIndex(index), SRC, DST).num_edges == index.size(1)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"indices": edited(INDEX, 1, 77).int()}, "77"),
        ({"indptr": edited(PTR, 2, 10)}, "indptr"),
        ({"indptr": PTR[:3]}, "4 targets|2 targets|indptr"),
        ({"indices": INDEX}, "int64"),
        ({"perm": INDEX + 50}, "perm"),
        ({"edge_weight": torch.ones(3)}, "3 values for 12 edges"),
        ({"edge_weight": torch.ones(12) / 0}, "infinite"),
    ],
)
def test_graphs_made_by_hand_are_checked_at_the_first_use(parts: dict[str, Any], text: str) -> None:
    graph = Graph(**{"indptr": PTR, "indices": INDEX.int(), "num_src": DST, **parts})
    with pytest.raises((GraphError, NodeIndexError, NonFiniteError), match=text):
        as_graph(graph, DST)


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        ([1.0] * 20, "is a list"),
        (torch.ones(20).numpy(), "is a ndarray"),
        (torch.ones(20).to_sparse(), "sparse_coo"),
        (torch.ones(20, 1).expand(20, 4), r"\[20, 4\]"),
        (torch.tensor(1.0), r"\[\]"),
        (torch.ones(20) * 1j, "complex64"),
        (torch.ones(20, device="meta"), "on meta, the graph on cpu"),
        (torch.full((20,), 1e300, dtype=torch.float64), "infinite"),
    ],
)
def test_bad_weights(weight: Any, text: str) -> None:
    index = torch.stack([torch.arange(20) % SRC, torch.arange(20) % DST])
    with pytest.raises((GraphError, ShapeError, NonFiniteError), match=text):
        as_graph(index, SRC, DST, edge_weight=weight)
    strided = torch.rand(20, 4)[:, :1]
    graph = as_graph(index, SRC, DST, edge_weight=strided)
    assert graph.edge_weight is not None and graph.perm is not None
    assert torch.equal(graph.edge_weight, strided.reshape(-1)[graph.perm])
