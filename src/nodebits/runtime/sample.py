"""A part of an example that looks like the whole: nodes around a few, with the edges among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

EdgeType = tuple[str, ...]
# Nodes of every type that the others are found around, as a part of those wanted.
_SEEDS = 1 / 16


@dataclass(frozen=True)
class Example:
    """What a model takes, where its nodes and edges can be told.

    Attributes:
        args: By position.
        keywords: By name.
        nodes: Number of nodes by type; the type is ``""`` where there is one.
        edges: ``[2, E]`` by types of source, edge and target.
    """

    args: tuple[Any, ...]
    keywords: Mapping[str, Any]
    nodes: Mapping[str, int]
    edges: Mapping[EdgeType, Tensor]

    @classmethod
    def of(cls, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Example | None:
        """The example; None where it is not known which rows belong to nodes, which to edges.

        Known are ``Data`` and ``HeteroData``, dictionaries by type, and one ``edge_index`` beside
        tensors with a row for every node or every edge.
        """
        values = [*args, *keywords.values()]
        found = _of_data(values) or _of_types(values) or _of_tensors(values)
        if found is None:
            return None
        nodes, edges = found
        for (source, *_, target), ends in edges.items():
            sizes = nodes.get(source, 0), nodes.get(target, 0)
            for end, size in zip(ends, sizes, strict=True):
                if end.numel() and not (0 <= int(end.min()) and int(end.max()) < size):
                    return None
        return cls(args, keywords, nodes, edges)

    @property
    def num_nodes(self) -> int:
        """Nodes of all types."""
        return sum(self.nodes.values())

    @property
    def size(self) -> int:
        """Nodes and edges: what the time of a forward grows with."""
        return self.num_nodes + sum(ends.size(1) for ends in self.edges.values())

    def part(self, num_nodes: int, seed: int = 0) -> Example:
        """Nodes around a few, and the edges among them.

        Args:
            num_nodes: How many, about.
            seed: Of the choice.
        """
        kept = {name: mask.nonzero().view(-1) for name, mask in self._around(num_nodes, seed)}
        made = _Part(self, kept)
        args = tuple(made.of(value) for value in self.args)
        keywords = {name: made.of(value) for name, value in self.keywords.items()}
        return Example(
            args,
            keywords,
            {name: rows.numel() for name, rows in kept.items()},
            {name: made.edges(name) for name in self.edges},
        )

    def _around(self, num_nodes: int, seed: int) -> list[tuple[str, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        masks = {name: torch.zeros(size, dtype=torch.bool) for name, size in self.nodes.items()}
        left = min(num_nodes, self.num_nodes)

        def add(name: str, rows: Tensor, most: int) -> int:
            rows = rows.unique()
            rows = rows[~masks[name][rows]]
            order = torch.randperm(rows.numel(), generator=generator)[:most]
            masks[name][rows[order]] = True
            return order.numel()

        while left > 0:
            for name, size in self.nodes.items():
                share = max(int(left * _SEEDS * size / self.num_nodes), 1)
                left -= add(name, (~masks[name]).nonzero().view(-1), min(share, left))
            added = 1
            while left > 0 and added:
                added = 0
                for (source, *_, target), ends in self.edges.items():
                    reached = ends[0][masks[target][ends[1]]]
                    added += (new := add(source, reached, left))
                    left -= new
        return list(masks.items())


@dataclass(frozen=True)
class _Part:
    """Arguments of the nodes that are kept."""

    whole: Example
    kept: Mapping[str, Tensor]

    def of(self, value: Any) -> Any:
        """An argument with the rows of the kept nodes and edges."""
        if isinstance(value, HeteroData):
            return value.subgraph(dict(self.kept))
        if isinstance(value, Data):
            return value.subgraph(self.kept[""])
        if isinstance(value, Mapping):
            return {key: self._typed(key, part) for key, part in value.items()}
        edge_type = next(iter(self.whole.edges)) if self.whole.edges else ()
        return self._rows(value, "", edge_type) if "" in self.whole.nodes else value

    def _typed(self, key: Any, value: Any) -> Any:
        return self._rows(value, *((key, ()) if isinstance(key, str) else ("", key)))

    def _rows(self, value: Any, node_type: str, edge_type: EdgeType) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        ends = self.whole.edges.get(edge_type)
        if ends is not None and value is ends:
            return self.edges(edge_type)
        if ends is not None and value.size(0) == ends.size(1):
            return value[self._among(edge_type)]
        if value.size(0) == self.whole.nodes.get(node_type):
            return value[self.kept[node_type]]
        return value

    def edges(self, edge_type: EdgeType) -> Tensor:
        """The edges of a type among the kept nodes, which are numbered anew."""
        ends = self.whole.edges[edge_type][:, self._among(edge_type)]
        sides = []
        for name, end in zip((edge_type[0], edge_type[-1]), ends, strict=True):
            number = end.new_zeros(self.whole.nodes[name])
            number[self.kept[name]] = torch.arange(self.kept[name].numel(), dtype=end.dtype)
            sides.append(number[end])
        return torch.stack(sides)

    def _among(self, edge_type: EdgeType) -> Tensor:
        ends, inside = self.whole.edges[edge_type], []
        for name, end in zip((edge_type[0], edge_type[-1]), ends, strict=True):
            mask = torch.zeros(self.whole.nodes[name], dtype=torch.bool)
            mask[self.kept[name]] = True
            inside.append(mask[end])
        return inside[0] & inside[1]


_Found = tuple[dict[str, int], dict[EdgeType, Tensor]]


def _of_data(values: list[Any]) -> _Found | None:
    data = values[0] if len(values) == 1 else None
    if isinstance(data, HeteroData) and all(map(_is_edges, data.collect("edge_index").values())):
        counts = {name: int(data[name].num_nodes or 0) for name in data.node_types}
        return counts, data.collect("edge_index")
    if isinstance(data, Data) and _is_edges(data.edge_index) and data.num_nodes:
        return {"": data.num_nodes}, {("", "", ""): data.edge_index}
    return None


def _of_types(values: list[Any]) -> _Found | None:
    nodes: dict[str, int] = {}
    edges: dict[EdgeType, Tensor] = {}
    for value in values:
        for key, part in value.items() if isinstance(value, Mapping) else ():
            if isinstance(key, tuple) and _is_edges(part):
                edges[key] = part
            elif isinstance(key, str) and isinstance(part, Tensor) and part.is_floating_point():
                nodes[key] = part.size(0)
    return (nodes, edges) if nodes and edges else None


def _of_tensors(values: list[Any]) -> _Found | None:
    edges = [value for value in values if _is_edges(value)]
    rows = [v for v in values if type(v) is Tensor and v.dim() >= 2 and v.is_floating_point()]
    if len(edges) != 1 or not rows or any(v.layout != torch.strided for v in rows):
        return None
    if any(isinstance(value, tuple | list | Mapping) for value in values):
        return None
    num_nodes, num_edges = rows[0].size(0), edges[0].size(1)
    return None if num_nodes == num_edges else ({"": num_nodes}, {("", "", ""): edges[0]})


def _is_edges(value: Any) -> bool:
    whole = type(value) is Tensor and value.layout == torch.strided and value.dim() == 2
    return whole and value.size(0) == 2 and not value.is_floating_point() and value.is_cpu
