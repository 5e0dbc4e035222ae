"""GCNConv (Kipf and Welling 2017): the normalisation folded into two diagonal factors."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import QuantConv, is_stack, one_matrix, weighed_rows
from nodebits.nn.functional import aggregate
from nodebits.nn.inputs import Features
from nodebits.nn.linear import QuantLinear, input_sites_of, requantize, width_of
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer


@register_layer(GCNConv)
class QuantGCNConv(QuantConv):
    """``out_i = d_i^-1/2 * sum_j w_ij Q(d_j^-1/2 (X W)_j) + b``.

    The source factor is applied before the ``message`` site, the target factor after the integer
    sum, so no edge costs a float multiplication. ``edge_weight`` (and ``improved``'s loops of
    weight 2) become codes at the ``attention`` site.
    """

    layer_type = "GCNConv"
    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "improved": FLAG,
        "add_self_loops": FLAG,
        "normalize": FLAG,
        "bias": FLAG,
    }
    # A layer made with -1 keeps that as its in_channels.
    derived_options: ClassVar = {"in_channels": lambda module: width_of(module.lin)}
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    absent_sites = ("message_dst",)
    weighs_rows = True
    lin: QuantLinear
    bias: nn.Parameter | None
    in_channels: int
    out_channels: int
    improved: bool
    add_self_loops: bool
    normalize: bool

    @classmethod
    def aggregated_channels(cls, module: Any) -> int | None:
        return int(module.out_channels)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.out_channels, self.out_channels, edges=True)

    def forward(self, x: Features, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, in_channels]``, or packed rows in the packed form.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[*, N, out_channels]``.

        Raises:
            ShapeError: On other shapes or types, pairs among them.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, edge_weight)
        x = one_matrix(x, self)
        graph = self.check_cached(self.graph_of(edge_index, x.shape[0], x.shape[0], edge_weight))
        with self.layer_scope(graph):
            factor = None
            if self.normalize:
                if self.add_self_loops:
                    # PyG leaves loops at 1 where an edge_index comes without weights.
                    heavy = self.improved and graph.valued
                    graph = graph.with_self_loops(fill=2.0 if heavy else 1.0)
                factor = graph.deg_inv_sqrt
            rows, edges = weighed_rows(self, self.message, self.lin(x), graph, factor)
            out = aggregate(rows, graph, edges, factor, self.bias, layer=self)
            return requantize(self.output, self.prompted(out))

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(self.lin)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}"
