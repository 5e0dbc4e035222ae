"""AGNNConv (Thekumparampil et al. 2018) with cosine scores of integer codes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.nn import AGNNConv

from nodebits.core.file_fields import FLAG, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.attention import at_both_ends, edge_dots, softmax_of_edges
from nodebits.nn.conv import QuantConv, one_matrix
from nodebits.nn.forms.softmax import inverse_sum
from nodebits.nn.functional import AnyRows, aggregate, quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.linear import requantize
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer


@register_layer(AGNNConv)
class QuantAGNNConv(QuantConv):
    """``out_i = sum_j a_ij Q(x_j) / sum_j a_ij``, ``e_ij = beta * cos(Q(x_i), Q(x_j))``.

    The cosine is that of the ``message`` codes minus their zero point: the scale, one per tensor,
    cancels. Products of both ends are those of codes, see :func:`nodebits.ops.pair_scores`.
    """

    layer_type = "AGNNConv"
    options: ClassVar[Options] = {"trained": FLAG, "add_self_loops": FLAG}
    derived_options: ClassVar = {"trained": lambda module: module.requires_grad}
    absent_sites = ("message_dst",)
    beta: Tensor
    add_self_loops: bool

    def place_quantizers(self, place: Placement, path: str) -> None:
        # Without a number of columns a method gives one scale per tensor, see above.
        self.place_sites(place, path, 0, 0, edges=True)

    def forward(self, x: Features, edge_index: Any) -> Tensor:
        """Propagates.

        Args:
            x: float32 ``[N, C]``, or packed rows in the packed form.
            edge_index: Any adjacency form; weights of a sparse matrix are ignored, as PyG does.

        Returns:
            float32 ``[N, C]``.
        """
        x = one_matrix(x, self)
        graph = self.graph_of(edge_index, x.shape[0], x.shape[0])
        graph = graph.topology(distinct=self.add_self_loops)
        with self.layer_scope(graph):
            if self.add_self_loops:
                graph = graph.with_self_loops()
            rows = quantize_rows(self.message, x)
            edges = softmax_of_edges(self.attention, graph, self._cosines(rows, graph))
            return requantize(self.output, aggregate(rows, graph, edges, inverse_sum(edges)))

    def _cosines(self, rows: AnyRows, graph: Graph) -> Tensor:
        """``beta * cos(x_i, x_j)`` of every edge, ``[E, 1]``; 0 where a row is 0."""
        x = rows.centred()
        square = (x * x).sum(1, keepdim=True)
        # torch's normalize divides by max(|x|, 1e-12); the guard keeps the root's gradient finite.
        # Not 1 / sqrt: torch's own root is not rounded as IEEE's, which is what lite has.
        inverse = torch.where(square > 0, square.clamp_min(1e-24).rsqrt(), 0.0)
        dots, own = edge_dots(graph, rows, 1, "message")
        if own is not None:
            dots = dots + at_both_ends(own, graph)
        lengths = inverse.index_select(0, graph.rows) * inverse.index_select(0, graph.indices)
        return self.beta * dots * lengths

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message]
