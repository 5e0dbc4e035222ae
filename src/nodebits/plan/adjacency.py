"""Graphs among the arguments that are no ``edge_index``: sparse matrices, and prepared graphs.

Their rows are known, so a plan takes those. Layers treat the loops and values of a ``torch.sparse``
matrix, of a ``SparseTensor`` and of an ``edge_index`` differently: a plan is for one of them, and
for edges with weights or without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.graph import Graph, ReorderedGraph
from nodebits.graph.adjacency import as_graph, is_sparse_tensor
from nodebits.graph.loops import EDGE_INDEX, MATRIX


@dataclass(frozen=True)
class Adjacency:
    """What a graph was given as, whatever its edges.

    Attributes:
        source: Layout of a ``torch.sparse`` matrix, class of a ``SparseTensor``, None for a
            prepared graph.
        form: Of the :class:`Graph` that it is.
        weighted: Whether its edges have weights.
    """

    source: Any
    form: str
    weighted: bool

    def made(self, edges: Tensor, weight: Tensor | None, num_src: int, num_dst: int) -> Any:
        """One of its kind.

        Args:
            edges: int64 ``[2, E]``, sources and targets; sorted by target, then by source, unless
                the form is that of an ``edge_index``.
            weight: float32 ``[E]``, where edges have weights.
            num_src: Number of sources.
            num_dst: Number of targets.
        """
        if self.source is None and self.form == EDGE_INDEX:
            return as_graph(edges, num_src, num_dst, weight)
        sources, targets = edges
        size = (num_dst, num_src)
        values = torch.ones(edges.size(1), device=edges.device) if weight is None else weight
        if self.source is torch.sparse_coo:
            return torch.sparse_coo_tensor(edges.flip(0), values, size).coalesce()
        if self.source is torch.sparse_csc:
            order = sources.sort(stable=True).indices
            entries = targets[order], values[order]
            return torch.sparse_csc_tensor(_pointer(sources, num_src), *entries, size)
        pointer = _pointer(targets, num_dst)
        if self.source is torch.sparse_csr:
            return torch.sparse_csr_tensor(pointer, sources, values, size)
        if self.source is None:
            return Graph(pointer, sources.int(), num_src, None, weight, self.form)
        try:
            return self.source(row=targets, col=sources, value=weight, sparse_sizes=size)
        except TypeError:  # some other class with the methods of torch-sparse's
            return _Rows(pointer, sources, weight, size)


class Given(NamedTuple):
    """An argument that became a graph.

    Attributes:
        kind: What it was.
        graph: The graph.
    """

    kind: Adjacency
    graph: Graph


class _Rows:
    """What this library asks of a ``SparseTensor``."""

    def __init__(
        self, pointer: Tensor, sources: Tensor, weight: Tensor | None, size: tuple[int, int]
    ) -> None:
        self._rows, self._size = (pointer, sources, weight), size

    def csr(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pointers, columns and values."""
        return self._rows

    def sparse_sizes(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._size


def is_sparse(value: Any) -> bool:
    """Whether ``value`` is a sparse matrix on the CPU, of torch or of torch-sparse."""
    if isinstance(value, Tensor):
        return value.layout != torch.strided and value.device.type == "cpu"
    return not isinstance(value, Graph) and is_sparse_tensor(value)


def as_given(args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments in which square sparse matrices are :class:`Given` graphs; by type also others.

    Raises:
        NodebitsError: If one is no adjacency matrix.
    """
    given = {name: _given(value) for name, value in keywords.items()}
    return [_given(value) for value in args], given


def _given(value: Any, by_type: bool = False) -> Any:
    if type(value) is dict:
        return {key: _given(part, True) for key, part in value.items()}
    if not is_sparse(value):
        return value
    dense = isinstance(value, Tensor)
    rows, cols = value.shape[:2] if dense and value.dim() == 2 else (0, 1)
    if not dense:
        rows, cols = value.sparse_sizes()
    if rows != cols and not (by_type and rows):
        return value
    graph = as_graph(value, cols, rows)
    return Given(kind_of_graph(graph, value.layout if dense else type(value)), graph)


def kind_of_graph(graph: Graph, source: Any = None) -> Adjacency:
    """What a graph is, made of a matrix of the layout or class ``source``."""
    return Adjacency(source, graph.form, graph.edge_weight is not None)


def given_graph(value: Any) -> Given | None:
    """An argument as a graph; None for what is no graph, or one of an ``edge_index`` alone."""
    if isinstance(value, Given):
        return value
    plain = not isinstance(value, Graph) or isinstance(value, ReorderedGraph)
    if plain or (value.form == EDGE_INDEX and value.edge_weight is None):
        return None
    return Given(kind_of_graph(value), value)


def edges_of(graph: Graph) -> tuple[Tensor, Tensor | None]:
    """The edges of a graph in the order they were given in, and their weights."""
    edges: Tensor = graph.cached("edge_index", graph.edge_index)
    weight = graph.edge_weight
    if weight is not None and graph.perm is not None:
        weight = torch.empty_like(weight).index_copy(0, graph.perm, weight)
    return edges, None if weight is None else weight.detach()


def is_simple(graph: Graph) -> bool:
    """Whether no entry of a matrix stands twice: layers that drop its values count such once."""

    def look() -> bool:
        key = graph.rows * graph.num_src + graph.indices
        ascending = bool((key[1:] > key[:-1]).all())
        return ascending or key.unique().numel() == key.numel()

    return graph.form != MATRIX or bool(graph.cached("simple", look))


def _pointer(rows: Tensor, count: int) -> Tensor:
    ends = torch.bincount(rows, minlength=count).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])
