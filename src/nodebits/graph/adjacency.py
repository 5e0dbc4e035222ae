"""From any adjacency form that PyG accepts to a :class:`Graph`.

Forms: ``edge_index`` (int ``[2, E]``, source then target) and ``EdgeIndex``;
``torch_sparse.SparseTensor`` and ``torch.sparse`` COO / CSR / CSC matrices, which PyG takes
transposed (row = target); and :class:`Graph` itself. A graph owns its arrays. Nothing that came
from outside is trusted: torch makes sparse matrices whose indices nobody looked at, and PyG marks
matrices as coalesced that are not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.context import current
from nodebits.core.errors import GraphError, ShapeError
from nodebits.core.memory import check_memory
from nodebits.core.observer import check_finite
from nodebits.graph.csr import Graph
from nodebits.graph.index_range import check_index, check_range
from nodebits.graph.loops import EDGE_INDEX, MATRIX, SPARSE_TENSOR
from nodebits.graph.memo import Memo, plain
from nodebits.ops import coo_to_csr

# Shared by all layers and epochs.
_CACHE_SIZE = 16
_cache = Memo(_CACHE_SIZE)
# Of edges that this library made of a graph.
_made = Memo(_CACHE_SIZE)
# Edge weights of one graph that are remembered.
_WEIGHTS = 4

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
_INTEGERS = (torch.int64, torch.int32)


def as_graph(
    adjacency: Any, num_src: int, num_dst: int | None = None, edge_weight: Tensor | None = None
) -> Graph:
    """Converts an adjacency, or returns the :class:`Graph` it was converted to before.

    Args:
        adjacency: Any form listed in the module's head.
        num_src: Number of source nodes.
        num_dst: Number of target nodes; default ``num_src``.
        edge_weight: float ``[E]`` or ``[E, 1]``, in the order of ``edge_index``.

    Returns:
        The graph, with ``edge_weight`` in CSR order.

    Raises:
        GraphError: On a wrong type, dtype, shape, size or structure.
        NodeIndexError: On an index outside the graph.
        ShapeError: If ``edge_weight`` is not a value per edge.
        NonFiniteError: If an edge weight is NaN or infinite.
    """
    num_dst = num_src if num_dst is None else num_dst
    recorder = current().recorder
    if recorder is not None and not recorder.hidden:
        made: Graph = recorder.graph(adjacency, num_src, num_dst, edge_weight)
        return made
    if isinstance(adjacency, Graph):
        _check_size(adjacency, num_src, num_dst)
        graph = adjacency.validate()
    else:
        _check_form(adjacency)

        def convert() -> Graph:
            made = _convert(adjacency, num_src, num_dst)
            made.checked = True
            return made

        own: Graph | None = _made.get(adjacency, (num_src, num_dst), owned=True)
        if own is not None:
            graph = own
        elif getattr(adjacency, "requires_grad", False) is True:
            graph = convert()
        else:
            graph = _cache.recall(adjacency, (num_src, num_dst), convert)
    return graph if edge_weight is None else _with_weight(graph, edge_weight)


def as_edges(graph: Graph) -> Tensor:
    """The edges ``[2, E]`` of a graph, in their order; :func:`as_graph` knows them as this graph.

    For modules that do with an ``edge_index`` what can be done with tensors alone.
    """
    edges = graph.edge_index()
    _made.put(edges, (graph.num_src, graph.num_dst), graph, owned=True)
    return edges


def _check_size(graph: Graph, num_src: int, num_dst: int) -> None:
    if graph.num_src != num_src or graph.num_dst != num_dst:
        raise GraphError(
            f"the graph was prepared for {graph.num_src} sources and {graph.num_dst} targets, but "
            "the "
            f"features have {num_src} and {num_dst} rows: prepare it again for these nodes"
        )


def is_sparse_tensor(adjacency: Any) -> bool:
    """Whether it has the methods of torch-sparse's ``SparseTensor``."""
    return hasattr(adjacency, "csr") and hasattr(adjacency, "sparse_sizes")


def _check_form(adjacency: Any) -> None:
    """Refuses what no reader of this module takes, before anything looks at its content."""
    if is_sparse_tensor(adjacency):
        return
    if not isinstance(adjacency, Tensor):
        raise GraphError(
            f"adjacency is a {type(adjacency).__name__}: pass edge_index [2, E], an EdgeIndex, a "
            "SparseTensor, a torch.sparse matrix (row = target) or a prepared graph"
        )
    if adjacency.is_meta:
        raise GraphError("the adjacency is on the meta device, which holds no indices")
    check_memory(adjacency, "the adjacency")
    if adjacency.is_nested:
        raise GraphError("the adjacency is a nested tensor: pass torch.stack([source, target])")
    if adjacency.layout != torch.strided and adjacency.layout not in _LAYOUTS:
        raise GraphError(
            f"the sparse adjacency has the layout {adjacency.layout}: COO, CSR and CSC are taken "
            "(use .to_sparse_csr())"
        )


