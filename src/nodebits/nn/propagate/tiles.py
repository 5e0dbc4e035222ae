"""Edges in order of their targets, a tile of whole targets at a time.

A layer's functions see a small graph: the edges of a tile, whose targets are numbered from 0, with
the rows of its sources and targets. The matrices with a row per edge that PyG makes are as large as
a tile, and stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import Parameter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nodebits.graph import Graph
from nodebits.nn.propagate.arguments import Call
from nodebits.nn.propagate.lifted import Lifted

# Floats of the widest matrix with a row per edge: four megabytes. Smaller ones stay in a nearer
# cache, but Python between the operators of a tile then costs more than that gains.
TILE_VALUES = 1 << 20
_LEAST_EDGES = 256


class Untileable(Exception):
    """Why a layer's functions do not run on tiles, in words."""


class Tile(NamedTuple):
    """Targets ``[first, last)`` and their edges ``[begin, end)`` in CSR order."""

    first: int
    last: int
    begin: int
    end: int


def tiles_of(graph: Graph, num_edges: int) -> Iterator[Tile]:
    """Cuts a graph.

    Args:
        graph: Its targets are kept whole.
        num_edges: Edges of a tile; more only where a single target has more.
    """
    indptr = graph.indptr.cpu().numpy()
    first, last_row = 0, graph.num_dst
    while first < last_row:
        limit = indptr[first] + num_edges
        last = int(np.searchsorted(indptr, limit, side="right")) - 1
        last = min(max(last, first + 1), first + num_edges, last_row)
        yield Tile(first, last, int(indptr[first]), int(indptr[last]))
        first = last


