"""What layers ask of pyg-lib and torch-sparse, in torch: for machines without these libraries.

Neighbours by distance, pairs of edges and the weights of B-splines are the float model's business.
With these the layers that find them themselves run, quantized or not.
"""

from __future__ import annotations

import torch
import torch_geometric.typing as typing
from torch import Tensor
from torch_geometric.nn.conv import pan_conv, spline_conv
from torch_geometric.nn.models import dimenet, gnnff

from grids.sparse_matrix import SparseMatrix, product

_LIBRARY: list[torch.library.Library] = []


def install() -> bool:
    """Defines what is missing.

    Returns:
        Whether anything was.
    """
    if typing.WITH_PYG_LIB or _LIBRARY:
        return bool(_LIBRARY)
    library = torch.library.Library("pyg", "DEF")
    arguments = "Tensor x, Tensor y, Tensor? ptr_x, Tensor? ptr_y"
    library.define(f"knn({arguments}, int k, bool cosine, int workers) -> Tensor")
    library.define(f"radius({arguments}, float r, int most, int workers, bool loopless) -> Tensor")
    library.impl("knn", _knn, "CompositeExplicitAutograd")
    library.impl("radius", _radius, "CompositeExplicitAutograd")
    _LIBRARY.append(library)
    if not typing.WITH_TORCH_SPARSE:
        dimenet.triplets = gnnff.triplets = _triplets
        pan_conv.SparseTensor, pan_conv.spmm = SparseMatrix, product
    typing.WITH_KNN = typing.WITH_RADIUS = True
    spline_conv.spline_basis = _spline_basis
    spline_conv.spline_weighting = _spline_weighting
    return True


def _distances(x: Tensor, y: Tensor, ptr_x: Tensor | None, ptr_y: Tensor | None) -> Tensor:
    """``[len(y), len(x)]``, infinite between nodes of two graphs."""
    found = torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist")
    if ptr_x is not None and ptr_y is not None:
        graph_x = torch.bucketize(torch.arange(len(x)), ptr_x[1:], right=True)
        graph_y = torch.bucketize(torch.arange(len(y)), ptr_y[1:], right=True)
        found = found.masked_fill(graph_y.view(-1, 1) != graph_x.view(1, -1), torch.inf)
    return found


def _knn(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None,
    ptr_y: Tensor | None,
    k: int,
    cosine: bool,
    workers: int,
) -> Tensor:
    near, column = _distances(x, y, ptr_x, ptr_y).topk(min(k, len(x)), largest=False)
    row = torch.arange(len(y)).view(-1, 1).expand_as(column)
    kept = near.isfinite()
    return torch.stack([row[kept], column[kept]])


def _radius(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None,
    ptr_y: Tensor | None,
    r: float,
    most: int,
    workers: int,
    loopless: bool,
) -> Tensor:
    found = _distances(x, y, ptr_x, ptr_y)
    if loopless:
        found = found.fill_diagonal_(torch.inf)
    near, column = found.topk(min(most, len(x)), largest=False)
    row = torch.arange(len(y)).view(-1, 1).expand_as(column)
    kept = near <= r
    return torch.stack([row[kept], column[kept]])


def _spline_basis(
    pseudo: Tensor, kernel_size: Tensor, is_open: Tensor, degree: int
) -> tuple[Tensor, Tensor]:
    """Products of B-splines of degree 1: their values and their place, ``[E, 2^D]``."""
    if degree != 1:
        raise NotImplementedError(f"splines of degree {degree}")
    basis = torch.ones(len(pseudo), 1)
    place = torch.zeros(len(pseudo), 1, dtype=torch.long)
    stride = 1
    for d, (size, opened) in enumerate(zip(kernel_size.tolist(), is_open.tolist(), strict=True)):
        value = pseudo[:, d] * (size - opened)
        low = value.floor()
        part = (value - low).view(-1, 1)
        ends = torch.stack([low, low + 1], 1).long() % size
        basis = torch.cat([basis * (1 - part), basis * part], 1)
        place = torch.cat([place + stride * ends[:, :1], place + stride * ends[:, 1:]], 1)
        stride *= size
    return basis, place


def _spline_weighting(x: Tensor, weight: Tensor, basis: Tensor, place: Tensor) -> Tensor:
    weighted: Tensor = torch.einsum("es,ei,esio->eo", basis, x, weight[place])
    return weighted


def _triplets(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """For every edge j -> i the edges k -> j: ends of edges, then i, j, k, and the two edges."""
    j, i = edge_index
    order = i.argsort(stable=True)
    degree = torch.bincount(i, minlength=num_nodes)
    first = degree.cumsum(0) - degree
    count = degree[j]
    ji = torch.arange(len(j)).repeat_interleave(count)
    within = torch.arange(len(ji)) - (count.cumsum(0) - count).repeat_interleave(count)
    kj = order[first[j].repeat_interleave(count) + within]
    ends = i[ji], j[ji], j[kj]
    kept = ends[0] != ends[2]
    return (i, j, *(end[kept] for end in ends), kj[kept], ji[kept])
