"""LEConv (Ranjan et al. 2020): how much a node differs from those that it hears."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch_geometric.nn import LEConv

from nodebits.core.errors import ShapeError
from nodebits.core.file_fields import SIZE, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import QuantConv, edge_codes, is_stack, split_pair
from nodebits.nn.functional import aggregate, quantize_rows
from nodebits.nn.linear import QuantLinear, input_sites_of, requantize
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer


@register_layer(LEConv)
class QuantLEConv(QuantConv):
    """``out_i = sum_j w_ij Q(W_1 x_j) - (sum_j w_ij) W_2 x_i + W_3 x_i``.

    What a target is compared with leaves the sum, whose weights count for both parts as the codes
    that they become.
    """

    layer_type = "LEConv"
    options: ClassVar[Options] = {"out_channels": SIZE}
    absent_sites = ("message_dst",)
    lin1: QuantLinear
    lin2: QuantLinear
    lin3: QuantLinear
    out_channels: int

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.out_channels, self.out_channels, edges=True)

    def forward(self, x: Any, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[*, num_dst, out_channels]``.

        Raises:
            ShapeError: If there are no rows of targets.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, edge_weight)
        source, target, num_src, num_dst = split_pair(x, self)
        if target is None:
            raise ShapeError(f"layer {self.described} got no rows of targets, which it reads")
        graph = self.graph_of(edge_index, num_src, num_dst, edge_weight)
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            rows, edges = quantize_rows(self.message, self.lin1(source)), edge_codes(self, graph)
            heard = graph.degree.view(-1, 1)
            if edges is not None:
                scale = edges.scale if edges.row_scale is None else edges.row_scale
                heard = edges.row_sum if scale is None else edges.row_sum * scale
            out = aggregate(rows, graph, edges) - heard * self.lin2(target)
            return requantize(self.output, out + self.lin3(target))

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(self.lin1, self.lin2, self.lin3)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return str(self.out_channels)
