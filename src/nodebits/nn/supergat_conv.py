"""SuperGATConv (Kim & Oh 2021): GAT's scores times, or in place of them, products of both ends."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch_geometric.nn import SuperGATConv

from nodebits.core.file_fields import FLAG, SIZE, Choice, Integer, Number, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.attention import at_both_ends, check_scored, edge_dots, softmax_of_edges
from nodebits.nn.conv import one_matrix
from nodebits.nn.functional import AnyRows, check_product, quantize_rows
from nodebits.nn.gat_conv import QuantGATConv
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import check_weight, input_sites_of
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer


@register_layer(SuperGATConv)
class QuantSuperGATConv(QuantGATConv):
    """``out_i = sum_j a_ij Q(W x_j) / sum_j a_ij + b`` with unsigned integer ``a_ij``.

    A score is a product of the codes of both ends (``SD``), or GAT's score times the sigmoid of
    that product (``MX``): see :func:`nodebits.ops.pair_scores`. In training the float layer's
    samples of edges make its loss.
    """

    layer_type = "SuperGATConv"
    options: ClassVar[Options] = {
        "heads": Integer(1),
        "out_channels": SIZE,
        "concat": FLAG,
        "negative_slope": Number(),
        "dropout": Number(0.0, 1.0),
        "add_self_loops": FLAG,
        "bias": FLAG,
        "attention_type": Choice(("MX", "SD")),
    }
    derived_options: ClassVar = {}
    packed_parameters = ("att_l", "att_r")
    vectors: ClassVar = ("att_l", "att_r")
    optional_sites = ("attention",)
    absent_sites = ("attention", "message_dst", "att_weight", "att_weight_dst", "input_dst")
    attention_type: str
    att_l: nn.Parameter | None
    att_r: nn.Parameter | None
    att_x: Tensor | None
    att_y: Tensor | None

    def place_quantizers(self, place: Placement, path: str) -> None:
        width, heads = self.heads * self.out_channels, self.heads
        check_scored(self.out_channels, path)
        columns = width if self.concat else self.out_channels
        self.place_sites(place, path, width, columns, edges=True)
        # One scale for all columns, which a product of both ends needs.
        info = SiteInfo(path, self.layer_type, "message", "message", 0, pairs=True)
        self.message = place.activation(info)
        if self.attention_type == "MX":
            self.att_weight = place.weight(
                SiteInfo(path, self.layer_type, "weight", "att_weight", width, 2 * heads)
            )
            check_product(self.message, self.att_weight, width, path)

    def forward(  # type: ignore[override]
        self,
        x: Any,
        edge_index: Any,
        neg_edge_index: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, or packed features.
            edge_index: Any adjacency form; weights of a sparse matrix are ignored, as PyG does.
            neg_edge_index: int64 ``[2, M]``, pairs without edges for the loss of training; drawn
                where it is None.
            batch: int64 ``[N]``, the graph of every node, for that draw.

        Returns:
            float32 ``[N, heads * out_channels]``, or ``[N, out_channels]`` without ``concat``.
        """
        x = one_matrix(x, self)
        graph = self.graph_of(edge_index, x.shape[0], x.shape[0])
        graph = graph.topology(distinct=self.add_self_loops)
        with self.layer_scope(graph):
            if self.add_self_loops:
                graph = graph.with_self_loops()
            expect_sites(x, self.input_sites())
            rows = quantize_rows(self.message, self.lin(x)).aligned()
            if self.training:
                self._sample(rows, graph, neg_edge_index, batch)
            edges = softmax_of_edges(self.attention, graph, self._edge_scores(rows, graph))
            result: Tensor = self.with_residual(rows, graph, edges, None, None)
            return result

    def _edge_scores(self, rows: AnyRows, graph: Graph) -> Tensor:
        """float32 ``[E, H]``."""
        products, own = edge_dots(graph, rows, self.heads, "message")
        if own is not None:
            products = products + at_both_ends(own, graph)
        scale = rows.scale * rows.scale
        if self.attention_type == "SD":
            alpha = products * (scale * (1.0 / math.sqrt(self.out_channels)))
            return leaky_relu(alpha, self.negative_slope)
        source, target = self._scores(rows).split(self.heads, 1)
        alpha = source.index_select(0, graph.indices) + target.index_select(0, graph.rows)
        return leaky_relu(alpha * (products * scale).sigmoid(), self.negative_slope)

    def _sample(
        self, rows: AnyRows, graph: Graph, negative: Tensor | None, batch: Tensor | None
    ) -> None:
        """Draws what ``get_attention_loss`` compares, as the float layer does."""
        float_layer: Any = self
        values = rows.dequantize().view(-1, self.heads, self.out_channels)
        edges = graph.edge_index()
        if negative is None:
            negative = float_layer.negative_sampling(edges, values.size(0), batch)
        found = []
        for pairs in (float_layer.positive_sampling(edges), negative):
            both = values[pairs[1]] * values[pairs[0]]
            product = both.sum(-1)
            found.append(
                product if self.attention_type == "MX" else product / math.sqrt(both.size(-1))
            )
        self.att_x = torch.cat(found)
        self.att_y = self.att_x.new_zeros(self.att_x.size(0))
        self.att_y[: found[0].size(0)] = 1.0

    def train(self, mode: bool = True) -> QuantSuperGATConv:
        """Forgets, for evaluation, what the last step of training compares."""
        if not mode:
            self.att_x = self.att_y = None
        super().train(mode)
        return self

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(self.lin)

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantLayer:
        layer = super().build(config)
        if config["attention_type"] == "SD":
            del layer._buffers["att_offset"]
        return layer

    def check_loaded(self) -> None:
        if self.attention_type == "MX":
            shape = (2 * self.heads, self.heads * self.out_channels)
            check_weight(self.att_weight, shape, "attention weight")
