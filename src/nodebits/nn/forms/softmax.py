"""Softmax over the edges of a row as integer codes: what GATConv and AGNNConv share.

``a_ij = rne(exp(e_ij - max_j e_ij) * (2^b - 1))``, unsigned. A row is divided by the *integer* sum
of its codes, so its weights sum to one exactly and a hub's do not underflow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.typing import torch_sparse
from torch_geometric.utils import (
    add_self_loops,
    is_torch_sparse_tensor,
    remove_self_loops,
    to_edge_index,
)
from torch_geometric.utils.sparse import set_sparse_value

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.errors import ConfigError
from nodebits.core.recorded import recorded
from nodebits.engine.edges import EdgeCodes
from nodebits.engine.recording import record
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph, ReorderedGraph
from nodebits.nn.quantizers.base import Quantizer
from nodebits.ops.autograd import EdgeSoftmaxCodes


def softmax_codes(
    site: Quantizer | RowQuantizer,
    graph: Graph,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
) -> EdgeCodes:
    """Attention codes and their row sums; unrounded where the site stays in float.

    Args:
        site: The ``attention`` site.
        graph: Topology.
        score_src: float32 ``[num_src, H]``.
        score_dst: float32 ``[num_dst, H]``; an edge's score is the leaky ReLU of the sum of both.
        negative_slope: Of that leaky ReLU; 1 leaves scores as they are.
    """
    bits, heads = site.bits, score_src.size(1)
    if bits is None:
        return _float_codes(graph, score_src, score_dst, negative_slope)
    qmax = max_code(bits)
    if isinstance(site, RowQuantizer):
        record(site, graph.num_edges, heads, num_scales=0)
        codes, row_sum = ops.edge_softmax(
            graph.indptr, graph.indices, score_src, score_dst, negative_slope, bits
        )
        return EdgeCodes(codes, row_sum.float(), None, 0, qmax)
    site.last_shape = (graph.num_edges, heads)
    codes = EdgeSoftmaxCodes.apply(score_src, score_dst, graph, negative_slope, bits)
    row_sum = codes.new_zeros(graph.num_dst, heads).index_add(0, graph.rows, codes)
    return EdgeCodes(codes, row_sum, None, 0, qmax)


def _float_codes(
    graph: Graph, score_src: Tensor, score_dst: Tensor, negative_slope: float
) -> EdgeCodes:
    heads = score_src.size(1)
    score = score_src.index_select(0, graph.indices) + score_dst.index_select(0, graph.rows)
    score = nn.functional.leaky_relu(score, negative_slope)
    top = score.detach().new_full((graph.num_dst, heads), -torch.inf)
    top = top.index_reduce(0, graph.rows, score.detach(), "amax")
    value = torch.exp(score - top.index_select(0, graph.rows))
    row_sum = value.new_zeros(graph.num_dst, heads).index_add(0, graph.rows, value)
    return EdgeCodes(value, row_sum, None, 0, 0)


def inverse_sum(edges: EdgeCodes) -> Tensor:
    """``1 / row sum`` of the codes, 0 for rows without edges: float32 ``[num_dst, H]``."""
    total = edges.row_sum
    return recorded(
        "inverse", lambda: torch.where(total > 0, 1.0 / total.clamp_min(1e-30), 0.0), total
    )


def in_adjacency_form(adjacency: Any, graph: Graph, alpha: Tensor, loops: bool) -> Any:
    """Attention beside the adjacency it belongs to, as PyG's float layers return it.

    Args:
        adjacency: What the layer was given.
        graph: Its graph, with the loops that the layer added.
        alpha: float32 ``[E, H]`` in CSR order.
        loops: Whether the layer gave every node one loop.

    Returns:
        ``(edge_index, alpha)``; ``(matrix, alpha)`` for a ``torch.sparse`` matrix, which holds
        the attention; a ``SparseTensor`` that holds it for a ``SparseTensor``.

    Raises:
        ConfigError: If the graph is reordered: its edges have other numbers than the user's.
    """
    if isinstance(adjacency, ReorderedGraph):
        raise ConfigError(
            "attention weights follow the user's edges, which a reordered graph has renumbered: "
            "pass the edge_index, or a graph prepared without reorder"
        )
    if isinstance(adjacency, Graph):
        adjacency = adjacency.edge_index()
    if hasattr(adjacency, "sparse_resize"):  # torch_sparse.SparseTensor
        if loops:
            adjacency = torch_sparse.set_diag(adjacency)
        row, col, _ = adjacency.coo()
        return adjacency.set_value(_in_order_of(row, col, graph, alpha), layout="coo")
    if loops:
        adjacency, _ = remove_self_loops(adjacency)
        count = min(graph.num_src, graph.num_dst)
        adjacency, _ = add_self_loops(adjacency, num_nodes=count)
    if is_torch_sparse_tensor(adjacency):
        (row, col), _ = to_edge_index(adjacency)
        alpha = _in_order_of(row, col, graph, alpha)
        return set_sparse_value(adjacency, alpha), alpha
    return adjacency, _in_order_of(adjacency[1], adjacency[0], graph, alpha)


def _in_order_of(row: Tensor, col: Tensor, graph: Graph, alpha: Tensor) -> Tensor:
    """``alpha`` of the graph's edges in the order of others; parallel edges have the same."""
    mine = torch.argsort(graph.rows * graph.num_src + graph.indices, stable=True)
    theirs = torch.argsort(row * graph.num_src + col, stable=True)
    return torch.empty_like(alpha).index_copy(0, theirs, alpha.index_select(0, mine))
