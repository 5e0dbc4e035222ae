"""A graph on disk in parts: a file for each rank, and one that says what they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.core.file_fields import (
    Choice,
    Integer,
    ListOf,
    Optional,
    Options,
    Text,
    check_fields,
)
from nodebits.core.files import write_atomically
from nodebits.core.strict_json import read_json, to_json
from nodebits.distributed.hubs import Hubs
from nodebits.distributed.partition import Part, divided, owners
from nodebits.distributed.settings import METHODS
from nodebits.graph import Graph, as_graph
from nodebits.graph.loops import EDGE_INDEX
from nodebits.runtime import container

CONTENTS = "partition.json"
_VERSION = 2
_LARGEST = 1 << 48
_FIELDS: Options = {
    "version": Integer(_VERSION, _VERSION),
    "id": Text(),
    "parts": Integer(1, 1 << 20),
    "method": Choice(METHODS),
    "nodes": Integer(0, _LARGEST),
    "edges": Integer(0, _LARGEST),
    "boundary": Integer(0, _LARGEST),
    "split_hubs": Optional(Integer(1, _LARGEST)),
    "hubs": Integer(0, _LARGEST),
    "partial": Integer(0, _LARGEST),
    "late": Integer(0, _LARGEST),
    "name": Text(),
    "ids": Optional(ListOf(Text())),
    "classes": Optional(ListOf(Text())),
}
_PART: Options = {
    "id": Text(),
    "rank": Integer(0, 1 << 20),
    "inner": Integer(0, _LARGEST),
    "receive": ListOf(Integer(0, _LARGEST)),
    "send": ListOf(Integer(0, _LARGEST)),
    "hubs": Integer(0, _LARGEST),
    "hub_receive": ListOf(Integer(0, _LARGEST)),
    "hub_send": ListOf(Integer(0, _LARGEST)),
    "hub_shares": ListOf(Integer(0, _LARGEST)),
}
_GRAPH = {
    "nodes": torch.int64,
    "indptr": torch.int64,
    "indices": torch.int32,
    "edges": torch.int64,
    "send": torch.int64,
}
_HUBS = {"send": torch.int64, "indptr": torch.int64, "indices": torch.int32}
_TENSORS = {**_GRAPH, **{f"hub_{name}": dtype for name, dtype in _HUBS.items()}}


@dataclass(frozen=True)
class Contents:
    """What a folder of parts is of.

    Attributes:
        id: Tells one division of one graph from others.
        parts: Number of ranks.
        method: How nodes were divided.
        nodes: Nodes of the whole graph.
        edges: Its edges.
        boundary: Rows that ranks read of others, in all.
        name: Of the data.
        ids: What own data call their nodes.
        classes: What own data call their classes.
        split_hubs: Nodes with more in-edges than this are divided too, None: none is.
        hubs: How many are, because some of their edges come from other ranks.
        partial: Rows of partial sums that cross for them in a layer.
        late: Rows that cross for them besides where a layer does not merge partial sums.
    """

    id: str
    parts: int
    method: str
    nodes: int
    edges: int
    boundary: int
    name: str
    ids: list[str] | None = None
    classes: list[str] | None = None
    split_hubs: int | None = None
    hubs: int = 0
    partial: int = 0
    late: int = 0


@dataclass(frozen=True)
class LoadedPart:
    """What a rank has.

    Attributes:
        contents: Of the folder.
        rank: Whose part it is.
        part: Nodes and edges.
        of_nodes: Arguments of the model with a row for each own node, by name.
        of_edges: Likewise of edges, in the order of the part's.
    """

    contents: Contents
    rank: int
    part: Part
    of_nodes: Mapping[str, Tensor]
    of_edges: Mapping[str, Tensor]


def is_folder_of_parts(path: Path) -> bool:
    """Whether ``nodebits partition`` wrote a folder."""
    return (path / CONTENTS).is_file()


def write_parts(
    folder: Path,
    adjacency: Any,
    of_nodes: Mapping[str, Tensor],
    of_edges: Mapping[str, Tensor],
    parts: int,
    method: str = "range",
    split_hubs: int | None = None,
    **about: Any,
) -> Contents:
    """Divides a graph and writes it.

    Args:
        folder: Of the files; what it has of an earlier division is overwritten last.
        adjacency: Any form, of as many nodes as the tensors have.
        of_nodes: Arguments of a model by name, ``[N, ...]``.
        of_edges: Likewise, ``[E, ...]`` in the order of the adjacency.
        parts: Number of ranks.
        method: As :func:`nodebits.distributed.partition.owners`.
        split_hubs: As :func:`nodebits.distributed.partition.divided`.
        **about: ``name``, ``ids`` and ``classes`` of :class:`Contents`.

    Raises:
        ConfigError, GraphError, NodeIndexError: What cannot be divided.
        OutputError: The folder cannot be written.
    """
    count = next(iter(of_nodes.values())).size(0)
    graph = as_graph(adjacency, count, count)
    if graph.form != EDGE_INDEX or graph.edge_weight is not None:
        raise ConfigError(
            "the adjacency is a sparse matrix, which layers treat in ways of its own: divide an "
            "edge_index with edge_weight beside it"
        )
    owner = owners(graph, parts, method, split_hubs)
    made = list(divided(graph, owner, parts, split_hubs))
    contents = Contents(
        _digest(graph, owner, split_hubs, of_nodes, of_edges),
        parts,
        method,
        count,
        graph.num_edges,
        sum(sum(part.receive) for part in made),
        **about,
        split_hubs=split_hubs,
        hubs=sum(part.hubs.count for part in made),
        partial=sum(sum(part.hubs.shares) for part in made),
        late=sum(sum(part.hubs.receive) for part in made),
    )
    for rank, part in enumerate(made):
        tensors = {name: getattr(part, name) for name in _GRAPH}
        tensors |= {f"hub_{name}": getattr(part.hubs, name) for name in _HUBS}
        tensors |= {f"node/{name}": values[part.nodes] for name, values in of_nodes.items()}
        tensors |= {f"edge/{name}": values[part.edges] for name, values in of_edges.items()}
        told = {
            "id": contents.id,
            "rank": rank,
            "inner": part.inner,
            "receive": part.receive,
            "send": part.send_counts,
            "hubs": part.hubs.count,
            "hub_receive": part.hubs.receive,
            "hub_send": part.hubs.send_counts,
            "hub_shares": part.hubs.shares,
        }
        container.write(_file(folder, rank), container.PART, {"part": told}, tensors)
    text = to_json({"version": _VERSION, **vars(contents)}, indent=1)
    write_atomically(folder / CONTENTS, text.encode())
    return contents


def read_contents(folder: Path) -> Contents:
    """What a folder is of.

    Raises:
        FileNotFoundError: There is none.
        FileFormatError: It is damaged, or of another version.
    """
    path = folder / CONTENTS
    found = read_json(path, "a description of parts")
    if isinstance(found, dict) and found.get("version") in range(1, _VERSION):
        raise FileFormatError(
            f"{path} is of version {found['version']}, and this release reads version {_VERSION}: "
            "divide the graph again with nodebits partition"
        )
    check_fields(found, _FIELDS, str(path))
    return Contents(**{name: value for name, value in found.items() if name != "version"})


def read_part(folder: Path, rank: int) -> LoadedPart:
    """The part of a rank; no other file is opened but the description.

    Raises:
        FileNotFoundError: There is none.
        FileFormatError: A file is damaged, or not of this division.
        ConfigError: There is no such rank.
    """
    contents, path = read_contents(folder), _file(folder, rank)
    if not 0 <= rank < contents.parts:
        raise ConfigError(f"{folder} has {contents.parts} parts, and none for rank {rank}")
    header, tensors = container.read(path, container.PART)
    where = f"{path}: header.part"
    about = header.get("part")
    check_fields(about if isinstance(about, dict) else {}, _PART, where)
    assert isinstance(about, dict)
    if (about["id"], about["rank"]) != (contents.id, rank):
        raise FileFormatError(f"{path} is of another division than {folder / CONTENTS}")
    for name, dtype in _TENSORS.items():
        found = tensors.get(name)
        if found is None or found.dtype != dtype or found.dim() != 1:
            raise FileFormatError(f"{path}: tensor {name!r} must be {dtype} with one axis")
    part = Part(
        tensors["nodes"],
        about["inner"],
        tensors["indptr"],
        tensors["indices"],
        tensors["edges"],
        about["receive"],
        tensors["send"],
        about["send"],
        Hubs(
            about["hubs"],
            about["hub_receive"],
            tensors["hub_send"],
            about["hub_send"],
            tensors["hub_indptr"],
            tensors["hub_indices"],
            about["hub_shares"],
        ),
    )
    _check(part, contents, str(path))
    rows = {"node/": part.nodes.numel(), "edge/": part.indices.numel()}
    given: dict[str, dict[str, Tensor]] = {kind: {} for kind in rows}
    for name, value in tensors.items():
        kind, rest = name[:5], name[5:]
        if kind not in rows:
            continue
        if value.dim() < 1 or value.size(0) != rows[kind]:
            raise FileFormatError(f"{path}: tensor {name!r} has not {rows[kind]} rows")
        given[kind][rest] = value
    return LoadedPart(contents, rank, part, given["node/"], given["edge/"])


def _check(part: Part, contents: Contents, path: str) -> None:
    """Refuses numbers that kernels, or other ranks, would trust."""
    hubs = part.hubs
    count, total, late = part.nodes.numel(), sum(part.receive), sum(hubs.receive)
    of_ranks = (part.receive, part.send_counts, hubs.receive, hubs.send_counts, hubs.shares)
    fits = (
        all(len(numbers) == contents.parts for numbers in of_ranks)
        and sum(part.send_counts) == part.send.numel()
        and sum(hubs.send_counts) == hubs.send.numel()
        and sum(hubs.shares) == hubs.indptr.numel() - 1
        and part.edges.numel() == part.indices.numel()
        and part.indptr.numel() == count + 1
        and 0 <= part.inner <= count - hubs.count
        and total + late <= part.indices.numel()  # each row of another rank is read by an edge
    )
    if not fits:
        raise FileFormatError(f"{path}: its tensors and its header do not fit each other")
    graph = Graph(part.indptr, part.indices, count + total + late)
    graph.validate()
    Graph(hubs.indptr, hubs.indices, count).validate()
    inside = graph.indices[: int(part.indptr[part.inner])]
    whole = graph.indices[: int(part.indptr[count - hubs.count])]
    for name, values, bound in (
        ("send", part.send, count),
        ("hub_send", hubs.send, count),
        ("nodes", part.nodes, contents.nodes),
        ("indices of inner nodes", inside, count),
        ("indices of nodes that are no hubs", whole, count + total),
    ):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < bound:
            raise FileFormatError(f"{path}: {name} must be in [0, {bound - 1}]")
    if not bool((hubs.indptr.diff() > 0).all()):
        raise FileFormatError(f"{path}: hub_indptr has a row without edges")


def _file(folder: Path, rank: int) -> Path:
    return folder / f"part-{rank}.safetensors"


def _digest(
    graph: Graph,
    owner: Tensor,
    split_hubs: int | None,
    of_nodes: Mapping[str, Tensor],
    of_edges: Mapping[str, Tensor],
) -> str:
    found = hashlib.sha256(f"split hubs {split_hubs}".encode())
    named = {"indptr": graph.indptr, "indices": graph.indices, "owner": owner}
    for name, value in {**named, **of_nodes, **of_edges}.items():
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
