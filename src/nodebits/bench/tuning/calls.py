"""Calls of operators whose tiles are tuned: all kernels of the common layers, with made-up data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nodebits import ops
from nodebits.bench.tuning.settings import Tune
from nodebits.ops import Edges, Epilogue, Output, Own, Product, Sink, Source, Weight, host
from nodebits.ops.selection import take_rows

Calls = dict[str, Callable[[], Any]]
_HEADS = 4
_STATISTICS = [0, 1, 2, 3]


def calls_of(asked: Tune, device: torch.device) -> Calls:
    """The calls by name, on the device."""
    made: Calls = {}
    for columns in asked.columns:
        for bits in asked.bits:
            made.update(_Shape(asked, columns, bits, device).calls())
    made["softmax of edges"] = _softmax(asked, device)
    return {
        name: call
        for name, call in made.items()
        if not asked.only or any(part in name for part in asked.only)
    }


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _edges(asked: Tune, device: torch.device) -> Edges:
    count = asked.nodes * asked.degree
    degrees = torch.full((asked.nodes,), asked.degree, device="cpu")
    indptr = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
    indices = torch.randint(0, asked.nodes, (count,), generator=_generator(), device="cpu")
    return Edges(indptr.to(device), indices.int().to(device))


def _softmax(asked: Tune, device: torch.device) -> Callable[[], Any]:
    edges = _edges(asked, device)
    scores = torch.randn(asked.nodes, _HEADS, generator=_generator(), device="cpu").to(device)
    return partial(ops.edge_softmax, edges.indptr, edges.indices, scores, scores, 0.2, 8)


class _Shape:
    """Matrices of a number of columns and a width."""

    def __init__(self, asked: Tune, columns: int, bits: int, device: torch.device) -> None:
        self.columns, self.bits = columns, bits
        g, size = _generator(), (asked.nodes, columns)
        self.x = torch.randn(size, generator=g, device="cpu").to(device)
        self.edges = _edges(asked, device)
        self.scale = torch.rand(columns, generator=g, device="cpu").add(0.1).to(device)
        self.one = self.scale[:1].clone()
        self.packed = self._packed(asked.nodes, g, device)
        self.source = Source(self.packed, bits, columns)
        self.kept = host.readable_copy(self.packed.cpu(), device)
        self.weight = Weight(self._packed(columns, g, device), bits)
        self.index = self.edges.indices[: asked.nodes].contiguous()

    def _packed(self, rows: int, g: torch.Generator, device: torch.device) -> Tensor:
        size = rows, self.columns
        codes = torch.randint(0, 1 << self.bits, size, generator=g, device="cpu")
        return ops.pack(codes.to(torch.uint8), self.bits).to(device)

    def calls(self) -> Calls:
        """What a forward and a step of training ask for."""
        edges, source, one, scale = self.edges, self.source, self.one, self.scale
        weighted = edges._replace(weight=(self.index.new_ones(edges.indices.numel(), 1)).byte())
        sink = Sink(True, [Output(one, one, self.bits)])
        epilogue = Epilogue(scale)
        product = [Product(source, self.weight, epilogue)]
        affine = self.one, self.one, -1
        made: Calls = {
            "sum": partial(ops.spmm, edges, source),
            "sum to codes": partial(ops.fused_spmm, edges, source, Own(), epilogue, sink),
            "weighted sum": partial(ops.fused_spmm, weighted, source, Own(), epilogue, sink),
            "product to codes": partial(ops.fused_gemm, product, sink),
            "extremes": partial(ops.fused_extremum, edges, source, False, epilogue, sink),
            "statistics": partial(ops.neighbor_statistics, edges, source, _STATISTICS, scale, one),
            "packing": partial(ops.quantize_pack, self.x, *affine, self.bits),
            "unpacking": partial(ops.unpack, self.packed, self.bits, self.columns),
            "gathering": partial(
                ops.gather_rows, source, self.index, 0, self.index.numel(), *affine
            ),
            "rows of the host": partial(take_rows, self.kept, self.index.long()),
            "simulation": partial(ops.fake_quantize, self.x, *affine, self.bits),
        }
        return {f"{name}, {self.columns} columns, {self.bits} bits": c for name, c in made.items()}
