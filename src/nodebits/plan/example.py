"""Small examples, of several sizes, of what a model was called with.

A part of the graph, as often as asked for: copies side by side are a graph again, with other
numbers of nodes, edges and graphs.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nodebits.plan.adjacency import Adjacency
from nodebits.plan.containers import Container, Place, put_together
from nodebits.plan.packed_rows import tensors_of, with_tensors

# What an odd example has beyond its copies: nodes, edges between these, and graphs of them.
_MORE_NODES, _MORE_EDGES, _MORE_GRAPHS = 7, 5, 3


class NoExample(Exception):
    """These arguments are none that examples are made of; the message says why."""


class TooSmall(NoExample):
    """There are no nodes, or no edges, to make an example of; other data may have some."""


@dataclass(frozen=True)
class Argument:
    """One argument of a forward.

    Attributes:
        place: Its position, or its name where it came by name; of what another argument holds a
            tuple: where that is, and its keys.
        name: Its name.
        role: ``edges``, ``graph`` (one that is no ``edge_index``), ``node`` or ``edge`` (a row
            each), ``batch``, ``row_per_graph`` of it, ``number`` (a tensor of one), ``packed``
            (features packed ahead), or ``constant``.
        value: Of a constant; of packed features what they are, by site; of a graph what it was
            given as, which the plan does not hold.
        of: Type of its nodes, or types of the ends of its edges, those between them included.
    """

    place: Place
    name: str
    role: str
    value: Any = None
    of: Any = ""

    def to_json(self) -> dict[str, Any]:
        """For the plan."""
        about = {"place": self.place, "name": self.name, "role": self.role}
        if any(self.of):
            about["of"] = self.of
        return {**about, "value": self.value} if self.role in ("constant", "packed") else about

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Argument:
        """Inverse of :meth:`to_json`."""
        none = ("", "") if about["role"] in ("edges", "graph", "edge") else ""
        place, of = _hashable(about["place"]), _hashable(about.get("of", none))
        return cls(place, about["name"], about["role"], about.get("value"), of)


@dataclass(frozen=True)
class Example:
    """Small arguments, and what they are.

    Attributes:
        arguments: In order.
        parts: Tensors of those that are no constants, by name.
        nodes: How many nodes there are of every type; there is one, ``""``, where nothing is by
            type. Nodes of other types are those that the model itself has.
        containers: Of the arguments that hold others, by position or name.
        left_out: What no argument was made of in PyG's ``Data``: places that nothing may read.
        reads: What of ``Data`` the forward asks for, by place; known once it has run.
    """

    arguments: tuple[Argument, ...]
    parts: dict[str, Any]
    nodes: Mapping[str, int]
    containers: Mapping[int | str, Container] = field(default_factory=dict)
    left_out: frozenset[Place] = frozenset()
    reads: frozenset[Place] = frozenset()

    @property
    def graphs(self) -> list[Argument]:
        """The arguments that are graphs other than an ``edge_index``."""
        return [a for a in self.arguments if a.role == "graph"]

    def nodes_of(self, kind: str, count: int) -> int:
        """Nodes of a type in so many copies, see :meth:`repeated`."""
        return abs(count) * self.nodes[kind] + self._more(kind, count)

    def reading(self, reads: Collection[Place], unread: Collection[Place]) -> Example:
        """Of a forward that reads some of ``Data`` alone.

        Args:
            reads: What it asks for, whether it is there or not.
            unread: Places of arguments that it does not read.
        """
        kept = tuple(a for a in self.arguments if a.place not in unread)
        return dataclasses.replace(self, arguments=kept, reads=frozenset(reads))

    def _more(self, of: str | tuple[str, ...], count: int) -> int:
        """Nodes or edges of a type that are in an odd example beside the copies.

        Other numbers for every type and example: sums of some must not be those of others.
        """
        if count >= 0:
            return 0
        edges = isinstance(of, tuple)
        if not any(of):
            return _MORE_EDGES if edges else _MORE_NODES
        least, most = (3, 40) if edges else (_MORE_NODES, 90)
        return random.Random(repr((of, count))).randint(least, most)

    def repeated(self, count: int) -> dict[str, Tensor]:
        """The tensors of ``count`` copies side by side, each its own memory.

        Floats are others for every count: what follows from them unseen, through numpy say, must
        not look like a constant. They keep their signs and grow no larger.

        Args:
            count: Of copies; below zero there are as many, and some nodes, edges and graphs more:
                sizes that have one relation in all copies have another one then.
        """
        factor = 1.0 / (abs(count) + (count < 0))
        batches = [self.parts[a.name] for a in self.arguments if a.role == "batch"]
        graphs = max([int(t.max()) + 1 for t in batches if t.numel()], default=0)
        made = {}
        for argument in self.arguments:
            if argument.role == "constant":
                continue
            t, more = self.parts[argument.name], self._more(argument.of, count)
            if argument.role == "packed":
                index = _again(self.nodes[argument.of], abs(count), more)
                made.update(tensors_of(argument.name, t.selected(index)))
            elif argument.role in ("edges", "graph"):
                made[argument.name] = self._edges(argument, count)
                weight = weight_name(argument.name)
                if weight in self.parts:
                    again = _again(t.size(1), abs(count), more)
                    made[weight] = self.parts[weight].index_select(0, again) * factor
            elif argument.role == "batch":
                copies = [t + i * graphs for i in range(abs(count))]
                last = torch.arange(more, device="cpu") * _MORE_GRAPHS // max(more, 1)
                made[argument.name] = torch.cat([*copies, last + abs(count) * graphs])
            else:
                if argument.role == "row_per_graph":
                    more = _MORE_GRAPHS * (count < 0)
                single = argument.role == "number"
                rows = t if single else t.index_select(0, _again(t.size(0), abs(count), more))
                made[argument.name] = rows * factor if rows.is_floating_point() else rows
        return made

    def _edges(self, argument: Argument, count: int) -> Tensor:
        """Those of the copies, and a chain, whose edges go from each node to the next one."""
        t, kinds = self.parts[argument.name], (argument.of[0], argument.of[-1])
        sizes = [self.nodes.get(kind, 0) for kind in kinds]
        offset = torch.tensor([[n] for n in sizes], device="cpu")
        copies = [t + i * offset for i in range(abs(count))]
        more = self._more(argument.of, count)
        if more:
            ends = [
                self._more(kind, count) if n else 0 for kind, n in zip(kinds, sizes, strict=True)
            ]
            step = more // max(ends[1] - 1, 1) + 1  # edges into one node
            number = torch.arange(more, device="cpu")
            target = number // step + 1
            last = [target - 1 + number % step, target]
            chain = [
                some % n + abs(count) * size if n else t[side, number % t.size(1)]
                for side, (some, n, size) in enumerate(zip(last, ends, sizes, strict=True))
            ]
            order = (chain[1] * (int(chain[0].max()) + 1) + chain[0]).argsort()
            copies.append(torch.stack(chain)[:, order].to(t.dtype))
        return torch.cat(copies, 1).contiguous()

    def call(
        self, tensors: Mapping[str, Any], count: int = 1, graphs: Mapping[str, Any] | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Arguments of a forward, by position and by name.

        Args:
            tensors: As :meth:`repeated` made them.
            count: Of how many copies.
            graphs: In place of the arguments that are graphs, by name; by default ones like them.
        """
        made = []
        for argument in self.arguments:
            value: Any
            if argument.role == "packed":
                value = with_tensors(argument.name, self.parts[argument.name], tensors)
            elif argument.role == "graph":
                value = None if graphs is None else graphs[argument.name]
                value = self._graph(argument, tensors, count) if value is None else value
            else:
                value = tensors.get(argument.name, argument.value)
            made.append((argument.place, value))
        return put_together(self.containers, made)

    def _graph(self, argument: Argument, tensors: Mapping[str, Tensor], count: int) -> Any:
        kind: Adjacency = argument.value
        edges, weight = tensors[argument.name], tensors.get(weight_name(argument.name))
        sizes = [self.nodes_of(of, count) for of in (argument.of[0], argument.of[-1])]
        return kind.made(edges, weight, *sizes)


def weight_name(graph: str) -> str:
    """Name of the input that holds the edge weights of an argument."""
    return f"{graph}/weight"


def _again(rows: int, count: int, more: int) -> Tensor:
    """Places of all rows as often as asked for, and of the first ones once more."""
    return torch.arange(rows * count + more, device="cpu") % rows


def _hashable(value: Any) -> Any:
    """A place or type as JSON has it, as it is in the process."""
    return tuple([_hashable(part) for part in value]) if isinstance(value, list) else value
