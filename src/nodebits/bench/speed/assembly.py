"""The models of :mod:`nodebits.bench.speed.forward` written with torch's fastest operators.

What somebody would write who wants speed and stays with torch: dense products, ``embedding_bag``
over prepared rows for the neighbour sums, the normalisation as two diagonal factors, everything
elementwise in place, and a linear map before a sum where it makes the rows narrower. Weights come
from PyG's own model, and tests hold the results against it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nodebits.graph import Graph

Forward = Callable[[Tensor], Tensor]


class Sums:
    """Neighbour sums of one graph by ``embedding_bag``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        wide = graph.num_edges >= 2**31
        self.indices = graph.indices.long() if wide else graph.indices
        self.offsets = graph.indptr if wide else graph.indptr.int()
        self.inverse_degree = graph.inverse_degree.view(-1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Sum of the rows of a node's neighbours, ``[N, C]`` -> ``[N, C]``."""
        return functional.embedding_bag(
            self.indices, x, self.offsets, mode="sum", include_last_offset=True
        )


class SparseSums:
    """The same by a ``torch.sparse`` CSR product."""

    def __init__(self, graph: Graph) -> None:
        from nodebits.bench.speed.aggregate import sparse_csr

        self.inverse_degree = graph.inverse_degree.view(-1, 1)
        wide = graph.num_edges >= 2**31
        self.matrix = sparse_csr(
            graph.indptr if wide else graph.indptr.int(),
            graph.indices.long() if wide else graph.indices,
            torch.ones(graph.num_edges, device=graph.device),
            (graph.num_dst, graph.num_src),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Sum of the rows of a node's neighbours, ``[N, C]`` -> ``[N, C]``."""
        return self.matrix @ x


def assemble(
    name: str, model: nn.Module, graph: Graph, dtype: torch.dtype, sparse: bool = False
) -> Forward:
    """Writes the model as a function of features of type ``dtype``.

    Args:
        name: ``gcn``, ``gin``, ``sage``, ``gat`` or ``appnp``.
        model: PyG's model, whose weights are taken.
        graph: Topology, without self loops added.
        dtype: Of weights and features.
        sparse: Sum by ``torch.sparse`` in place of ``embedding_bag`` (not ``gat``).
    """
    make: type[Sums] | type[SparseSums] = SparseSums if sparse else Sums
    loops = graph.with_self_loops() if name in ("gcn", "gat", "appnp") else graph
    if name == "gat":
        return _gat(model, loops, dtype)
    sums = make(loops)
    if name == "gcn":
        return _gcn(model, sums, loops, dtype)
    if name == "appnp":
        return _appnp(model, sums, loops, dtype)
    return (_gin if name == "gin" else _sage)(model, sums, dtype)


def _of(tensor: Any, dtype: torch.dtype) -> Tensor:
    result: Tensor = tensor.detach().to(dtype)
    return result


def _gcn(model: Any, sums: Any, graph: Graph, dtype: torch.dtype) -> Forward:
    factor = _of(graph.deg_inv_sqrt.view(-1, 1), dtype)
    layers = [(_of(c.lin.weight, dtype), _of(c.bias, dtype)) for c in model.convs]

    def forward(x: Tensor) -> Tensor:
        for number, (weight, bias) in enumerate(layers):
            x = sums(functional.linear(x, weight).mul_(factor)).mul_(factor).add_(bias)
            if number + 1 < len(layers):
                x = x.relu_()
        return x

    return forward


def _gin(model: Any, sums: Any, dtype: torch.dtype) -> Forward:
    layers: list[tuple[float, Tensor, Tensor, Tensor, Tensor]] = []
    for conv in model.convs:
        first, last = conv.nn.lins
        weight, bias = _of(first.weight, dtype), _of(first.bias, dtype)
        second, shift = _of(last.weight, dtype), _of(last.bias, dtype)
        layers.append((1.0 + float(conv.eps), weight, bias, second, shift))

    def forward(x: Tensor) -> Tensor:
        for number, (eps, weight, bias, second, shift) in enumerate(layers):
            if weight.size(0) < x.size(1):  # the map is linear: first the map, then the sum
                x = functional.linear(x, weight)
                x = sums(x).add_(x, alpha=eps).add_(bias)
            else:
                x = functional.linear(sums(x).add_(x, alpha=eps), weight, bias)
            x = functional.linear(x.relu_(), second, shift)
            if number + 1 < len(layers):
                x = x.relu_()
        return x

    return forward


def _sage(model: Any, sums: Any, dtype: torch.dtype) -> Forward:
    mean = _of(sums.inverse_degree, dtype)
    layers = [
        (_of(c.lin_l.weight, dtype), _of(c.lin_l.bias, dtype), _of(c.lin_r.weight, dtype))
        for c in model.convs
    ]

    def forward(x: Tensor) -> Tensor:
        for number, (weight, bias, root) in enumerate(layers):
            if weight.size(0) < x.size(1):
                out = sums(functional.linear(x, weight)).mul_(mean).add_(bias)
            else:
                out = functional.linear(sums(x).mul_(mean), weight, bias)
            x = out.add_(functional.linear(x, root))
            if number + 1 < len(layers):
                x = x.relu_()
        return x

    return forward


def _appnp(model: Any, sums: Any, graph: Graph, dtype: torch.dtype) -> Forward:
    factor = _of(graph.deg_inv_sqrt.view(-1, 1), dtype)
    maps = [(_of(m.weight, dtype), _of(m.bias, dtype)) for m in (model.lin1, model.lin2)]
    alpha, steps = model.prop.alpha, model.prop.K

    def forward(x: Tensor) -> Tensor:
        x = functional.linear(functional.linear(x, *maps[0]).relu_(), *maps[1])
        start = x * alpha
        for _ in range(steps):
            x = sums(x * factor).mul_(factor).mul_(1.0 - alpha).add_(start)
        return x

    return forward


def _gat(model: Any, graph: Graph, dtype: torch.dtype) -> Forward:
    layers = [
        (
            _of(c.lin.weight, dtype),
            _of(c.att_src, dtype)[0],
            _of(c.att_dst, dtype)[0],
            _of(c.bias, dtype),
            float(c.negative_slope),
            _HeadBags(graph, int(c.heads)),
        )
        for c in model.convs
    ]

    def forward(x: Tensor) -> Tensor:
        for number, (weight, att_src, att_dst, bias, slope, bags) in enumerate(layers):
            heads, width = att_src.shape
            h = functional.linear(x, weight).view(-1, heads, width)
            x = bags.attend(h, (h * att_src).sum(-1), (h * att_dst).sum(-1), slope)
            x = x.add_(bias)
            if number + 1 < len(layers):
                x = functional.elu_(x)
        return x

    return forward


class _HeadBags:
    """Edges sorted by (row, head), so that one ``embedding_bag`` serves all heads."""

    def __init__(self, graph: Graph, heads: int) -> None:
        degree = graph.indptr.diff().repeat_interleave(heads)
        self.offsets = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        bag = torch.repeat_interleave(torch.arange(degree.numel(), device=degree.device), degree)
        edge = (
            torch.arange(bag.numel(), device=bag.device)
            - self.offsets[bag]
            + graph.indptr[bag // heads]
        )
        self.columns = (graph.indices[edge].long() * heads + bag % heads).int()
        self.narrow = self.offsets.int()
        self.bag = bag.int()

    def attend(self, h: Tensor, src: Tensor, dst: Tensor, slope: float) -> Tensor:
        """Softmax over a row's edges and the weighted sum, ``[N, H, F]`` -> ``[N, H * F]``."""
        nodes, heads, width = h.shape
        score = src.reshape(-1)[self.columns].add_(dst.reshape(-1)[self.bag])
        score = functional.leaky_relu_(score, slope)
        top = torch.segment_reduce(score, "max", offsets=self.offsets, unsafe=True)
        weight = score.sub_(top[self.bag]).exp_()
        total = torch.segment_reduce(weight, "sum", offsets=self.offsets, unsafe=True)
        out = functional.embedding_bag(
            self.columns,
            h.reshape(-1, width),
            self.narrow,
            mode="sum",
            per_sample_weights=weight,
            include_last_offset=True,
        )
        return out.div_(total.view(-1, 1)).view(nodes, heads * width)
