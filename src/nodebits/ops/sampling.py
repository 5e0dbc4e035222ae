"""Neighbourhoods of a few nodes, sampled hop by hop.

The draws follow from a seed, the hop, the node and their number alone, through a counter-based
generator. A sample is therefore the same on every backend, machine and number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nodebits.core.errors import ConfigError
from nodebits.core.proven import recall, remember
from nodebits.ops import checks
from nodebits.ops.backends.cpu.kernels import kernels_for
from nodebits.ops.definitions.edges import check_indices, validate_csr

ALL = -1
MOST_DRAWS = 2**31 - 1

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


class _Draws(NamedTuple):
    fanouts: list[int]
    seed: int
    replace: bool


class Neighborhood(NamedTuple):
    """The nodes that were reached, and the edges that were followed, as a graph of its own.

    Attributes:
        nodes: int64 ``[n]``, in order of first appearance, seeds first.
        indptr: int64 ``[n + 1]``.
        indices: int32 ``[e]``, sources by their place in ``nodes``.
        edges: int64 ``[e]``, place of every edge in the whole graph's ``indices``.
        seeds: int64, place in ``nodes`` of every seed that was asked for.
        reached: Nodes that are there after the seeds, and after each hop.
    """

    nodes: Tensor
    indptr: Tensor
    indices: Tensor
    edges: Tensor
    seeds: Tensor
    reached: list[int]


def sample_neighbors(
    indptr: Tensor,
    indices: Tensor,
    seeds: Tensor,
    fanouts: Sequence[int],
    seed: int,
    replace: bool = False,
) -> Neighborhood:
    """Follows edges from targets to sources, so many of every node in each hop.

    A node is a target in one hop, the one after it appeared. Without ``replace`` every set of its
    edges is equally likely; with it, every draw gives each of them with the same probability.

    Args:
        indptr: int64 ``[N + 1]``.
        indices: int32 ``[E]``, below N.
        seeds: int64, nodes to begin with (``node_ids`` in messages); those that stand twice are
            followed once.
        fanouts: Edges of a node in each hop, 0 to 2^31 - 1; -1 for all.
        seed: 0 to 2^64 - 1.
        replace: Whether an edge may be drawn twice.

    Raises:
        NodeIndexError: If a seed, or an index, is no node.
        GraphError: If ``indptr`` does not describe rows of the edges.
        ConfigError: If a fanout or the seed is out of range.
    """
    given = indptr, indices
    indptr, indices = checks.csr(indptr, indices)
    num_nodes = indptr.numel() - 1
    if recall("sampled", *given) is None:
        validate_csr(indptr, indices, num_nodes)
        remember("sampled", True, *given)
    seeds = checks.tensor(seeds, "seeds", torch.int64, 1)
    check_indices(seeds, num_nodes, "node_ids")
    if not 0 <= seed <= _WORD:
        raise ConfigError(f"the seed of a sample is {seed}: it must be 0 to 2^64 - 1")
    for hop, fanout in enumerate(fanouts):
        if not ALL <= fanout <= MOST_DRAWS:
            raise ConfigError(
                f"fanouts[{hop}] is {fanout}: it must be 0 to 2^31 - 1, or -1 for all"
            )
    asked = indptr, indices, seeds, _Draws(list(fanouts), seed, replace)
    kernels = kernels_for(indices)
    if kernels is None:
        return _reference(*asked)
    *arrays, reached = kernels.sample_neighbors(*asked[:3], *asked[3], torch.get_num_threads())
    return Neighborhood._make([*map(from_dlpack, arrays), reached])


def _mixed(z: int) -> int:
    """The finalizer of splitmix64."""
    z &= _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    return z ^ (z >> 31)


def _places(key: int, degree: int, fanout: int, replace: bool) -> list[int]:
    """Which edges of a node are drawn, by their place in its row."""

    def below(bound: int, count: int) -> int:
        return (_mixed(key + _GOLDEN * (count + 1)) * bound) >> 64

    if degree == 0 or fanout == ALL or (fanout >= degree and not replace):
        return list(range(degree))
    if replace:
        return [below(degree, count) for count in range(fanout)]
    found: dict[int, None] = {}
    for count in range(fanout):
        last = degree - fanout + count
        place = below(last + 1, count)
        found[last if place in found else place] = None
    return list(found)


def _reference(indptr: Tensor, indices: Tensor, seeds: Tensor, draws: _Draws) -> Neighborhood:
    fanouts, seed, replace = draws
    numbers: dict[int, int] = {}
    given = [numbers.setdefault(int(node), len(numbers)) for node in seeds]
    nodes = list(numbers)
    reached, ends = [len(nodes)], [0]
    sources: list[int] = []
    edges: list[int] = []
    for hop, fanout in enumerate(fanouts):
        hop_key = _mixed(seed + _GOLDEN * (hop + 1))
        for node in nodes[len(ends) - 1 :]:
            start = int(indptr[node])
            degree = int(indptr[node + 1]) - start
            places = _places(_mixed(hop_key + _GOLDEN * node), degree, fanout, replace)
            edges += [start + place for place in places]
            ends.append(len(edges))
        for edge in edges[len(sources) :]:
            sources.append(numbers.setdefault(int(indices[edge]), len(numbers)))
        nodes = list(numbers)
        reached.append(len(nodes))
    ends += [len(edges)] * (len(nodes) + 1 - len(ends))

    def vector(values: list[int], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=indices.device)

    return Neighborhood(
        vector(nodes),
        vector(ends),
        vector(sources, torch.int32),
        vector(edges),
        vector(given),
        reached,
    )