def tile_edges(width: int) -> int:
    """Edges of a tile whose widest matrix has ``width`` columns."""
    return max(TILE_VALUES // max(width, 1), _LEAST_EDGES)


class Tiled:
    """The arguments of a layer's functions, tile by tile.

    Args:
        call: What ``propagate`` was given.
        graph: Its edges.
        arguments: What the functions ask for, but for what PyG itself fills.
        nodes: Rows of nodes by argument with suffix; None where there is no tensor.
        edges: Rows of edges by argument, in the order of ``edge_index``.
    """

    def __init__(
        self,
        call: Call,
        graph: Graph,
        arguments: list[str],
        nodes: dict[str, Lifted | None],
        edges: dict[str, Lifted],
    ) -> None:
        self.call, self.graph, self.arguments = call, graph, arguments
        self.nodes, self.edges = nodes, edges

    @property
    def width(self) -> int:
        """Columns of the widest matrix that edges have."""
        parts = [*self.nodes.values(), *self.edges.values()]
        return max((part.width for part in parts if part is not None), default=1)

    @property
    def order(self) -> Tensor:
        """Positions of the edges in ``edge_index``, int32 ``[E]`` in CSR order."""

        def make() -> Tensor:
            perm = self.graph.perm
            if perm is None:
                return torch.arange(
                    self.graph.num_edges, dtype=torch.int32, device=self.graph.device
                )
            return perm.int()

        value: Tensor = self.graph.cached("order of edges", make)
        return value

    def of(self, tile: Tile) -> dict[str, Any]:
        """What the functions are given for a tile."""
        graph, call = self.graph, self.call
        begin, end = tile.begin, tile.end
        local = graph.rows[begin:end] - tile.first
        sources = graph.indices[begin:end].long()
        targets = tile.last - tile.first
        num_src = call.counts()[0]
        size = [targets, num_src] if call.source else [num_src, targets]
        ends = [graph.rows[begin:end], sources] if call.source else [sources, graph.rows[begin:end]]
        given: dict[str, Any] = {
            "index": local,
            "edge_index_i": local,
            "edge_index_j": sources,
            "edge_index": torch.stack(ends),
            "adj_t": None,
            "ptr": graph.indptr[tile.first : tile.last + 1] - begin,
            "size": size,
            "size_i": targets,
            "size_j": num_src,
            "dim_size": targets,
        }
        for argument in self.arguments:
            value = self._value(argument, tile, local)
            if value is not Parameter.empty:  # left out: the functions have a default
                given[argument] = value
        return given

    def _value(self, argument: str, tile: Tile, local: Tensor) -> Any:
        if argument in self.edges:
            return self.edges[argument].take(self.order, tile.begin, tile.end)
        if argument not in self.nodes:
            return self.call.values.get(argument, Parameter.empty)
        rows = self.nodes[argument]
        if rows is None:
            return None
        if argument[-1] == "j":
            return rows.take(self.graph.indices, tile.begin, tile.end)
        return rows.block(tile.first, tile.last).index_select(0, local)


class TiledResult:
    """What tiles made, put together as it comes: it is never held twice.

    Args:
        rows: Of all tiles together, as a rule.
        node_dim: The dimension of nodes; None for the first one, of edges.
    """

    def __init__(self, rows: int, node_dim: int | None) -> None:
        self._rows, self._node_dim = rows, node_dim
        self._whole: Tensor | None = None
        self._dim = self._known = 0

    def add(self, part: Tensor) -> None:
        """Takes what the next tile made.

        Raises:
            TypeError: If it has another type than what is there.
            RuntimeError: If it has another shape, or more rows than there may be.
        """
        if self._whole is None:
            dim = self._node_dim
            inside = dim is not None and -part.dim() <= dim < part.dim()
            self._dim = dim if inside and dim is not None else 0
            shape = list(part.shape)
            shape[self._dim] = self._rows
            self._whole = part.new_empty(shape)
        if part.dtype != self._whole.dtype:
            raise TypeError(f"tiles return {self._whole.dtype} and {part.dtype}")
        rows = part.size(self._dim)
        place = self._whole.narrow(self._dim, self._known, rows)
        if place.shape != part.shape:
            raise RuntimeError(f"a tile returns {list(part.shape)}, not {list(place.shape)}")
        place.copy_(part)
        self._known += rows

    @property
    def result(self) -> Tensor:
        """All of it."""
        assert self._whole is not None
        return self._whole.narrow(self._dim, 0, self._known)


class Attributes:
    """What a layer's functions leave on the layer: as a rule attention weights, ``_alpha``.

    A tensor with a row per edge of the tile is put together and set at the end; anything else is
    no business of a tile.

    Args:
        module: The layer.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._before = dict(vars(module))
        self._parts: dict[str, list[Tensor]] = {}

    def take(self, tile: Tile) -> None:
        """Looks at what the functions of a tile left.

        Raises:
            Untileable: If that is something else.
        """
        for name, value in vars(self._module).items():
            if self._before.get(name, self) is value:
                continue
            if not isinstance(value, Tensor) or not value.dim():
                raise Untileable(f"its functions change the attribute {name!r} of the layer")
            if value.size(0) != tile.end - tile.begin:
                raise Untileable(
                    f"its functions set the attribute {name!r} to {list(value.shape)}, which is no "
                    "row per edge"
                )
            self._parts.setdefault(name, []).append(value)
            self._before[name] = value

    def settle(self, graph: Graph) -> None:
        """Sets what was put together, in the order of the edges that were given.

        Raises:
            Untileable: If not all tiles left something.
        """
        for name, parts in self._parts.items():
            if sum(part.size(0) for part in parts) != graph.num_edges:
                raise Untileable(f"its functions set the attribute {name!r} for some edges only")
            vars(self._module)[name] = as_given(torch.cat(parts), graph)


def as_given(values: Any, graph: Graph) -> Any:
    """Rows of edges in CSR order, in the order in which the edges were given.

    Args:
        values: A tensor, or a tuple of them.
        graph: Its edges.
    """
    if isinstance(values, tuple):
        return tuple(as_given(part, graph) for part in values)
    if graph.perm is None or not values.numel():
        return values
    return torch.empty_like(values).index_copy(0, graph.perm, values)
