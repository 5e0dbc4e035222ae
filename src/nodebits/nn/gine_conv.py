"""GINEConv (Hu et al. 2020): nodes and edges on one scale, added and rectified as integers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch_geometric.nn import GINEConv

from nodebits.core.file_fields import Choice, Optional, Options
from nodebits.engine.pending import expect_sites
from nodebits.nn.conv import check_width, is_stack, split_pair
from nodebits.nn.functional import dequantize_rows, quantize_rows
from nodebits.nn.gin_conv import QuantGINConv
from nodebits.nn.linear import requantize
from nodebits.nn.pair_sums import Sharpness, rectified_softmax, rectified_sum
from nodebits.nn.pairs import EdgeRows, edge_table, mapped_features, quantize_together, reduced
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.registry import register_layer


@register_layer(GINEConv)
class QuantGINEConv(QuantGINConv):
    """``out_i = MLP((1 + eps) Q(x_i) + sum_j relu(Q(x_j) + Q(e_ij)))``, or the mean or maximum.

    Rows of nodes and of edges pass one ``message`` site, and so have one scale: the sum is one of
    integers, see :func:`nodebits.ops.rectified_sum`. Targets that are not the sources have a range
    of their own, at ``message_dst``.
    """

    layer_type = "GINEConv"
    aggregations = ("add", "sum", "mean", "max")
    # Files of older versions hold sums.
    options: ClassVar[Options] = {
        **QuantGINConv.options,
        "aggr": Optional(Choice(aggregations), absent=True),
    }
    aggr: str = "add"
    optional_sites = ("message_dst",)
    lin: Any

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.width, self.width)
        self.message = place.activation(
            SiteInfo(path, self.layer_type, "message", "message", self.width, pairs=True)
        )
        self.place_target(place, path, "message", self.width)

    def forward(  # type: ignore[override]
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form.
            edge_attr: float32 ``[E, C]``, or ``[E, D]`` where the layer maps ``D`` to ``C``.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            What ``nn`` returns for ``[num_dst, C]``.

        Raises:
            ShapeError: On features of other shapes, of nodes or of edges.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, size=size, features=edge_attr)
        source, target, num_src, num_dst = split_pair(x, self)
        check_width(source, self.width, self)
        check_width(target, self.width, self)
        graph = self.graph_of(edge_index, num_src, num_dst, size=size).topology()
        table = edge_table(edge_attr, graph, self, [self.lin])
        features = mapped_features(table.rows, self.lin, source.shape[1], self)
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            rows, of_edges = quantize_together(self.message, source, features)
            edges = EdgeRows(of_edges, table.places)
            if self.aggr == "max":
                largest = Sharpness(None)
                out = rectified_softmax(self.message, rows, edges, graph, largest, "message")
            else:
                out = rectified_sum(rows, edges, graph, "message")
            out = reduced(out, graph, self.aggr)
            if target is not None:
                own = rows if target is source else quantize_rows(self.message_dst, target)
                out = out + (1 + self.eps) * dequantize_rows(own)
            result: Tensor = self.nn(requantize(self.output, out))
            return result
