"""Questions, read from the JSON of strangers: whatever it holds, a question or a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nodebits.core.file_fields import shown
from nodebits.core.strict_json import parse_json
from nodebits.serving.errors import RequestError
from nodebits.serving.questions import (
    Change,
    Graphs,
    KnownRows,
    NewNodes,
    OneGraph,
    Pairs,
    Question,
    SampledRows,
)
from nodebits.serving.settings import Limits

T = TypeVar("T")
_KINDS = ("nodes", "pairs", "new_nodes", "graphs")
_CHANGES = ("add_edges", "remove_edges", "add_nodes", "remove_nodes", "set_features")
_PER_EDGE = frozenset({"edge_weight", "edge_attr"})
_MOST_HOPS, _MOST_FANOUT, _MOST_SEED = 16, 1 << 20, 2**63 - 1


@dataclass(frozen=True)
class Facts:
    """What of a model and its data a request is compared with.

    Attributes:
        rows: Nodes of the data; 0 where there are none.
        names: Node by what own data call it.
        columns: Features of a node; None where that is not known.
        integers: Whether features are ids of an embedding.
        kinds: What can be asked: the reason why not where it cannot, by field.
        of_edges: Columns of what edges have, by name, 0 for one number each: of the data, or of
            what a model of graphs reads.
    """

    rows: int
    names: Mapping[str, int]
    columns: int | None
    integers: bool
    kinds: Mapping[str, str]
    of_edges: Mapping[str, int]


def read_question(body: bytes, facts: Facts, limits: Limits) -> Question:
    """The question of a request's body.

    Raises:
        RequestError: Status 400 for what is no JSON, 413 for more than the limits allow, 422 for
            everything else; names the field, the value and what is expected.
    """
    return _read(body, lambda given: _question(given, facts, limits))


def read_change(body: bytes, facts: Facts, limits: Limits) -> Change:
    """The change of the graph that a request's body asks for.

    Raises:
        RequestError: As :func:`read_question`.
    """
    return _read(body, lambda given: _change(given, facts, limits))


def _read(body: bytes, read: Callable[[Any], T]) -> T:
    try:
        return read(parse_json(body))
    except RequestError:
        raise
    except RecursionError:
        raise RequestError(400, "the body is nested too deep") from None
    except ValueError as error:
        raise RequestError(400, f"the body is no JSON: {str(error)[:200]}") from None


def _question(given: Any, facts: Facts, limits: Limits) -> Question:
    _object(given, "the body")
    kinds = [kind for kind in _KINDS if kind in given]
    if len(kinds) != 1:
        raise _refused(f"the body must have one of {', '.join(_KINDS)}; it has {_keys(given)}")
    kind = kinds[0]
    if facts.kinds[kind]:
        raise _refused(f"{kind} cannot be asked for: {facts.kinds[kind]}")
    if kind == "nodes":
        return _rows(given, facts, limits)
    _fields(given, {kind}, "the body")
    if kind == "pairs":
        pairs = _edges(given[kind], "pairs", facts.rows, limits.max_rows, facts.names)
        if not pairs.size(1):
            raise _refused("pairs is empty: give one at least, such as [[0, 1]]")
        return Pairs(pairs, given[kind])
    if kind == "new_nodes":
        return _new_nodes(given[kind], facts, limits)
    return _graphs(given[kind], facts, limits)


def _change(given: Any, facts: Facts, limits: Limits) -> Change:
    _object(given, "the body")
    kinds = [kind for kind in _CHANGES if kind in given]
    if len(kinds) != 1:
        raise _refused(f"the body must have one of {', '.join(_CHANGES)}; it has {_keys(given)}")
    kind = kinds[0]
    weighted = kind == "add_edges" and "edge_weight" in facts.of_edges
    _fields(given, {kind, "edge_weight"} if weighted else {kind}, "the body")
    if kind in ("add_edges", "remove_edges"):
        edges = _edges(given[kind], kind, facts.rows, limits.max_edges, facts.names)
        if not weighted:
            return Change(kind, (edges,))
        if "edge_weight" not in given:
            raise _refused("edge_weight is missing: edges of the data have it")
        return Change(
            kind, (edges, _numbers(given["edge_weight"], "edge_weight", len(edges[0]), 0))
        )
    if kind == "remove_nodes":
        return Change(kind, (_nodes(given[kind], kind, facts, limits),))
    about = _object(given[kind], kind)
    x = _features(about, kind, facts, limits.max_nodes)
    if kind == "add_nodes":
        _fields(about, {"x"}, kind)
        return Change(kind, (x,))
    _fields(about, {"x", "nodes"}, kind)
    nodes = _nodes(about.get("nodes"), f"{kind}.nodes", facts, limits)
    if nodes.numel() != x.size(0):
        raise _refused(f"{kind} has {nodes.numel()} nodes and features of {x.size(0)}")
    return Change(kind, (nodes, x))


def _nodes(given: Any, name: str, facts: Facts, limits: Limits) -> Tensor:
    values = _list(given, name, limits.max_nodes)
    rows = [_row(value, f"{name}[{i}]", facts.rows, facts.names) for i, value in enumerate(values)]
    return torch.tensor(rows, dtype=torch.int64, device="cpu")


def _rows(given: Mapping[str, Any], facts: Facts, limits: Limits) -> KnownRows:
    _fields(given, {"nodes", "num_neighbors", "seed"}, "the body")
    names = _list(given["nodes"], "nodes", limits.max_rows)
    rows = [_row(value, f"nodes[{i}]", facts.rows, facts.names) for i, value in enumerate(names)]
    ids = torch.tensor(rows, dtype=torch.int64, device="cpu")
    if "num_neighbors" not in given:
        if "seed" in given:
            raise _refused("seed is of a sample: give num_neighbors too, such as [10, 10]")
        return KnownRows(ids, names)
    reason = facts.kinds["num_neighbors"]
    if reason:
        raise _refused(f"num_neighbors cannot be asked for: {reason}")
    hops = _list(given["num_neighbors"], "num_neighbors", _MOST_HOPS)
    if not hops:
        raise _refused("num_neighbors is empty: give a number for each hop, such as [10, 10]")
    for hop, value in enumerate(hops):
        _integer(value, f"num_neighbors[{hop}]", -1, _MOST_FANOUT)
    seed = given.get("seed")
    if seed is not None:
        _integer(seed, "seed", 0, _MOST_SEED)
    return SampledRows(ids, names, hops, seed)


def _row(value: Any, name: str, rows: int, names: Mapping[str, int]) -> int:
    if type(value) is str and names:
        if value not in names:
            raise _refused(f"{name} is {shown(value)}: the data have no such node")
        return names[value]
    return _integer(value, name, 0, rows - 1)


def _new_nodes(given: Any, facts: Facts, limits: Limits) -> NewNodes:
    _fields(_object(given, "new_nodes"), {"x", "edges", *facts.of_edges}, "new_nodes")
    x = _features(given, "new_nodes", facts, min(limits.max_rows, limits.max_nodes))
    if x.size(0) == 0:
        raise _refused("new_nodes.x is empty: give the features of a node at least")
    total = facts.rows + x.size(0)
    ends = given.get("edges", [])
    edges = _edges(ends, "new_nodes.edges", total, limits.max_edges, facts.names)
    of_edges = {}
    for name, width in facts.of_edges.items():
        if name not in given and edges.size(1):
            raise _refused(f"new_nodes.{name} is missing: edges of the data have it")
        values = given.get(name, [])
        of_edges[name] = _numbers(values, f"new_nodes.{name}", edges.size(1), width)
    return NewNodes(x, edges, of_edges)


def _graphs(given: Any, facts: Facts, limits: Limits) -> Graphs:
    entries = _list(given, "graphs", limits.max_rows)
    if not entries:
        raise _refused("graphs is empty: give one at least")
    graphs: list[OneGraph] = []
    nodes = edges = 0
    for i, entry in enumerate(entries):
        graph = _graph(entry, f"graphs[{i}]", facts, limits)
        nodes, edges = nodes + graph.x.size(0), edges + graph.edges.size(1)
        for count, most, what in (
            (nodes, limits.max_nodes, "nodes"),
            (edges, limits.max_edges, "edges"),
        ):
            if count > most:
                raise RequestError(413, f"the graphs have more than {most} {what}: ask twice")
        graphs.append(graph)
    graphs = _with_columns(graphs, facts)
    for i, graph in enumerate(graphs):
        if graph.others.keys() != graphs[0].others.keys():
            raise _refused(f"graphs[{i}] has other fields than graphs[0]: give all the same")
    return Graphs(graphs)


def _with_columns(graphs: list[OneGraph], facts: Facts) -> list[OneGraph]:
    """Gives graphs without edges no rows of as many columns as others have, or the model reads."""
    columns: dict[str, Sequence[int]] = {}
    full = [graph for graph in graphs if graph.edges.size(1)]
    for graph in reversed(full):
        columns |= {n: v.shape[1:] for n, v in graph.others.items() if n in _PER_EDGE}
    if not full:
        columns = {n: (width,) if width else () for n, width in facts.of_edges.items()}
    none = {n: torch.empty((0, *shape), device="cpu") for n, shape in columns.items()}
    return [g if g.edges.size(1) else OneGraph(g.x, g.edges, {**g.others, **none}) for g in graphs]


def _graph(given: Any, where: str, facts: Facts, limits: Limits) -> OneGraph:
    _fields(_object(given, where), {"x", "edges", "pos", *_PER_EDGE}, where)
    x = _features(given, where, facts, limits.max_nodes)
    if x.size(0) == 0:
        raise _refused(f"{where}.x is empty: a graph has one node at least")
    edges = _edges(given.get("edges", []), f"{where}.edges", x.size(0), limits.max_edges, {})
    others = {}
    for name in sorted((_PER_EDGE | {"pos"}) & given.keys()):
        rows = edges.size(1) if name in _PER_EDGE else x.size(0)
        others[name] = _numbers(given[name], f"{where}.{name}", rows, None)
    return OneGraph(x, edges, others)


def _features(given: Mapping[str, Any], where: str, facts: Facts, most: int) -> Tensor:
    if "x" not in given:
        raise _refused(f"{where}.x is missing: the features of every node")
    name = f"{where}.x"
    rows = _list(given["x"], name, most)
    if facts.integers:
        return _ids(rows, name)
    return _numbers(rows, name, len(rows), facts.columns)


def _ids(rows: Sequence[Any], name: str) -> Tensor:
    """int64 ``[n]`` or ``[n, c]``: numbers to look up in an embedding."""
    flat = rows
    if rows and type(rows[0]) is list:
        widths = {len(row) if type(row) is list else -1 for row in rows}
        if len(widths) != 1:
            raise _refused(f"{name} must hold lists of one length, a row of ids for each node")
        flat = list(chain.from_iterable(rows))
    for i, value in enumerate(flat):
        _integer(value, f"value {i} of {name}", 0, 2**31 - 1)
    found = torch.tensor(flat, dtype=torch.int64, device="cpu")
    return found if flat is rows else found.view(len(rows), -1)


def _edges(given: Any, name: str, nodes: int, most: int, names: Mapping[str, int]) -> Tensor:
    """int64 ``[2, e]`` among so many nodes; ``names`` are of those that own data call something."""
    pairs = _list(given, name, most)
    if set(map(type, pairs)) - {list} or {len(pair) for pair in pairs} - {2}:
        place = next(i for i, p in enumerate(pairs) if type(p) is not list or len(p) != 2)
        raise _refused(
            f"{name}[{place}] is {shown(pairs[place])}: expected [source, target], two node numbers"
        )
    ends = list(chain.from_iterable(pairs))
    if set(map(type, ends)) - {int} or (ends and not 0 <= min(ends) <= max(ends) < nodes):
        named = [(value, f"{name}[{i}]") for i, pair in enumerate(pairs) for value in pair]
        ends = [_row(value, where, nodes, names) for value, where in named]
    return torch.tensor(ends, dtype=torch.int64, device="cpu").view(-1, 2).t().contiguous()


def _numbers(given: Any, name: str, rows: int, columns: int | None) -> Tensor:
    """float32 ``[rows, columns]``; ``[rows]`` for 0 columns, any for None.

    Numbers beyond float32 are refused as NaN would be, which JSON has not.
    """
    values = _list(given, name, None)
    if len(values) != rows:
        raise _refused(f"{name} has {len(values)} entries: expected {rows}")
    if columns is None:
        columns = len(values[0]) if values and type(values[0]) is list else 0
    flat: Sequence[Any] = values
    if columns:
        for i, row in enumerate(values):
            if type(row) is not list or len(row) != columns:
                held = f"{len(row)} of them" if type(row) is list else shown(row)
                raise _refused(f"{name}[{i}]: expected a list of {columns} numbers, got {held}")
        flat = list(chain.from_iterable(values))
    if set(map(type, flat)) - {int, float}:
        place = next(i for i, v in enumerate(flat) if type(v) not in (int, float))
        at = f"{name}[{place // columns}][{place % columns}]" if columns else f"{name}[{place}]"
        raise _refused(f"{at} is {shown(flat[place])}: expected a number")
    try:
        with np.errstate(over="ignore"):
            made = np.array(flat, dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise _refused(f"{name} holds a number beyond float32") from None
    if not np.isfinite(made).all():
        raise _refused(f"value {int(np.argmin(np.isfinite(made)))} of {name} is beyond float32")
    found = torch.from_numpy(made)
    return found.view(rows, columns) if columns else found


def _object(given: Any, name: str) -> Mapping[str, Any]:
    if type(given) is not dict:
        raise _refused(f"{name} is {shown(given)}: expected an object")
    return given


def _list(given: Any, name: str, most: int | None) -> list[Any]:
    if type(given) is not list:
        raise _refused(f"{name} is {shown(given)}: expected a list")
    if most is not None and len(given) > most:
        raise RequestError(413, f"{name} has {len(given)} entries: {most} at most, ask twice")
    return given


def _integer(value: Any, name: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _refused(f"{name} is {shown(value)}: expected an integer from {least} to {most}")
    return value


def _fields(given: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        raise _refused(
            f"{where} has the field {shown(unknown[0])}: known are {', '.join(sorted(known))}"
        )


def _keys(given: Mapping[str, Any]) -> str:
    names = ", ".join(shown(name) for name in list(given)[:5])
    return names or "no field"


def _refused(reason: str) -> RequestError:
    return RequestError(422, reason)
