"""Renumbering of nodes for locality: neighbours get numbers near each other.

A neighbour sum gathers a row of codes per edge. Where consecutive targets share sources, those rows
are still in the cache. :class:`ReorderedGraph` holds the edges under new numbers, with the
permutation; a packed model that runs on it takes features and gives results in the user's numbers,
and as integer sums do not depend on the order, the results are the same bit for bit.

Nodes are grouped by where random walks from them lead. A random vector per node is averaged over
neighbours a few times (by the library's own integer sums), which leaves nodes of one community
with nearly the same vector (power iteration clustering, Lin and Cohen 2010, with many vectors at
once as in compressive spectral clustering, Tremblay et al. 2016); k-means groups them. A round
costs one 8-bit neighbour sum, so that the whole pays off after some tens of forwards. On graphs
with communities more sources are shared than after reverse Cuthill-McKee, which follows breadth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.errors import GraphError
from nodebits.graph.csr import Graph
from nodebits.ops import Edges, Source, quantize_pack, spmm

_VECTORS = 64
_ROUNDS = 5
# Rows of a group: their sources, 128 columns of 8 bits, take about an eighth of a second-level
# cache.
_GROUP = 2_048
_FIT_PER_GROUP = 64
_LLOYD = 8
_CHUNK = 1 << 16
_SEED = 0


class ReorderedGraph(Graph):
    """A graph whose nodes have other numbers than the user's.

    Args:
        graph: Square graph in the user's numbers.
        order: int64 ``[N]``, a permutation: the user's number of every new one.

    Attributes:
        order: As given.
        position: int64 ``[N]``, the new number of every node of the user's.

    Raises:
        GraphError: If sources and targets differ, or ``order`` is no permutation of the nodes.
    """

    def __init__(self, graph: Graph, order: Tensor) -> None:
        _check_square(graph.validate())
        nodes = torch.arange(graph.num_dst, device=graph.device)
        if list(order.shape) != [graph.num_dst] or not torch.equal(order.sort().values, nodes):
            raise GraphError(
                f"order is {order.dtype} {list(order.shape)}: expected a permutation of the "
                f"{graph.num_dst} nodes"
            )
        self.order = order.long()
        self.position = torch.empty_like(self.order).index_copy_(0, self.order, nodes)
        degree = graph.indptr.diff()[self.order]
        indptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        # Where every edge stood before; within a row the order stays.
        edges = (graph.indptr[:-1][self.order] - indptr[:-1]).repeat_interleave(degree)
        edges += torch.arange(graph.num_edges, device=graph.device)
        indices = self.position.int()[graph.indices[edges]]
        weight = None if graph.edge_weight is None else graph.edge_weight[edges]
        perm = edges if graph.perm is None else graph.perm[edges]
        super().__init__(indptr, indices, graph.num_src, perm, weight, graph.form)
        self.checked = True
        self.origin = graph.fingerprint


def reordered(graph: Graph) -> ReorderedGraph:
    """The graph under numbers that put what is read together side by side.

    Args:
        graph: Topology with as many sources as targets, on the CPU.

    Raises:
        GraphError: If sources and targets differ.
    """
    return ReorderedGraph(graph, locality_order(graph))


def _check_square(graph: Graph) -> None:
    if graph.num_src != graph.num_dst:
        raise GraphError(
            f"only a graph with as many sources as targets can be reordered, not {graph.num_src} "
            f"and {graph.num_dst}"
        )


def locality_order(graph: Graph) -> Tensor:
    """An order of the nodes in which neighbours in the order share sources.

    Args:
        graph: Topology with as many sources as targets; edge weights are not looked at.

    Returns:
        int64 ``[N]``, a permutation; within a group nodes keep their order. The same graph has the
        same order every time.

    Raises:
        GraphError: If sources and targets differ.
    """
    _check_square(graph)
    groups = -(-graph.num_dst // _GROUP)
    if groups <= 1 or not graph.num_edges:
        return torch.arange(graph.num_dst, device=graph.device)
    vectors = _smoothed(graph)
    return _cluster(vectors, groups).sort(stable=True).indices


def _smoothed(graph: Graph) -> Tensor:
    """Random vectors averaged over neighbours, rows of unit length ``[N, _VECTORS]``."""
    generator = torch.Generator().manual_seed(_SEED)
    x = torch.randn(graph.num_src, _VECTORS, generator=generator, device="cpu").to(graph.device)
    mean = graph.inverse_degree.view(-1, 1)
    weight = graph.degree / max(1, graph.num_edges)
    zero_point = torch.full((1,), 127.5, device=graph.device)
    edges = Edges(graph.indptr, graph.indices, blocks=graph.blocks(_VECTORS))
    for _ in range(_ROUNDS):
        # What all nodes share says nothing about groups, and outlives everything else.
        x -= weight @ x
        scale = (x.square().mean() * 36.0).sqrt().view(1) / 255.0
        packed = quantize_pack(x, scale.clamp_min(1e-30), zero_point, -1, 8)
        sums = spmm(edges, Source(packed, 8, _VECTORS))
        # A node counts as its own neighbour: on bipartite graphs the sides would change places.
        x = x * 0.5 + (sums.float() * mean - 127.5) * scale * 0.5
    x -= weight @ x
    return torch.nn.functional.normalize(x)


def _cluster(x: Tensor, groups: int) -> Tensor:
    """Spherical k-means: centres from a sample, then the nearest centre of every row."""
    generator = torch.Generator().manual_seed(_SEED)
    chosen = torch.randperm(x.size(0), generator=generator, device="cpu")[: groups * _FIT_PER_GROUP]
    sample = x[chosen]
    centres = sample[:groups].clone()
    for _ in range(_LLOYD):
        label = _nearest(sample, centres)
        total = torch.zeros_like(centres).index_add_(0, label, sample)
        # An empty group takes no part any more: its centre is zero, nearest to nothing.
        centres = torch.nn.functional.normalize(total)
    # Groups that are alike follow each other.
    first = torch.linalg.svd(centres, full_matrices=False).U[:, 0]
    return _nearest(x, centres[first.argsort()])


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    parts = [(part @ centres.t()).argmax(1) for part in x.split(_CHUNK)]
    return torch.cat(parts)


def shared_sources(graph: Graph, order: Tensor | None = None, window: int = 1 << 15) -> float:
    """How often a gathered row is used while it is at hand.

    Args:
        graph: Topology.
        order: int64 ``[N]``, order of the rows, None for the given one.
        window: Consecutive edges over which a row counts as at hand.

    Returns:
        Edges per distinct source within such windows: at least 1, or 0 without edges.
    """
    if not graph.num_edges:
        return 0.0
    if order is None:
        order = torch.arange(graph.num_dst, device=graph.device)
    degree = graph.indptr.diff()[order]
    # Start in the new sequence less start in the graph, so that an edge finds its place.
    start = degree.cumsum(0) - degree
    shift = torch.empty_like(start).index_copy_(0, order, start - graph.indptr[order])
    place = torch.arange(graph.num_edges, device=graph.device) + shift[graph.rows]
    key = place // window * graph.num_src + graph.indices.long()
    distinct: int = key.unique().numel()
    return graph.num_edges / distinct
