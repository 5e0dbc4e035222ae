"""From any adjacency form that PyG accepts to a :class:`Graph`.

Forms: ``edge_index`` (int ``[2, E]``, source then target) and ``EdgeIndex``;
    ``torch_sparse.SparseTensor`` and
``torch.sparse`` COO / CSR / CSC matrices, which PyG takes transposed (row = target); and
:class:`Graph` itself.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import GraphError, ShapeError
from nodebits.core.observer import check_finite
from nodebits.graph.csr import Graph, check_index
from nodebits.ops import coo_to_csr

# Conversions remembered by the identity of the adjacency, so that every layer and epoch shares one.
_CACHE_SIZE = 16
_cache: OrderedDict[Any, tuple[Any, Graph]] = OrderedDict()


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
        GraphError: On a wrong type, dtype, shape or size.
        NodeIndexError: On an index outside the graph.
    """
    num_dst = num_src if num_dst is None else num_dst
    if isinstance(adjacency, Graph):
        _check_size(adjacency, num_src, num_dst)
        if edge_weight is None:
            return adjacency
        return _with_weight(adjacency, edge_weight)
    key = _key(adjacency, num_src, num_dst)
    entry = _cache.get(key)
    if entry is not None and entry[0]() is adjacency:
        _cache.move_to_end(key)
        graph = entry[1]
    else:
        graph = _convert(adjacency, num_src, num_dst)
        try:
            _cache[key] = (weakref.ref(adjacency), graph)
        except TypeError:  # not weakly referenceable: convert every time
            pass
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return graph if edge_weight is None else _with_weight(graph, edge_weight)


def _key(adjacency: Any, num_src: int, num_dst: int) -> Any:
    # In-place edits raise the version of a tensor, so a stale conversion is not found again.
    version = -1
    if isinstance(adjacency, Tensor) and not adjacency.is_inference():
        version = adjacency._version
    return id(adjacency), version, num_src, num_dst


def _check_size(graph: Graph, num_src: int, num_dst: int) -> None:
    if graph.num_src != num_src or graph.num_dst != num_dst:
        raise GraphError(
            f"the graph was prepared for {graph.num_src} sources and {graph.num_dst} targets, but "
            "the "
            f"features have {num_src} and {num_dst} rows: prepare it again for these nodes"
        )


def _convert(adjacency: Any, num_src: int, num_dst: int) -> Graph:
    if hasattr(adjacency, "csr") and hasattr(
        adjacency, "sparse_sizes"
    ):  # torch_sparse.SparseTensor
        indptr, indices, value = adjacency.csr()
        rows, cols = adjacency.sparse_sizes()
        return _from_csr(indptr, indices, value, (rows, cols), num_src, num_dst)
    if not isinstance(adjacency, Tensor):
        raise GraphError(
            f"adjacency is a {type(adjacency).__name__}: pass edge_index [2, E], an EdgeIndex, a "
            "SparseTensor, a torch.sparse matrix (row = target) or a prepared graph"
        )
    if adjacency.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        csr = adjacency.to_sparse_csr()
        size = (csr.size(0), csr.size(1))
        return _from_csr(
            csr.crow_indices(), csr.col_indices(), csr.values(), size, num_src, num_dst
        )
    edge_index = adjacency.as_tensor() if hasattr(adjacency, "as_tensor") else adjacency
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise GraphError(f"edge_index has shape {list(edge_index.shape)}: expected [2, num_edges]")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise GraphError(
            f"edge_index has dtype {edge_index.dtype}: node indices are int64 (use .long())"
        )
    edge_index = edge_index.long()
    check_index(edge_index, num_src, num_dst)
    indptr, indices, perm = coo_to_csr(edge_index[1], edge_index[0], num_dst)
    return Graph(indptr, indices, num_src, perm)


def _from_csr(
    indptr: Tensor,
    indices: Tensor,
    value: Tensor | None,
    size: tuple[int, int],
    num_src: int,
    num_dst: int,
) -> Graph:
    if size != (num_dst, num_src):
        raise GraphError(
            f"the sparse adjacency is {size[0]} x {size[1]}, but there are {num_dst} targets and "
            f"{num_src} "
            "sources (rows are targets: pass the transposed adjacency, as PyG does)"
        )
    weight = None
    if value is not None and not (value.numel() == 0 or bool((value == 1).all())):
        weight = value.float()
    return Graph(indptr.long(), indices.int(), num_src, None, weight, value is not None)


def _with_weight(graph: Graph, edge_weight: Tensor) -> Graph:
    weight = edge_weight.view(-1) if edge_weight.dim() == 2 else edge_weight
    version = -1 if edge_weight.is_inference() else edge_weight._version
    remembered = graph.cached("weighted", dict)
    entry = remembered.get("last")
    if entry is not None and entry[0]() is edge_weight and entry[1] == version:
        weighted: Graph = entry[2]
        return weighted
    if weight.dim() != 1 or weight.numel() != graph.num_edges:
        raise ShapeError(
            f"edge_weight has shape {list(edge_weight.shape)}: expected one value for each of the "
            f"{graph.num_edges} edges"
        )
    weight = weight.float()
    check_finite(weight, "edge_weight")
    if graph.perm is not None:
        weight = weight[graph.perm]
    result = Graph(graph.indptr, graph.indices, graph.num_src, graph.perm, weight)
    if not edge_weight.requires_grad:
        remembered["last"] = (weakref.ref(edge_weight), version, result)
    return result
