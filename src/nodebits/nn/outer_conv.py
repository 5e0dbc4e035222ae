"""Convolutions whose edges have a matrix each: weighed sums of rows, then one map."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv, check_width, split_pair
from nodebits.nn.functional import AnyRows, quantize_rows
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.pairs import edge_features
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer


class OuterConv(QuantConv):
    """Base of ``out_i = W x_i + sum_j Q(x_j) sum_k f_k(e_ij) M_k``, or the mean.

    What makes numbers ``f`` of an edge's features, and where the matrices ``M`` are, is the layer's
    own (:class:`nodebits.nn.outer_map.OuterMap`).
    """

    aggregations = ("add", "sum", "mean")
    absent_sites = ("attention", "message_dst")
    # The option that says how many columns features of edges have; None where any number may be.
    counts_features: ClassVar[str | None] = None
    aggr: str
    width: int
    out_channels: int
    bias: nn.Parameter | None

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return "integer sum, maps by node"

    def own_map(self) -> Any:
        """What maps the rows of the targets themselves, or None."""
        raise NotImplementedError

    def mapped_sums(
        self, rows: AnyRows, features: Tensor, graph: Graph, row_scale: Tensor | None
    ) -> Tensor:
        """The sums over edges, float32 ``[num_dst, out_channels]``.

        Args:
            rows: Of the sources.
            features: Of edges, float32 ``[E, D]``.
            graph: Topology.
            row_scale: float32 ``[num_dst]``, by which a target's sum is multiplied, or None.
        """
        raise NotImplementedError

    def place_rows(self, place: Placement, path: str) -> None:
        """All sites but those of the factors."""
        self.place_sites(place, path, self.width, self.out_channels)
        self.message = place.activation(
            SiteInfo(path, self.layer_type, "message", "message", self.width, pairs=True)
        )

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form, without weights.
            edge_attr: float32 ``[E, D]``.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            ShapeError: On features of other shapes, of nodes or of edges.
        """
        source, target, num_src, num_dst = split_pair(x, self)
        check_width(source, self.width, self)
        graph = self.graph_of(edge_index, num_src, num_dst, size=size).topology()
        columns = None if self.counts_features is None else getattr(self, self.counts_features)
        features = edge_features(edge_attr, graph.num_edges, self, columns)
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            rows = quantize_rows(self.message, source)
            mean = graph.inverse_degree if self.aggr == "mean" else None
            out = self.mapped_sums(rows, features, graph, mean)
            own = self.own_map()
            if own is not None and target is not None:
                out = out + own(target)
            return requantize(self.output, out if self.bias is None else out + self.bias)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message, *input_sites_of(self.own_map())]
