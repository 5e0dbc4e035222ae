"""The normalised adjacency as an integer sum between two diagonal factors."""

from __future__ import annotations

from torch import Tensor

from nodebits.engine.edges import EdgeCodes
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.functional import aggregate, quantize_rows
from nodebits.nn.quantizers.base import Quantizer


class Operator:
    """``A_hat`` of one forward.

    Args:
        graph: Topology, self loops included.
        factor: ``d^-1/2``, float32 ``[N]``, or None for the plain adjacency.
        edges: Codes of the edge weights, or None.
    """

    def __init__(self, graph: Graph, factor: Tensor | None, edges: EdgeCodes | None) -> None:
        self.graph, self.factor, self.edges = graph, factor, edges

    def __call__(self, site: Quantizer | RowQuantizer, x: Tensor) -> Tensor:
        """``A_hat Q(x)`` with the rounding of ``site``; float32 ``[N, C]``."""
        rows = quantize_rows(site, x, self.factor)
        return aggregate(rows, self.graph, self.edges, self.factor)
