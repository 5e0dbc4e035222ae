"""Examples of arguments by type: dictionaries, and PyG's ``Data`` and ``HeteroData``.

Every type of nodes and of edges has a size of its own in an example, and another one in every
repetition: a number that is seen in a forward is then that of one type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.engine.packed_input import PackedInput
from nodebits.graph import Graph, ReorderedGraph
from nodebits.plan.adjacency import edges_of, given_graph
from nodebits.plan.containers import Container, Leaf, Place, Unfit, leaves_of
from nodebits.plan.cut import Cut, cut
from nodebits.plan.example import Argument, Example, NoExample, TooSmall

# Edges of a type, fewer where there are many types, and nodes of one.
_MOST_EDGES, _LEAST_EDGES, _LEAST_NODES = 37, 9, 5
_ADJACENCY, _OF_EDGES = ("edge_index", "adj"), ("edge", "adj")
_PAIRS = "edge_label"  # that are to be scored


def typed_example(given: Sequence[tuple[int | str, str, Any]]) -> Example:
    """A small example.

    Args:
        given: Place, name and value of every argument.

    Raises:
        NoExample: If there is none to be made.
    """
    containers: dict[int | str, Container] = {}
    leaves: list[Leaf] = []
    for top, name, value in given:
        try:
            container, found = leaves_of(top, name, value)
        except Unfit as error:
            raise NoExample(str(error)) from error
        if container is not None:
            containers[top] = container
        leaves += found
    names = [leaf.name for leaf in leaves]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise NoExample(f"two types of its data are both called {twice!r}")
    return _Taking(leaves, containers).example()


class _Taking:
    """Which arguments are what, and which of their rows are kept."""

    def __init__(self, leaves: list[Leaf], containers: dict[int | str, Container]) -> None:
        self._leaves, self._containers = leaves, containers
        self._edges: dict[tuple[str, ...], Leaf] = {}
        self._counts: dict[str, int] = {}
        self._left_out: set[Place] = set()
        named = {_edge_type(leaf) for leaf in leaves if _is_named_edges(leaf)}
        for leaf in leaves:
            self._look_at_edges(leaf, named)
        for wide in (True, False):
            for leaf in leaves:
                self._count(leaf, wide)
        if not self._edges:
            raise NoExample("it was given no edges by type")

    def _look_at_edges(self, leaf: Leaf, named: set[tuple[str, ...] | None]) -> None:
        """Notes edges of a type; of types without PyG's names whatever has their form."""
        if isinstance(leaf.value, ReorderedGraph):
            raise NoExample("its graph is reordered")
        of = _edge_type(leaf)
        if of is None or not _is_edges(leaf.value) or leaf.key.startswith(_PAIRS):
            return
        if of in named and not _is_named_edges(leaf):
            return
        if of in self._edges:
            raise NoExample(f"{self._edges[of].name!r} and {leaf.name!r} are edges of one type")
        self._edges[of] = leaf

    def _count(self, leaf: Leaf, wide: bool) -> None:
        """Nodes of a type: rows of its features, or else of anything that is given by node."""
        value = leaf.value
        if _node_type(leaf) is None or leaf.of in self._counts:
            return
        if isinstance(value, PackedInput):
            self._counts[str(leaf.of)] = value.shape[0]
        elif isinstance(value, Tensor) and value.layout == torch.strided and value.dim():
            features = value.dim() == 2 and value.is_floating_point()
            if features or not wide:
                self._counts[str(leaf.of)] = value.size(0)

    def example(self) -> Example:
        """The example."""
        used = {0, 1, 2}
        most = max(_MOST_EDGES // (1 + len(self._edges) // 4), _LEAST_EDGES)
        chosen = {of: self._chosen(of, most, used) for of in self._edges}
        keep = {}
        for kind, count in self._counts.items():
            ends = [torch.arange(min(count, _LEAST_NODES), device="cpu")]
            for of, some in chosen.items():
                ends += [some.ends[side] for side in (0, -1) if of[side] == kind]
            keep[kind] = _distinct(torch.cat(ends).unique(), count, used)
        found = Cut()
        for leaf in self._leaves:
            role, of = self._role(leaf)
            argument = Argument(leaf.place, leaf.name, role, leaf.value, of)
            if role == _LEFT_OUT:
                self._left_out.add(leaf.place)
            elif isinstance(of, tuple):
                index = _numbered(of, chosen[of].ends, keep)
                cut(found, argument, index[0], index, chosen[of].places)
            else:
                rows = keep.get(of, _NO_ROWS)
                cut(found, argument, rows, _NO_ROWS, _NO_ROWS)
        nodes = {kind: rows.numel() for kind, rows in keep.items()}
        left_out = frozenset(self._left_out)
        found.number_graphs()
        return Example(tuple(found.arguments), found.parts, nodes, self._containers, left_out)

    def _chosen(self, of: tuple[str, ...], most: int, used: set[int]) -> _Some:
        """Some edges of a type; where there are none any, whose attributes are zeros."""
        ends = _ends(self._edges[of])
        sizes = [self._counts.get(of[side]) for side in (0, -1)]
        inside = torch.ones(ends.size(1), dtype=torch.bool, device="cpu")
        for side, size in zip(ends, sizes, strict=True):
            inside &= (side >= 0) if size is None else (side >= 0) & (side < size)
        places = inside.nonzero().view(-1)[:most]
        matrix = given_graph(self._edges[of].value) is not None
        if matrix and (places.numel() < len(used) or None in sizes):  # which has no edge twice
            raise TooSmall(f"the matrix {self._edges[of].name!r} has too few edges")
        if not places.numel():
            places = torch.arange(_LEAST_EDGES, device="cpu")
            ends = torch.stack([places % max(size or 1, 1) for size in sizes])
        size = places.numel()
        while size in used and size > 2:
            size -= 1
        if size in used:
            size = max(places.numel(), max(used)) + 1
        used.add(size)
        places = places[torch.arange(size, device="cpu") % places.numel()]
        return _Some(places, ends.index_select(1, places))

    def _role(self, leaf: Leaf) -> tuple[str, Any]:
        """What an argument is, and what its rows are of."""
        value, edge, node = leaf.value, _edge_type(leaf), _node_type(leaf)
        rows = value.size(0) if _is_dense(value) and value.dim() else None
        if edge is not None and edge in self._edges:
            if leaf is self._edges[edge]:
                return "edges" if given_graph(value) is None else "graph", edge
            if rows is not None and rows == _ends(self._edges[edge]).size(1):
                return "edge", edge
        elif node is not None and node in self._counts:
            if type(value) is PackedInput and value.graph is None and value.shape[0]:
                return "packed", node
            if rows == self._counts[node]:
                return "batch" if leaf.key.startswith("batch") else "node", node
        top = leaf.place[0] if isinstance(leaf.place, tuple) else None
        if top is not None and self._containers[top].kind is not dict:
            return _LEFT_OUT, ""
        if value is None or isinstance(value, bool | float | str):
            return "constant", ""
        if isinstance(value, int) and value not in self._sizes():
            return "constant", ""
        raise NoExample(
            f"{leaf.name!r} is a {type(value).__name__} that is neither edges nor has a row for "
            "every node or edge of a type"
        )

    def _sizes(self) -> set[int]:
        """Numbers of nodes and edges."""
        return {*self._counts.values(), *(_ends(leaf).size(1) for leaf in self._edges.values())}


class _Some(NamedTuple):
    """Edges of a type.

    Attributes:
        places: Among those given.
        ends: int64 ``[2, e]``, as given.
    """

    places: Tensor
    ends: Tensor


_NO_ROWS = torch.zeros(0, dtype=torch.int64, device="cpu")
_LEFT_OUT = "left out"


def _node_type(leaf: Leaf) -> str | None:
    of = leaf.of
    return of if isinstance(of, str) and not (of == "" and leaf.key.startswith(_OF_EDGES)) else None


def _edge_type(leaf: Leaf) -> tuple[str, ...] | None:
    if leaf.of == "":
        return ("", "") if leaf.key.startswith(_OF_EDGES) else None
    return leaf.of if isinstance(leaf.of, tuple) else None


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _is_edges(value: Any) -> bool:
    if given_graph(value) is not None or isinstance(value, Graph):
        return True
    whole = type(value) is Tensor and _is_dense(value) and value.dtype == torch.int64
    return whole and value.dim() == 2 and value.size(0) == 2


def _is_named_edges(leaf: Leaf) -> bool:
    return leaf.key.startswith(_ADJACENCY) and _is_edges(leaf.value)


def _ends(leaf: Leaf) -> Tensor:
    value = leaf.value
    given = given_graph(value)
    if given is not None or isinstance(value, Graph):
        return edges_of(value if given is None else given.graph)[0]
    ends: Tensor = value
    return ends


def _distinct(rows: Tensor, count: int, used: set[int]) -> Tensor:
    """Rows, and further ones until no other type has as many.

    Args:
        rows: Ascending.
        count: How many there are in all.
        used: Sizes of other types.
    """
    size = max(rows.numel(), 3)
    while size in used:
        size += 1
    used.add(size)
    if not count:  # there is none to be taken
        return torch.zeros(size, dtype=torch.int64, device="cpu")
    every = torch.arange(count, device="cpu")
    more = torch.cat([every[~torch.isin(every, rows)], rows.repeat(size)])[: size - rows.numel()]
    return torch.cat([rows, more]).sort().values


def _numbered(of: tuple[str, ...], ends: Tensor, keep: dict[str, Tensor]) -> Tensor:
    """Ends of edges among the nodes that are kept; all are of a type that the model has."""
    sides = []
    for kind, end in zip((of[0], of[-1]), ends, strict=True):
        rows = keep.get(kind)
        sides.append(end if rows is None else torch.searchsorted(rows, end.contiguous()))
    return torch.stack(sides)
