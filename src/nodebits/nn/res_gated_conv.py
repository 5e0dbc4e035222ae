"""ResGatedGraphConv (Bresson & Laurent 2017): gates by look-up, weighed values as integers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import ResGatedGraphConv

from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import QuantConv, both_ends, conv_graph
from nodebits.nn.functional import quantize_rows
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.pair_sums import gated_sum
from nodebits.nn.pairs import quantize_together
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer

_SIGMOIDS = (torch.sigmoid, Tensor.sigmoid, nn.functional.sigmoid)


@register_layer(ResGatedGraphConv)
class QuantResGatedGraphConv(QuantConv):
    """``out_i = skip(x_i) + sum_j g_ij Q(v_j)`` with integer gates ``g_ij``.

    Keys of the targets and queries of the sources pass one site, ``message_gate``, with one scale.
    The sum of their codes is looked up in a table of sigmoids, codes of the ``attention`` site's
    width, which weigh the values' codes: see :func:`nodebits.ops.gated_sum`.
    """

    layer_type = "ResGatedGraphConv"
    options: ClassVar[Options] = {"out_channels": SIZE, "root_weight": FLAG, "bias": FLAG}
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    absent_sites = ("attention", "message_dst")
    message_gate: Quantizer | RowQuantizer
    lin_key: Any
    lin_query: Any
    lin_value: Any
    lin_skip: Any
    bias: nn.Parameter | None
    out_channels: int
    root_weight: bool

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        if getattr(module, "edge_dim", None) is not None:
            return "it uses edge features (edge_dim) in its gates and values"
        act = getattr(module, "act", None)
        if type(act) is not nn.Sigmoid and act not in _SIGMOIDS:
            return "its gates are no sigmoids"
        return super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.out_channels, self.out_channels, edges=True)
        for name, columns in (("message", self.out_channels), ("message_gate", 0)):
            info = SiteInfo(path, self.layer_type, "message", name, columns, pairs=True)
            setattr(self, name, place.activation(info))

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed features, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form, without weights.
            edge_attr: Must be None.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            ShapeError: On features of other shapes or types, or without those of the targets.
        """
        source, target, num_src, num_dst = both_ends(x, edge_attr, self)
        graph = conv_graph(edge_index, num_src, num_dst).topology()
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            query, key = self.lin_query(source), self.lin_key(target)
            gate = quantize_together(self.message_gate, query, key)
            value = quantize_rows(self.message, self.lin_value(source))
            names = "message_gate", "message"
            out = gated_sum(self.attention, gate, value, graph, names)
            if self.root_weight:
                out = out + self.lin_skip(target)
            if self.bias is not None:
                out = out + self.bias
            return requantize(self.output, out)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(self.lin_key, self.lin_query, self.lin_value, self.lin_skip)
