"""Sizes that runs are recorded for: few, so that calls of many sizes share them."""

from __future__ import annotations

from typing import NamedTuple

# Sizes are 4, 5, 6 or 7 times a power of two, so at most a quarter more than is asked for.
_LEAST = 16
# Beyond it kernels take longer than it takes to start them, and padding costs more than it saves.
MOST_EDGES = 1 << 18


class Sizes(NamedTuple):
    """How many nodes, edges and graphs there are; 0 graphs where nothing is by graph."""

    nodes: int
    edges: int
    graphs: int = 0


def rounded(size: int) -> int:
    """The smallest size of a bucket that is not below ``size``."""
    if size <= _LEAST:
        return _LEAST
    unit = 1 << max((size - 1).bit_length() - 3, 0)
    return -(-size // unit) * unit


def bucket_of(real: Sizes) -> Sizes | None:
    """The sizes that a run is padded to; None where it is too large for it.

    One node more than there are, at least, and one graph where there are some: what is padding
    leads to these alone.

    Args:
        real: Of the arguments.
    """
    if max(real) > MOST_EDGES:
        return None
    graphs = rounded(real.graphs + 1) if real.graphs else 0
    return Sizes(rounded(real.nodes + 1), rounded(real.edges), graphs)
