"""Graphs to measure on: generated ones of published sizes, kept in the cache, or data sets.

A generated graph is a directed configuration model. In-degrees follow a Lomax (Pareto II) law with
exponent 2, whose median is 0.41 of its mean, cut at a largest degree and scaled to the exact number
of edges. The source of an edge is drawn in proportion to the same degrees, so that hubs are read as
often as they are in an undirected graph. Node numbers carry no locality. With communities, a share
of every node's edges stays among the nodes of its community, whose numbers are shuffled.

The random bits come from ``PCG64.random_raw``, the stream of which numpy never changes: one seed is
one graph everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from nodebits.bench.speed.memory import require_memory
from nodebits.core.cache import cache_folder
from nodebits.core.errors import ConfigError, FileFormatError, UnknownNameError
from nodebits.data import dataset_names, load_dataset
from nodebits.data.cache import build_once
from nodebits.graph import Graph, as_graph

# Raised when the same name and seed would give another graph: old cache entries are left alone.
_GENERATION = 1
_CHUNK = 1 << 23
# Share of a node's edges that stay in its community.
INSIDE = 0.8
_RANDOM = re.compile(r"random:(\d+):(\d+)")


@dataclass(frozen=True)
class GraphSpec:
    """Sizes of a generated graph.

    Attributes:
        name: What ``--graph`` takes.
        num_nodes: Nodes.
        num_edges: Directed edges; an undirected edge counts twice.
        max_degree: Where the degrees are cut, about the largest one of the graph it stands for.
        num_features: Columns of its features.
        num_classes: Its classes.
    """

    name: str
    num_nodes: int
    num_edges: int
    max_degree: int
    num_features: int = 128
    num_classes: int = 40


SPECS = {
    spec.name: spec
    for spec in (
        GraphSpec("reddit-like", 232_965, 114_615_892, 21_657, 602, 41),
        GraphSpec("products-like", 2_449_029, 123_718_280, 17_481, 100, 47),
        GraphSpec("arxiv-like", 169_343, 2_332_486, 13_161, 128, 40),
    )
}


@dataclass
class BenchGraph:
    """A graph with what a model needs to know of it.

    Attributes:
        name: Its name in results.
        graph: CSR adjacency, row = target.
        num_features: Columns of its features.
        num_classes: Classes.
        x: float32 ``[N, num_features]`` of a data set, None where features are drawn.
        y: Labels ``[N, ...]`` of a data set, or None.
        train_mask: bool ``[N]`` of a data set, or None.
        edge_index: int64 ``[2, E]`` as the data set has it, or None.
        task: Of the data set; labels that are drawn are classes.
    """

    name: str
    graph: Graph
    num_features: int
    num_classes: int
    x: Tensor | None = None
    y: Tensor | None = None
    train_mask: Tensor | None = None
    edge_index: Tensor | None = None
    task: str = "node"

    def features(self) -> Tensor:
        """The data set's features, or seeded normal ones, float32 ``[N, num_features]``."""
        if self.x is not None:
            return self.x
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.graph.num_src, self.num_features, generator=generator, device="cpu")


