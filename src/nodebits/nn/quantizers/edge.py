"""Codes of what stands on edges: edge weights, and the numerators of a softmax.

The largest magnitude of a target's edges gives that target its scale. The scale of a row commutes
with the sum over the row, so it is one more factor of the epilogue: weights may span any number of
orders of magnitude from row to row, and nothing has to be calibrated.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.affine import Codes, check_bits, symmetric_qparams, unsigned_qparams
from nodebits.core.errors import LostEdgeWeightsWarning
from nodebits.core.file_fields import BITS, Options
from nodebits.engine.rows import Rows
from nodebits.engine.sites import RowQuantizer, register_rows
from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.base import Quantizer
from nodebits.ops.autograd import FakeQuantize, Gradient

# A target is told about when more than this share of its weight rounds to nothing.
_LOST_SHARE = 0.1


class EdgeWeightCodes(NamedTuple):
    """Codes of the edges of a graph, ``(codes - zero_point) * scale[target]``.

    Attributes:
        codes: float32 ``[E, H]``, integers with straight-through gradients.
        scale: float32 ``[num_dst, H]``.
        zero_point: 0, or ``2**(bits-1)`` where weights have both signs.
    """

    codes: Tensor
    scale: Tensor
    zero_point: int


def quantize_edges(
    weight: Tensor, graph: Graph, bits: int, signs: Tensor | None = None
) -> EdgeWeightCodes:
    """Rounds edge weights with the scale of their target.

    Args:
        weight: float32 ``[E, H]`` in CSR order.
        graph: Topology.
        bits: 1 to 8.
        signs: Whether one of these is below zero decides about a zero point; default: the weights.
    """
    value, heads = weight.detach(), weight.size(1)
    index = graph.rows.view(-1, 1).expand(-1, heads)
    extent = value.new_zeros(graph.num_dst, heads).scatter_reduce(0, index, value.abs(), "amax")
    signed = bool(((value if signs is None else signs) < 0).any())
    scale, _ = (symmetric_qparams if signed else unsigned_qparams)(extent.view(-1), bits)
    scale = scale.view(-1, heads)
    zero_point = 1 << (bits - 1) if signed else 0
    by_edge = scale.index_select(0, graph.rows).view(-1)
    zero = torch.full_like(by_edge, float(zero_point))
    flat = weight.reshape(-1, 1)
    codes: Tensor = FakeQuantize.apply(flat, by_edge, zero, 0, bits, int(Gradient.PASS))
    return EdgeWeightCodes(codes.view(weight.shape), scale, zero_point)


def warn_if_lost(weight: Tensor, centred: Tensor, graph: Graph, site: str) -> None:
    """Tells where weights that are not zero became code 0 and took part of a sum with them.

    Args:
        weight: float32 ``[E, 1]`` in CSR order.
        centred: Their codes minus the zero point, same shape.
        graph: Topology.
        site: Path of the site.
    """
    size = weight.abs().view(-1)
    lost = size.masked_fill(centred.view(-1) != 0, 0.0)
    total = size.new_zeros(graph.num_dst).index_add(0, graph.rows, size)
    missing = size.new_zeros(graph.num_dst).index_add(0, graph.rows, lost)
    rows = int((missing > _LOST_SHARE * total).sum())
    if rows:
        share = int((lost > 0).sum()) / max(int((size > 0).sum()), 1)
        warnings.warn(
            f"site {site!r}: {share:.1%} of the edge weights that are not zero become code 0, and "
            f"{rows} of {graph.num_dst} nodes lose more than {_LOST_SHARE:.0%} of their weight: "
            "use more attention_bits (32 leaves edge weights in float), or rescale the weights",
            LostEdgeWeightsWarning,
            stacklevel=2,
        )


class EdgeQuantizer(Quantizer):
    """A scale per target, read from the weights of its edges.

    Args:
        bits: 1 to 8.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits: int = check_bits(bits)

    def forward(self, x: Tensor, graph: Graph | None = None) -> Codes:
        """Quantizes edge weights.

        Args:
            x: float32 ``[E, 1]`` in CSR order.
            graph: Whose edges they are; None for the edges of a single target.

        Returns:
            Codes with the scale of every edge's target, ``[E, 1]``.
        """
        graph = _one_target(x) if graph is None else graph
        codes, scale, zero_point = quantize_edges(x, graph, self.bits)
        by_edge = scale.index_select(0, graph.rows)
        return Codes(codes, by_edge, by_edge.new_full((1,), float(zero_point)), self.bits)

    def freeze(self) -> RowQuantizer:
        return EdgeRows(self.bits)

    def describe(self) -> str:
        return "target"


@register_rows
class EdgeRows(RowQuantizer):
    """The frozen form of :class:`EdgeQuantizer`: nothing but a width.

    Args:
        bits: 1 to 8.
    """

    kind = "edge"
    options: ClassVar[Options] = {"bits": BITS}
    granularity = "target"

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def pack(self, x: Tensor, row_factor: Tensor | None = None, graph: Graph | None = None) -> Rows:
        """See :meth:`RowQuantizer.pack`; ``graph`` as in :meth:`EdgeQuantizer.forward`."""
        bits = int(self.bits or 0)
        x = x if row_factor is None else x * row_factor.view(-1, 1)
        graph = _one_target(x) if graph is None else graph
        codes, scale, zero_point = quantize_edges(x, graph, bits)
        packed = ops.pack(codes.to(torch.uint8), bits)
        by_edge = scale.index_select(0, graph.rows).view(-1)
        zero = by_edge.new_full((1,), float(zero_point))
        return Rows.dense(packed, bits, x.size(1), by_edge, zero, 0)

    @classmethod
    def build(cls, config: dict[str, Any]) -> EdgeRows:
        return cls(int(config["bits"]))

    def scale_values(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_values`; ``num_rows`` counts targets."""
        return num_rows


def _one_target(x: Tensor) -> Graph:
    ends = torch.tensor([0, x.size(0)], device=x.device)
    return Graph(ends, torch.zeros(x.size(0), dtype=torch.int32, device=x.device), 1)
