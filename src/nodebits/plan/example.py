"""Small examples, of several sizes, of what a model was called with.

A part of the graph, as often as asked for: copies side by side are a graph again, with other
numbers of nodes, edges and graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.signature import names_of
from nodebits.engine.packed_input import PackedInput
from nodebits.graph import Graph, ReorderedGraph
from nodebits.plan.adjacency import Adjacency, as_given, edges_of, given_graph
from nodebits.plan.packed_rows import described, tensors_of, with_tensors

_EDGES = 37
_LEAST_NODES = 5


# What an odd example has beyond its copies: graphs of the nodes, and edges between these.
_MORE_GRAPHS, _MORE_EDGES = (0, 0, 0, 1, 1, 2, 2), 5


class NoExample(Exception):
    """These arguments are none that examples are made of; the message says why."""


class TooSmall(NoExample):
    """There are no nodes, or no edges, to make an example of; other data may have some."""


@dataclass(frozen=True)
class Argument:
    """One argument of a forward.

    Attributes:
        place: Its position, or its name where it came by name.
        name: Its name.
        role: ``edges``, ``graph`` (one that is no ``edge_index``), ``node`` or ``edge`` (a row
            each), ``batch``, ``packed`` (features packed ahead), or ``constant``.
        value: Of a constant; of packed features what they are, by site; of a graph what it was
            given as, which the plan does not hold.
    """

    place: int | str
    name: str
    role: str
    value: Any = None

    def to_json(self) -> dict[str, Any]:
        """For the plan."""
        about = {"place": self.place, "name": self.name, "role": self.role}
        return {**about, "value": self.value} if self.role in ("constant", "packed") else about

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Argument:
        """Inverse of :meth:`to_json`."""
        return cls(about["place"], about["name"], about["role"], about.get("value"))


@dataclass(frozen=True)
class Example:
    """Small arguments, and what they are.

    Attributes:
        arguments: In order.
        parts: Tensors of those that are no constants, by name.
        num_nodes: Rows of the nodes.
    """

    arguments: tuple[Argument, ...]
    parts: dict[str, Any]
    num_nodes: int

    @property
    def graph(self) -> Argument | None:
        """The argument that is a graph other than an ``edge_index``."""
        return next((a for a in self.arguments if a.role == "graph"), None)

    def nodes_of(self, count: int) -> int:
        """Nodes of so many copies, see :meth:`repeated`."""
        return abs(count) * self.num_nodes + (len(_MORE_GRAPHS) if count < 0 else 0)

    def repeated(self, count: int) -> dict[str, Tensor]:
        """The tensors of ``count`` copies side by side, each its own memory.

        Floats are others for every count: what follows from them unseen, through numpy say, must
        not look like a constant. They keep their signs and grow no larger.

        Args:
            count: Of copies; below zero there are as many, and some nodes, edges and graphs more:
                sizes that have one relation in all copies have another one then.
        """
        odd, count = count < 0, abs(count)
        factor = 1.0 / (count + odd)
        made = {}
        for argument in self.arguments:
            if argument.role == "constant":
                continue
            t = self.parts[argument.name]
            if argument.role == "packed":
                index = _again(self.num_nodes, count, len(_MORE_GRAPHS) if odd else 0)
                made.update(tensors_of(argument.name, t.selected(index)))
            elif argument.role in ("edges", "graph"):
                copies = [t + i * self.num_nodes for i in range(count)]
                if odd:  # a chain
                    chain = torch.arange(_MORE_EDGES, device="cpu") + count * self.num_nodes
                    copies.append(torch.stack([chain, chain + 1]).to(t.dtype))
                made[argument.name] = torch.cat(copies, 1).contiguous()
                weight = weight_name(argument.name)
                if weight in self.parts:
                    again = _again(t.size(1), count, _MORE_EDGES if odd else 0)
                    made[weight] = self.parts[weight].index_select(0, again) * factor
            elif argument.role == "batch":
                graphs = int(t.max()) + 1 if t.numel() else 0
                more = [torch.tensor(_MORE_GRAPHS, device="cpu") + count * graphs] if odd else []
                copies = [t + i * graphs for i in range(count)]
                made[argument.name] = torch.cat([*copies, *more])
            else:
                more_rows = _MORE_EDGES if argument.role == "edge" else len(_MORE_GRAPHS)
                rows = t.index_select(0, _again(t.size(0), count, more_rows if odd else 0))
                made[argument.name] = rows * factor if rows.is_floating_point() else rows
        return made

    def call(
        self, tensors: Mapping[str, Tensor], graph: Any = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Arguments of a forward, by position and by name.

        Args:
            tensors: As :meth:`repeated` made them.
            graph: In place of the argument that is a graph; None makes one like it.
        """
        args: list[Any] = []
        keywords = {}
        for argument in self.arguments:
            if argument.role == "packed":
                value = with_tensors(argument.name, self.parts[argument.name], tensors)
            elif argument.role == "graph":
                value = self._graph(argument, tensors) if graph is None else graph
            else:
                value = tensors.get(argument.name, argument.value)
            if isinstance(argument.place, int):
                args.append(value)
            else:
                keywords[argument.place] = value
        return args, keywords

    def _graph(self, argument: Argument, tensors: Mapping[str, Tensor]) -> Any:
        kind: Adjacency = argument.value
        edges, weight = tensors[argument.name], tensors.get(weight_name(argument.name))
        copies = edges.size(1) // self.parts[argument.name].size(1)  # whole ones
        return kind.made(edges, weight, self.nodes_of(copies))


