"""A small part of what a model was called with: an example for its plan.

Of arguments by type of node and edge see :mod:`nodebits.plan.typed`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from nodebits.core.signature import names_of
from nodebits.engine.packed_input import PackedInput
from nodebits.graph import Graph, ReorderedGraph
from nodebits.plan.adjacency import as_given, edges_of, given_graph
from nodebits.plan.containers import is_container
from nodebits.plan.cut import Cut, cut
from nodebits.plan.example import Argument, Example, NoExample, TooSmall
from nodebits.plan.typed import typed_example

_EDGES = 37
_LEAST_NODES = 5

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


def kept_example(model: nn.Module) -> Example | None:
    """What :func:`remembering` kept."""
    found = vars(model).get(_KEPT)
    return found if isinstance(found, Example) else None


def forget_example(model: nn.Module) -> None:
    """Drops what :func:`remembering` kept."""
    vars(model).pop(_KEPT, None)


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
    if any(is_container(value) for _, _, value in given):
        return typed_example(given)
    edges = _edges(given)
    nodes = next((v.shape[0] for _, _, v in given if isinstance(v, PackedInput)), None)
    nodes = nodes or next(
        (v.size(0) for _, n, v in given if isinstance(v, Tensor) and v.dim() == 2
         and v.is_floating_point() and not n.startswith("edge")),
        None,
    )  # fmt: skip
    if nodes is None:
        nodes = next((v.size(0) for _, n, v in given if n == "x" and isinstance(v, Tensor)), None)
    if nodes is None:
        nodes = next((v.size(0) for _, n, v in given if _numbers_nodes(n, v, edges)), None)
    if nodes is None:
        return _of_own_nodes(given, edges)
    if nodes == 0:
        raise NoExample("it was given no matrix of features")
    num_edges = edges.size(1)
    batch = next((v for _, name, v in given if name == "batch" and isinstance(v, Tensor)), None)
    graphs = 0 if batch is None or not batch.numel() else int(batch.max()) + 1
    roles = [_role(name, value, nodes, num_edges, graphs) for _, name, value in given]
    keep, index, chosen = _part(edges, nodes)
    found = Cut()
    for role, (place, name, value) in zip(roles, given, strict=True):
        of = ("", "") if role in ("edges", "graph", "edge") else ""
        cut(found, Argument(place, name, role, value, of), keep, index, chosen)
    found.number_graphs()
    return Example(tuple(found.arguments), found.parts, {"": keep.numel()})


def _numbers_nodes(name: str, value: Any, edges: Tensor) -> bool:
    """Whether an argument has an integer, or some, for every node: ids that an embedding reads."""
    if name.startswith(("edge", "batch")) or not isinstance(value, Tensor):
        return False
    whole = value.layout == torch.strided and value.dtype in (torch.int64, torch.int32)
    pairs = value.dim() == 2 and value.size(0) == 2  # as edges have
    rows = value.size(0) if whole and value.dim() in (1, 2) and not pairs else 0
    least = int(edges.max()) + 1 if edges.numel() else 1
    return rows >= least and rows != edges.size(1)


def _of_own_nodes(given: Sequence[tuple[int | str, str, Any]], edges: Tensor) -> Example:
    """An example of a model that has its nodes itself, as a table of rows: edges alone are given.

    Nodes keep their numbers, and copies of the edges lie beside each other between the same nodes.
    """
    roles = [_role(name, value, -1, edges.size(1), 0) for _, name, value in given]
    if not {*roles} <= {"edges", "edge", "number", "constant"}:
        raise NoExample("it was given no matrix of features")
    index, chosen = _inside(edges, None)
    if not chosen.numel():
        raise TooSmall("its graph has no edges")
    found, nobody = Cut(), torch.zeros(0, dtype=torch.int64, device="cpu")
    for role, (place, name, value) in zip(roles, given, strict=True):
        of = ("", "") if role in ("edges", "edge") else ""
        cut(found, Argument(place, name, role, value, of), nobody, index, chosen)
    return Example(tuple(found.arguments), found.parts, {})


def guessed_example(model: nn.Module) -> Example | None:
    """What a model that asks for no more than ``x``, ``edge_index``, ``batch`` may be called with.

    None where it asks for more, or nothing tells the width of its features.
    """
    if isinstance(model, GraphModule):  # of to_hetero, whose arguments hold others
        return None
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
                found.append(value.as_subclass(Tensor))
        elif value is not None and not isinstance(value, int | float | bool | str | PackedInput):
            raise NoExample(f"{name!r} is a {type(value).__name__}")
    if len(found) != 1:
        raise NoExample(f"it was given {len(found)} sets of edges")
    return found[0]


def _role(name: str, value: Any, nodes: int, edges: int, graphs: int) -> str:
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
    if value.layout != torch.strided:
        raise NoExample(f"{name!r} is a sparse matrix")
    if value.dim() == 0:
        return "number"
    if value.dtype == torch.int64 and value.dim() == 2 and value.size(0) == 2:
        return "edges"
    if name == "batch":
        return "batch"
    by_name = name.startswith("edge")
    if value.size(0) == edges and (by_name or edges != nodes):
        return "edge"
    if value.size(0) == nodes and not by_name:
        return "node"
    if value.dim() == 1 and value.numel() == 1:
        return "number"
    if value.size(0) == graphs:
        return "row_per_graph"
    raise NoExample(
        f"{name!r} has {value.size(0)} rows, and there are {nodes} nodes and {edges} edges"
    )


def _inside(edges: Tensor, nodes: int | None) -> tuple[Tensor, Tensor]:
    """Some edges between nodes that are there, and their places."""
    there = edges >= 0 if nodes is None else (edges >= 0) & (edges < nodes)
    chosen = there.all(0).nonzero().view(-1)[:_EDGES]
    return edges.index_select(1, chosen), chosen


def _part(edges: Tensor, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes that are kept, their edges, and which edges those are."""
    ends, chosen = _inside(edges, nodes)
    some = torch.arange(min(nodes, _LEAST_NODES), device="cpu")
    keep = torch.cat([ends.reshape(-1), some]).unique()
    if keep.numel() == chosen.numel() and chosen.numel() > 1:
        chosen = chosen[:-1]  # as many nodes as edges could be taken for each other
        ends = edges.index_select(1, chosen)
    if not chosen.numel():
        raise TooSmall("its graph has no edges")
    return keep, torch.searchsorted(keep, ends), chosen