def find_spec(name: str) -> GraphSpec | None:
    """The spec of a generated graph (``random:NODES:EDGES`` included), None for other names."""
    if name in SPECS:
        return SPECS[name]
    found = _RANDOM.fullmatch(name)
    if found is None:
        return None
    nodes, edges = int(found[1]), int(found[2])
    return GraphSpec(name, nodes, edges, 100 * max(1, edges // max(nodes, 1)))


def load_graph(
    name: str,
    *,
    seed: int = 0,
    communities: int = 0,
    cache: str | PathLike[str] | None = None,
    data_root: str | PathLike[str] | None = None,
) -> BenchGraph:
    """Generates a graph, reads it from the cache, or loads a data set.

    Args:
        name: ``reddit-like``, ``products-like``, ``arxiv-like``, ``random:NODES:EDGES`` or a
            node-level data set.
        seed: Of a generated graph.
        communities: Number of communities of a generated graph, 0 for none.
        cache: See :func:`nodebits.load_dataset`.
        data_root: Likewise.

    Raises:
        UnknownNameError: There is no such graph.
        ConfigError: Sizes that no graph has, or communities of a data set.
        OutOfMemoryError: The graph would not fit this machine's memory.
        FileFormatError: The cached graph is damaged.
    """
    spec = find_spec(name)
    if spec is not None:
        indptr, indices = _cached(spec, seed, communities, cache_folder(cache).absolute())
        shown = f"{name}/{communities} communities" if communities else name
        graph = Graph(indptr, indices, spec.num_nodes)
        return BenchGraph(shown, graph, spec.num_features, spec.num_classes)
    if communities:
        raise ConfigError(f"communities={communities}: only generated graphs have them, not {name}")
    try:
        dataset = load_dataset(name, data_root, cache=cache)
    except UnknownNameError:
        known = [*SPECS, "random:NODES:EDGES", *dataset_names()]
        raise UnknownNameError.for_name("graph", name, known) from None
    if dataset.many_graphs:
        raise ConfigError(f"{dataset.name} is a set of small graphs: name a node-level data set")
    data = dataset.data
    graph = as_graph(data.edge_index, data.x.size(0))
    return BenchGraph(
        dataset.name,
        graph,
        dataset.num_features,
        dataset.num_classes,
        data.x.float(),
        data.y,
        data.train_mask,
        data.edge_index,
        dataset.task,
    )


def _cached(spec: GraphSpec, seed: int, communities: int, cache: Path) -> tuple[Tensor, Tensor]:
    key = f"{spec.name.replace(':', '-')}-s{seed}-c{communities}-v{_GENERATION}"

    def build(folder: Path) -> None:
        indptr, indices = generate(spec, seed, communities)
        safetensors.torch.save_file(
            {"indptr": indptr, "indices": indices}, folder / "graph.safetensors"
        )

    file = build_once(cache / "bench" / key, build) / "graph.safetensors"
    try:
        stored = safetensors.torch.load_file(file)
        # Copies: a mapped file would be read, and counted, page by page during the first call.
        indptr, indices = stored["indptr"].clone(), stored["indices"].clone()
        whole = indptr.shape == (spec.num_nodes + 1,) and indices.shape == (spec.num_edges,)
    except (SafetensorError, KeyError, OSError) as error:
        raise FileFormatError(f"cached graph {file}: {error}; delete its folder") from error
    if not whole:
        raise FileFormatError(f"cached graph {file} has other sizes: delete its folder")
    return indptr, indices


def generate(spec: GraphSpec, seed: int = 0, communities: int = 0) -> tuple[Tensor, Tensor]:
    """Makes a graph; see the module's head.

    Args:
        spec: Its sizes.
        seed: Of its randomness, 0 or more.
        communities: Number of communities of equal size, 0 for none.

    Returns:
        ``indptr`` int64 ``[N + 1]`` and ``indices`` int32 ``[E]``.

    Raises:
        ConfigError: If no graph has these sizes.
        OutOfMemoryError: If it would not fit this machine's memory.
    """
    _check(spec, seed, communities)
    require_memory(12 * spec.num_edges + 80 * spec.num_nodes + 64 * _CHUNK, f"graph {spec.name}")
    bits = np.random.PCG64(seed)
    degrees = heavy_tailed_degrees(spec, bits)
    # Half-edges in a row, as many for a node as its degree: a uniform one belongs to a node in
    # proportion to its degree, and the half-edges of a community lie together.
    owner = np.repeat(np.arange(spec.num_nodes, dtype=np.int32), degrees)
    start = np.zeros(spec.num_nodes + 1, dtype=np.int64)
    np.cumsum(degrees, out=start[1:])
    if not communities:
        indices = np.empty(spec.num_edges, dtype=np.int32)
        for first in range(0, spec.num_edges, _CHUNK):
            last = min(first + _CHUNK, spec.num_edges)
            high = bits.random_raw(last - first) >> np.uint64(32)
            indices[first:last] = owner[_below(high, np.uint64(spec.num_edges))]
        return torch.from_numpy(start), torch.from_numpy(indices)
    return _with_communities(spec, communities, bits, degrees, owner, start)


def _check(spec: GraphSpec, seed: int, communities: int) -> None:
    if spec.num_nodes < 1 or spec.num_edges < 1 or spec.num_nodes >= 2**31:
        raise ConfigError(f"graph {spec.name}: needs at least one node (below 2^31) and one edge")
    if spec.num_edges >= 2**32 or spec.num_edges > spec.num_nodes * spec.max_degree:
        raise ConfigError(
            f"graph {spec.name}: {spec.num_edges} edges are more than {spec.num_nodes} nodes of "
            f"degree up to {spec.max_degree} have, or than 2^32 - 1"
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}: it must be 0 or more")
    if not 0 <= communities <= spec.num_nodes:
        raise ConfigError(f"communities={communities}: 0 to {spec.num_nodes} for {spec.name}")


def _below(random: NDArray[np.uint64], bound: np.uint64 | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Uniform 32-bit numbers to uniform numbers below ``bound`` (at most 2^32)."""
    result: NDArray[np.uint64] = (random * bound) >> np.uint64(32)
    return result


def heavy_tailed_degrees(spec: GraphSpec, bits: np.random.PCG64) -> NDArray[np.int64]:
    """In-degrees ``[N]`` that sum to ``spec.num_edges``, none above ``spec.max_degree``."""
    uniform = (bits.random_raw(spec.num_nodes) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    shape = 1.0 / np.sqrt(1.0 - uniform) - 1.0
    low, high = 0.0, 1.0
    while np.minimum(high * shape, spec.max_degree).sum() < spec.num_edges and high < 1e18:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if np.minimum(middle * shape, spec.max_degree).sum() < spec.num_edges:
            low = middle
        else:
            high = middle
    exact = np.minimum(high * shape, spec.max_degree)
    degrees = np.floor(exact).astype(np.int64)
    # What rounding down left over goes where most was cut off.
    order = np.argsort(degrees - exact, kind="stable")
    missing = spec.num_edges - int(degrees.sum())
    while missing > 0:
        room = order[degrees[order] < spec.max_degree][:missing]
        degrees[room] += 1
        missing -= len(room)
    return degrees


def _with_communities(
    spec: GraphSpec,
    communities: int,
    bits: np.random.PCG64,
    degrees: NDArray[np.int64],
    owner: NDArray[np.int32],
    start: NDArray[np.int64],
) -> tuple[Tensor, Tensor]:
    nodes = spec.num_nodes
    bounds = np.arange(communities + 1, dtype=np.int64) * nodes // communities
    community = np.repeat(np.arange(communities), np.diff(bounds))
    first_half = start[bounds[:-1]][community].astype(np.uint64)
    halves = (start[bounds[1:]] - start[bounds[:-1]])[community].astype(np.uint64)
    inner = np.argsort(bits.random_raw(nodes), kind="stable")  # node number -> inner number
    number = np.empty(nodes, dtype=np.int32)
    number[inner] = np.arange(nodes, dtype=np.int32)
    indptr = np.zeros(nodes + 1, dtype=np.int64)
    np.cumsum(degrees[inner], out=indptr[1:])
    indices = np.empty(spec.num_edges, dtype=np.int32)
    inside = np.uint64(int(INSIDE * 2**32))
    row = 0
    while row < nodes:
        stop = int(np.searchsorted(indptr, indptr[row] + _CHUNK, side="right")) - 1
        stop = min(max(stop, row + 1), nodes)
        target = np.repeat(inner[row:stop], degrees[inner[row:stop]])
        random = bits.random_raw(len(target))
        stays = (random & np.uint64(2**32 - 1)) < inside
        high = random >> np.uint64(32)
        anywhere = _below(high, np.uint64(spec.num_edges))
        near = first_half[target] + _below(high, halves[target])
        chosen = owner[np.where(stays & (halves[target] > 0), near, anywhere)]
        indices[indptr[row] : indptr[stop]] = number[chosen]
        row = stop
    return torch.from_numpy(indptr), torch.from_numpy(indices)