def weight_name(graph: str) -> str:
    """Name of the input that holds the edge weights of an argument."""
    return f"{graph}/weight"


_KEPT = "_nodebits_example"


@contextmanager
def remembering(model: nn.Module) -> Iterator[None]:
    """Keeps a small part of what ``model`` is first called with, for a plan of its packed form."""

    def look(module: nn.Module, args: Any, keywords: Any) -> None:
        handle.remove()
        try:
            given = as_given(args, keywords)
            vars(model)[_KEPT] = example_of(names_of(model.forward), *given)
        except Exception:  # whatever is wrong with the arguments, the forward has the words for it
            return

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def taken_example(model: nn.Module) -> Example | None:
    """What :func:`remembering` kept, which ``model`` then has no longer."""
    found = vars(model).pop(_KEPT, None)
    return found if isinstance(found, Example) else None


def example_of(names: Sequence[str], args: Sequence[Any], keywords: Mapping[str, Any]) -> Example:
    """A small example.

    Args:
        names: Names of the positional arguments.
        args: Positional arguments.
        keywords: Others.

    Raises:
        NoExample: If there is none to be made.
    """
    given: list[tuple[int | str, str, Any]] = [
        (i, names[i] if i < len(names) else f"argument {i}", value) for i, value in enumerate(args)
    ]
    given += [(name, name, value) for name, value in keywords.items()]
    edges = _edges(given)
    nodes = next((v.shape[0] for _, _, v in given if isinstance(v, PackedInput)), None)
    nodes = nodes or next(
        (v.size(0) for _, n, v in given if isinstance(v, Tensor) and v.dim() == 2
         and v.is_floating_point() and not n.startswith("edge")),
        None,
    )  # fmt: skip
    if nodes is None:
        nodes = next((v.size(0) for _, n, v in given if n == "x" and isinstance(v, Tensor)), None)
    if nodes is None or nodes == 0:
        raise NoExample("it was given no matrix of features")
    num_edges = edges.size(1)
    arguments = [Argument(p, n, _role(n, v, nodes, num_edges), v) for p, n, v in given]
    keep, index, chosen = _part(edges, nodes)
    parts: dict[str, Any] = {}
    cleared = []
    for argument, (_, _, value) in zip(arguments, given, strict=True):
        role = argument.role
        if role == "constant":
            cleared.append(argument)
            continue
        if role == "graph":
            given_as = given_graph(value)
            assert given_as is not None
            cleared.append(Argument(argument.place, argument.name, role, given_as.kind))
            parts[argument.name] = index
            weight = edges_of(given_as.graph)[1]
            if weight is not None:
                parts[weight_name(argument.name)] = _not_all_one(weight.index_select(0, chosen))
            continue
        about = described(value) if role == "packed" else None
        cleared.append(Argument(argument.place, argument.name, role, about))
        if role == "edges":
            parts[argument.name] = index
            continue
        if role == "packed":
            parts[argument.name] = value.selected(keep)
            continue
        t = _plain(value).detach()
        t = t.index_select(0, chosen if role == "edge" else keep)
        if role == "batch":
            t = t.unique(return_inverse=True)[1] if t.numel() else t
        elif t.is_floating_point():
            if t.dtype != torch.float32 and (t.dim() != 2 or argument.name.startswith("edge")):
                raise NoExample(f"{argument.name!r} is {t.dtype}, and it is no feature matrix")
            t = t.float()
        parts[argument.name] = t.contiguous()
    return Example(tuple(cleared), parts, keep.numel())


