"""AGNNConv (Thekumparampil et al. 2018) with cosine scores of integer codes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import AGNNConv

from nodebits.core.file_fields import FLAG, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.attention import inverse_sum, softmax_codes
from nodebits.nn.conv import QuantConv, conv_graph, one_matrix
from nodebits.nn.functional import aggregate, quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.layer import Placement, register_layer
from nodebits.nn.linear import requantize
from nodebits.nn.quantizers.base import Quantizer

# Edges whose dot products are taken at once: both ends are gathered as float rows.
EDGE_BLOCK = 65_536


@register_layer(AGNNConv)
class QuantAGNNConv(QuantConv):
    """``out_i = sum_j a_ij Q(x_j) / sum_j a_ij``, ``e_ij = beta * cos(Q(x_i), Q(x_j))``.

    The cosine is that of the ``message`` codes minus their zero point: the scale, one per tensor,
    cancels, so the dot products and the squared lengths are integers (exact in float32 to 2^24,
    258 columns of 8-bit codes).
    """

    layer_type = "AGNNConv"
    options: ClassVar[Options] = {"trained": FLAG, "add_self_loops": FLAG}
    absent_sites = ("message_dst",)
    beta: Tensor

    def __init__(self, trained: bool = True, add_self_loops: bool = True) -> None:
        super().__init__()
        self.trained, self.add_self_loops = trained, add_self_loops
        if trained:
            self.beta = nn.Parameter(torch.ones(1))
        else:
            self.register_buffer("beta", torch.ones(1))

    @classmethod
    def from_float(cls, module: Any, path: str, place: Placement) -> QuantAGNNConv:
        layer = cls(module.requires_grad, module.add_self_loops)
        layer.adopt(module)
        layer.beta = module.beta
        # Without a number of columns a method gives one scale per tensor, see above.
        layer.place_sites(place, path, 0, 0, edges=True)
        return layer

    def forward(self, x: Features, edge_index: Any) -> Tensor:
        """Propagates.

        Args:
            x: float32 ``[N, C]``, or packed rows in the packed form.
            edge_index: Any adjacency form; weights of a sparse matrix are ignored, as PyG does.

        Returns:
            float32 ``[N, C]``.
        """
        x = one_matrix(x, self)
        graph = conv_graph(edge_index, x.shape[0], x.shape[0])
        graph = graph.topology(distinct=self.add_self_loops)
        with self.layer_scope(graph):
            if self.add_self_loops:
                graph = graph.with_self_loops()
            rows = quantize_rows(self.message, x)
            by_edge = _edges_as_sources(graph)
            zero = torch.zeros(graph.num_dst, 1)
            scores = self.beta * _cosine(rows.centred(), graph)
            edges = softmax_codes(self.attention, by_edge, scores.view(-1, 1), zero, 1.0)
            return requantize(self.output, aggregate(rows, graph, edges, inverse_sum(edges)))

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message]

    def config(self) -> dict[str, Any]:
        return {"trained": self.trained, "add_self_loops": self.add_self_loops}

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantAGNNConv:
        return cls(**config)

    def reset_parameters(self) -> None:
        """Sets beta to 1 and forgets ranges."""
        super().reset_parameters()
        with torch.no_grad():
            self.beta.fill_(1.0)


def _edges_as_sources(graph: Graph) -> Graph:
    """The graph whose sources are the edges: a score per edge enters as that of a source."""

    def make() -> Graph:
        edges = torch.arange(graph.num_edges, dtype=torch.int32, device=graph.device)
        return Graph(graph.indptr, edges, graph.num_edges)

    value: Graph = graph.cached("edges_as_sources", make)
    return value


class _EdgeDot(torch.autograd.Function):
    """``x_i . x_j`` of every edge, in blocks, without keeping gathered rows for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Graph) -> Tensor:
        """``x`` ``[N, C]`` -> ``[E]``."""
        ctx.save_for_backward(x)
        ctx.graph = graph
        blocks = zip(graph.rows.split(EDGE_BLOCK), graph.indices.split(EDGE_BLOCK), strict=True)
        dots = [(x.index_select(0, i) * x.index_select(0, j)).sum(1) for i, j in blocks]
        return torch.cat(dots) if dots else x.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """``d/dx_i = sum_j g_ij x_j``, and the same along the reversed edges."""
        (x,) = ctx.saved_tensors
        graph = ctx.graph
        indptr, indices, order = graph.transposed()
        forward = _weighted_bag(graph.indptr, graph.indices, x, grad)
        return forward + _weighted_bag(indptr, indices, x, grad[order]), None


def _weighted_bag(indptr: Tensor, indices: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    if indices.numel() == 0 or x.size(1) == 0:
        return x.new_zeros(indptr.numel() - 1, x.size(1))
    offsets = indptr.to(indices.dtype)
    result: Tensor = torch.embedding_bag(
        x.contiguous(), indices, offsets, False, 0, False, weight.contiguous(), True
    )[0]
    return result


def _cosine(x: Tensor, graph: Graph) -> Tensor:
    """``cos(x_i, x_j)`` of every edge in CSR order, ``[E]``; 0 where a row is 0."""
    square = (x * x).sum(1)
    # torch's normalize divides by max(|x|, 1e-12); the guard keeps the root's gradient finite.
    inverse = torch.where(square > 0, 1.0 / square.clamp_min(1e-24).sqrt(), 0.0)
    dots: Tensor = _EdgeDot.apply(x, graph)
    return dots * inverse.index_select(0, graph.rows) * inverse.index_select(0, graph.indices)


__all__ = ["QuantAGNNConv"]
