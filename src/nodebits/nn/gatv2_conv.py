"""GATv2Conv (Brody et al. 2022): both ends on one scale, added and rectified as integers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from nodebits.core.file_fields import FLAG, SIZE, Integer, Number, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.attention import additive_attention, check_scored
from nodebits.nn.attention_conv import QuantAttentionConv, Seen
from nodebits.nn.conv import both_ends
from nodebits.nn.edge_loops import attention_edges, check_fill
from nodebits.nn.functional import AnyRows
from nodebits.nn.linear import check_weight, input_sites_of
from nodebits.nn.pairs import EdgeRows, quantize_together
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightCodes, WeightQuantizer
from nodebits.nn.registry import register_layer


@register_layer(GATv2Conv)
class QuantGATv2Conv(QuantAttentionConv):
    """``out_i = sum_j a_ij Q(l_j) / sum_j a_ij + b`` with unsigned integer ``a_ij``.

    * ``l = lin_l(x)`` and ``r = lin_r(x)`` pass one ``message`` site, and so have one scale. So do
      edges, ``lin_edge(e)``. The codes of both ends of an edge, and its own, are added, rectified,
      and weighed by the quantized attention vector (site ``att_weight``), by whose entries the
      scale was multiplied: a score is an integer product. See
      :func:`nodebits.ops.attention_codes`.
    * ``a_ij`` is GATConv's: :mod:`nodebits.nn.forms.softmax`.
    """

    layer_type = "GATv2Conv"
    options: ClassVar[Options] = {
        "heads": Integer(1),
        "out_channels": SIZE,
        "concat": FLAG,
        "negative_slope": Number(),
        "dropout": Number(0.0, 1.0),
        "add_self_loops": FLAG,
        "bias": FLAG,
        "share_weights": FLAG,
        "residual": FLAG,
    }
    derived_options: ClassVar = {"residual": lambda module: module.res is not None}
    own_values: ClassVar = {
        "bias": lambda layer: (layer.out_channels * (layer.heads if layer.concat else 1),)
    }
    packed_parameters = ("att",)
    absent_sites = ("attention", "message_dst")
    att_weight: WeightQuantizer | PackedWeight
    lin_l: Any
    lin_r: Any
    lin_edge: Any
    fill_value: Any
    att: nn.Parameter | None
    negative_slope: float
    add_self_loops: bool
    share_weights: bool

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        return check_fill(module) or super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        width = self.heads * self.out_channels
        columns = width if self.concat else self.out_channels
        check_scored(self.out_channels, path)
        self.place_sites(place, path, width, columns, edges=True)
        self.message = place.activation(
            SiteInfo(path, self.layer_type, "message", "message", width, pairs=True)
        )
        self.att_weight = place.weight(
            SiteInfo(path, self.layer_type, "weight", "att_weight", self.out_channels, self.heads)
        )

    def _vectors(self, scale: Tensor) -> Tensor:
        """The attention vectors ``[H, F]`` on codes: multiplied by what a code stands for."""
        assert self.att is not None
        by_column = scale.expand(self.heads * self.out_channels)
        return self.att.view(self.heads, -1) * by_column.view(self.heads, -1)

    def _weight(self, rows: AnyRows) -> WeightCodes | PackedWeight:
        if isinstance(self.att_weight, PackedWeight):
            return self.att_weight
        if isinstance(self.message, Quantizer) and self.message.calibrating:
            # The vectors hold the message's scale, which moves while its range is observed.
            self.att_weight.reset()
        made: WeightCodes = self.att_weight(self._vectors(rows.scale))
        return made

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed features, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form; weights of a sparse matrix are ignored, as PyG does.
            edge_attr: float32 ``[E, D]`` where the layer has ``edge_dim=D``.
            return_attention_weights: Whether to return the attention too.

        Returns:
            float32 ``[num_dst, heads * out_channels]``, or ``[num_dst, out_channels]`` without
            ``concat``; with attention weights as GATConv's packed form returns them.

        Raises:
            ShapeError: On features of other shapes or types, or without those of the targets.
            ConfigError: If attention is asked for on a reordered graph.
        """
        source, target, num_src, num_dst = both_ends(x, edge_attr, self)
        given = self.graph_of(edge_index, num_src, num_dst)
        graph = given.topology(distinct=self.add_self_loops)
        with self.layer_scope(graph):
            graph, table = attention_edges(self, graph, given.form, edge_attr, self.lin_edge)
            expect_sites(x, self.input_sites())
            left = self.lin_l(source)
            same = target is source and self.share_weights
            tensors = [left, left if same else self.lin_r(target)]
            if table is not None:
                tensors.append(self.lin_edge(table.rows))
            rows = quantize_together(self.message, *tensors)
            ends = rows[0], rows[1]
            edges = additive_attention(
                self.attention,
                graph,
                ends,
                self._weight(ends[0]),
                self.negative_slope,
                "message",
                None if table is None else EdgeRows(rows[2], table.places),
            )
            seen = Seen(edge_index, self.add_self_loops) if return_attention_weights else None
            return self.with_residual(ends[0], graph, edges, target, seen)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(self.lin_l, None if self.share_weights else self.lin_r, self.res)

    @torch.no_grad()
    def freeze(self) -> None:
        super().freeze()
        if self.att is None or not isinstance(self.att_weight, WeightQuantizer):
            return
        # Floats have no scale.
        scale = getattr(self.message, "scale", torch.ones(1, device=self.att.device))
        self.att_weight = self.att_weight.freeze(self._vectors(scale))
        self.att = None

    def check_loaded(self) -> None:
        check_weight(self.att_weight, (self.heads, self.out_channels), "attention weight")