def guessed_example(model: nn.Module) -> Example | None:
    """What a model that asks for no more than ``x``, ``edge_index``, ``batch`` may be called with.

    None where it asks for more, or nothing tells the width of its features.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    widths = (getattr(m, "in_channels", getattr(m, "in_features", 0)) for m in model.modules())
    width = next((w for w in widths if isinstance(w, int) and w > 0), 0)
    if not width or needed[:2] != ["x", "edge_index"] or needed[2:] not in ([], ["batch"]):
        return None
    generator = torch.Generator().manual_seed(0)
    nodes = 11
    x = torch.rand(nodes, width, generator=generator, device="cpu") - 0.25
    edges = torch.randint(0, nodes, (2, _EDGES), generator=generator, device="cpu")
    batch = torch.arange(nodes, device="cpu") // 4
    return example_of(needed, [x, edges, batch][: len(needed)], {})


def _not_all_one(weight: Tensor) -> Tensor:
    """Weights of which no multiple is 1 alone, which would be none."""
    weight = weight.clone()
    if bool((weight == weight[0]).all()):
        weight[0] *= 0.5
    return weight


def _plain(t: Tensor) -> Tensor:
    return t.as_subclass(Tensor) if type(t) is not Tensor else t


def _edges(given: Sequence[tuple[int | str, str, Any]]) -> Tensor:
    found = []
    for _, name, value in given:
        if isinstance(value, ReorderedGraph):
            raise NoExample("its graph is reordered")
        given_as = given_graph(value)
        if given_as is not None or isinstance(value, Graph):
            found.append(edges_of(value if given_as is None else given_as.graph)[0])
        elif isinstance(value, Tensor) and value.layout == torch.strided:
            integers = value.dtype == torch.int64 and value.dim() == 2 and value.size(0) == 2
            if integers and (name in ("edge_index", "adj_t", "adj") or not found):
                found.append(_plain(value))
        elif value is not None and not isinstance(value, int | float | bool | str | PackedInput):
            raise NoExample(f"{name!r} is a {type(value).__name__}")
    if len(found) != 1:
        raise NoExample(f"it was given {len(found)} sets of edges")
    return found[0]


def _role(name: str, value: Any, nodes: int, edges: int) -> str:
    if given_graph(value) is not None:
        return "graph"
    if isinstance(value, Graph):
        return "edges"
    if isinstance(value, PackedInput):
        if value.graph is not None:
            raise NoExample("its features have the order of a reordered graph's nodes")
        return "packed"
    if not isinstance(value, Tensor):
        return "constant"
    if value.layout != torch.strided or value.dim() == 0:
        raise NoExample(f"{name!r} is a sparse matrix or a number")
    if value.dtype == torch.int64 and value.dim() == 2 and value.size(0) == 2:
        return "edges"
    if name == "batch":
        return "batch"
    by_name = name.startswith("edge")
    if value.size(0) == edges and (by_name or edges != nodes):
        return "edge"
    if value.size(0) == nodes and not by_name:
        return "node"
    raise NoExample(
        f"{name!r} has {value.size(0)} rows, and there are {nodes} nodes and {edges} edges"
    )


def _again(rows: int, count: int, more: int) -> Tensor:
    """Places of all rows as often as asked for, and of the first ones once more."""
    return torch.arange(rows * count + more, device="cpu") % rows


def _part(edges: Tensor, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes that are kept, their edges, and which edges those are."""
    inside = ((edges >= 0) & (edges < nodes)).all(0).nonzero().view(-1)
    chosen = inside[:_EDGES]
    ends = edges.index_select(1, chosen)
    some = torch.arange(min(nodes, _LEAST_NODES), device="cpu")
    keep = torch.cat([ends.reshape(-1), some]).unique()
    if keep.numel() == chosen.numel() and chosen.numel() > 1:
        chosen = chosen[:-1]  # as many nodes as edges could be taken for each other
        ends = edges.index_select(1, chosen)
    if not chosen.numel():
        raise TooSmall("its graph has no edges")
    return keep, torch.searchsorted(keep, ends), chosen
