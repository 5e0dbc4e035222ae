"""Codes of two rows that meet at an edge, once for both forms of rows.

Both ends of an edge stand on one scale, so that their codes may be added as integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.engine.formats import Summands
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, Site, quantize_rows, trained
from nodebits.nn.inputs import Features
from nodebits.ops.definitions.pairs import MOST_FLOOR

# Edges whose rows are gathered at once.
EDGE_BLOCK = 65_536


def quantize_together(site: Site, one: Features, other: Features) -> tuple[AnyRows, AnyRows]:
    """Rows of two tensors on one scale; a range that is observed is that of both.

    Args:
        site: Of both.
        one: float32 ``[N, C]``.
        other: float32 ``[M, C]``, the same object where it is the same rows.
    """
    if one is other or isinstance(site, RowQuantizer):
        first = quantize_rows(site, one)
        return first, first if other is one else quantize_rows(site, other)
    assert isinstance(one, Tensor) and isinstance(other, Tensor)
    both = trained(quantize_rows(site, torch.cat([one, other])))
    parts = both.codes.split([one.size(0), other.size(0)])
    return both._replace(codes=parts[0]), both._replace(codes=parts[1])


class Meeting(NamedTuple):
    """Codes as they meet others.

    Attributes:
        rows: As they were given.
        zero_point: float32 ``[1]`` or ``[C]``.
        summands: Packed fields; None in training.
    """

    rows: AnyRows
    zero_point: Tensor
    summands: Summands | None

    @property
    def codes(self) -> Tensor:
        """float32 ``[N, C]``."""
        return self.rows.float_codes()

    @property
    def num_cols(self) -> int:
        """C."""
        return self.rows.num_cols


def meeting(rows: AnyRows, site: str) -> Meeting:
    """Codes that may be added to, or multiplied with, those of other rows.

    Args:
        rows: Of a site that is not left in float.
        site: Its name, for the error.

    Raises:
        ConfigError: If every row has a scale, a zero point or a width of its own.
    """
    if not rows.is_plain:
        raise ConfigError(
            f"site {site!r} holds rows that meet others at an edge: it needs one width, scale and "
            "zero point for all rows, or one per column"
        )
    summands = rows.summands()
    return Meeting(rows, rows.zero_point if summands is None else summands.zero_point, summands)


def edge_blocks(graph: Graph) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Targets, sources and places of some edges after some."""
    for e in range(0, graph.num_edges, EDGE_BLOCK):
        part = slice(e, min(e + EDGE_BLOCK, graph.num_edges))
        yield graph.rows[part], graph.indices[part], part


def _rounded(x: Tensor) -> Tensor:
    """``x`` rounded, with the gradient of ``x``."""
    return x + (x.round() - x).detach()


def common_zero(*zero_points: Tensor, cols: int) -> Tensor:
    """What the sum of two codes is at zero: ``[C]``, an integer that no sum is apart from."""
    total = zero_points[0] + zero_points[1]
    return _rounded(total.clamp(0, MOST_FLOOR)).expand(cols)