def _convert(adjacency: Any, num_src: int, num_dst: int) -> Graph:
    if is_sparse_tensor(adjacency):
        return _from_sparse_tensor(adjacency, num_src, num_dst)
    if adjacency.layout != torch.strided:
        return _from_matrix(adjacency, num_src, num_dst)
    known = adjacency.sparse_size() if hasattr(adjacency, "sparse_size") else (None, None)
    for size, nodes, what in zip(known, (num_src, num_dst), ("sources", "targets"), strict=True):
        if size is not None and size != nodes:
            raise GraphError(
                f"the EdgeIndex has sparse_size {tuple(known)}, but there are {nodes} {what}"
            )
    edge_index = plain(adjacency)
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise GraphError(f"edge_index has shape {list(edge_index.shape)}: expected [2, num_edges]")
    if edge_index.dtype not in _INTEGERS:
        raise GraphError(
            f"edge_index has dtype {edge_index.dtype}: node indices are int64 (use .long())"
        )
    edge_index = edge_index.long()
    check_index(edge_index, num_src, num_dst)
    indptr, indices, perm = coo_to_csr(edge_index[1], edge_index[0], num_dst)
    return Graph(indptr, indices, num_src, perm)


def _from_sparse_tensor(adjacency: Any, num_src: int, num_dst: int) -> Graph:
    sizes = adjacency.sparse_sizes()
    _check_sizes((sizes[0], sizes[1]), num_src, num_dst)
    indptr, indices, value = adjacency.csr()
    _check_rows(indptr, indices, value, num_dst, "rowptr")
    check_range(indices, num_src, "col")
    weight = None if value is None else _unless_ones(_weights(value))
    return Graph(
        indptr.to(torch.int64, copy=True),
        indices.to(torch.int32, copy=True),
        num_src,
        None,
        weight,
        SPARSE_TENSOR,
    )


def _from_matrix(adjacency: Tensor, num_src: int, num_dst: int) -> Graph:
    """The entries of a matrix by row and column.

    Those that stand twice are summed in COO, whatever its flag says. In CSR and CSC, which torch
    does not coalesce, they stay several edges, as PyG's means and softmaxes count them. Torch's own
    conversions trust the indices, so they are not used before all is checked.
    """
    if adjacency.dim() != 2:
        raise GraphError(
            f"the sparse adjacency has shape {list(adjacency.shape)}: expected one matrix "
            f"[{num_dst}, {num_src}] of single values"
        )
    _check_sizes((adjacency.size(0), adjacency.size(1)), num_src, num_dst)
    if adjacency.layout == torch.sparse_coo:
        index, value = adjacency._indices(), adjacency._values()
        if index.dim() != 2 or index.size(0) != 2 or index.dtype not in _INTEGERS:
            raise GraphError(
                f"the sparse adjacency has indices {index.dtype} {list(index.shape)}: expected "
                "int64 [2, entries], one value each"
            )
        row, col = index[0].long(), index[1].long()
        _check_values(value, row.numel())
    elif adjacency.layout == torch.sparse_csr:
        pointer, col, value = adjacency.crow_indices(), adjacency.col_indices(), adjacency.values()
        _check_rows(pointer, col, value, num_dst, "crow_indices")
        row, col = _expanded(pointer), col.long()
    else:
        pointer, row, value = adjacency.ccol_indices(), adjacency.row_indices(), adjacency.values()
        _check_rows(pointer, row, value, num_src, "ccol_indices")
        row, col = row.long(), _expanded(pointer)
    check_range(row, num_dst, "row indices of the sparse adjacency")
    check_range(col, num_src, "column indices of the sparse adjacency")
    weight = _weights(value)
    key = row * num_src + col
    if not bool((key[1:] > key[:-1]).all()):
        if adjacency.layout == torch.sparse_coo:
            key, place = key.unique(return_inverse=True)
            weight = weight.new_zeros(key.numel()).index_add(0, place, weight)
        else:
            key, order = key.sort(stable=True)
            weight = weight.index_select(0, order)
        row, col = key // num_src, key % num_src
    indptr, indices, _ = coo_to_csr(row, col, num_dst)
    return Graph(indptr, indices, num_src, None, _unless_ones(weight), MATRIX)


def _check_sizes(size: tuple[int, int], num_src: int, num_dst: int) -> None:
    if size != (num_dst, num_src):
        raise GraphError(
            f"the sparse adjacency is {size[0]} x {size[1]}, but there are {num_dst} targets and "
            f"{num_src} "
            "sources (rows are targets: pass the transposed adjacency, as PyG does)"
        )


def _check_rows(pointer: Tensor, index: Tensor, value: Tensor | None, rows: int, name: str) -> None:
    """Checks that ``pointer`` cuts ``index`` into rows, and the dtypes of both."""
    for what, t in ((name, pointer), ("indices", index)):
        if t.dtype not in _INTEGERS or t.dim() != 1:
            raise GraphError(
                f"{what} of the sparse adjacency are {t.dtype} {list(t.shape)}: expected int64 "
                "with one dimension"
            )
    count = index.numel()
    if pointer.numel() != rows + 1:
        raise GraphError(
            f"{name} of the sparse adjacency has {pointer.numel()} entries for {rows} rows: "
            "expected one more than rows"
        )
    if int(pointer[0]) != 0 or int(pointer[-1]) != count:
        raise GraphError(
            f"{name} of the sparse adjacency goes from {int(pointer[0])} to {int(pointer[-1])}: "
            f"expected 0 to the number of entries, {count}"
        )
    falls = (pointer[1:] < pointer[:-1]).nonzero()
    if falls.numel():
        at = int(falls[0])
        raise GraphError(
            f"{name} of the sparse adjacency falls from {int(pointer[at])} to "
            f"{int(pointer[at + 1])} at row {at}: it must not decrease"
        )
    if value is not None:
        _check_values(value, count)


def _check_values(value: Tensor, count: int) -> None:
    if value.dim() != 1 or value.numel() != count:
        raise GraphError(
            f"the sparse adjacency has values {list(value.shape)} for {count} entries: expected "
            "one value each"
        )


def _expanded(pointer: Tensor) -> Tensor:
    rows = torch.arange(pointer.numel() - 1, device=pointer.device)
    return torch.repeat_interleave(rows, pointer.long().diff())


def _weights(value: Tensor) -> Tensor:
    """Values as weights of the graph's own."""
    if value.is_complex():
        raise GraphError(f"edge weights are {value.dtype}: expected real numbers")
    weight = value.to(torch.float32, copy=True)
    check_finite(weight.detach(), "the values of the sparse adjacency")
    return weight


def _unless_ones(weight: Tensor) -> Tensor | None:
    return None if not weight.requires_grad and bool((weight == 1).all()) else weight


def _with_weight(graph: Graph, edge_weight: Tensor) -> Graph:
    if not isinstance(edge_weight, Tensor) or edge_weight.layout != torch.strided:
        kind = getattr(edge_weight, "layout", type(edge_weight).__name__)
        raise GraphError(
            f"edge_weight is a {kind}: pass a float tensor with one value for each of the "
            f"{graph.num_edges} edges (torch.as_tensor)"
        )
    if graph.form != EDGE_INDEX:
        raise GraphError(
            f"the adjacency is a {graph.form} matrix, whose values are its edge weights: "
            "edge_weight is for an edge_index and cannot be given too"
        )
    if tuple(edge_weight.shape) not in ((graph.num_edges,), (graph.num_edges, 1)):
        raise ShapeError(
            f"edge_weight has shape {list(edge_weight.shape)}: expected one value for each of the "
            f"{graph.num_edges} edges"
        )
    check_memory(edge_weight, "edge_weight")
    if edge_weight.is_complex():
        raise GraphError(f"edge_weight is {edge_weight.dtype}: expected real numbers")
    if edge_weight.device != graph.device:
        raise GraphError(
            f"edge_weight is on {edge_weight.device}, the graph on {graph.device}: move both to "
            "one device"
        )

    def make() -> Graph:
        weight = edge_weight.reshape(-1).to(torch.float32, copy=True)
        check_finite(weight.detach(), "edge_weight")
        if graph.perm is not None:
            weight = weight[graph.perm]
        made = Graph(graph.indptr, graph.indices, graph.num_src, graph.perm, weight)
        made.checked, made.origin = True, graph.origin
        return made

    if edge_weight.requires_grad:
        return make()
    remembered: Memo = graph.cached("weighted", lambda: Memo(_WEIGHTS))
    return remembered.recall(edge_weight, None, make)
