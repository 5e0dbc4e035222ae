"""Neighbour sums: torch's ways to compute them, and ours at every width."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.nn import SimpleConv

from nodebits import ops
from nodebits.bench.device.card import graph_on
from nodebits.bench.device.peers import sum_peers
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, measure
from nodebits.core.errors import ConfigError
from nodebits.core.packing import row_bytes
from nodebits.graph import Graph, ReorderedGraph, reordered

# What torch stores with every row of a quantized table: scale and offset in float32 (8 bits) or
# float16.
_INLINE = {8: 8, 4: 4, 2: 4}
_PREPACK = {8: "byte", 4: "4bit", 2: "2bit"}
# Rows of the result that are compared before anything is timed.
_CHECKED_ROWS = 64


def measure_aggregate(
    name: str,
    graph: Graph,
    bits: Sequence[int],
    num_cols: int,
    protocol: Protocol,
    weighted: bool = True,
    reorder: bool = False,
) -> list[Row]:
    """Measures plain sums (``aggregate``) and weighted ones (``aggregate_weighted``).

    Every implementation reads a table of its own made from one float32 table ``[N, num_cols]``, and
    returns a fresh ``[N, num_cols]`` matrix of float32, bfloat16, float16 or int32.

    Args:
        name: Of the graph.
        graph: Topology.
        bits: Widths of our tables, and of torch's where it has them (8, 4, 2).
        num_cols: Columns.
        protocol: How to measure.
        weighted: Also with a weight per edge: float32 for the peers, u8 attention codes for ours.
        reorder: Also with ours on a reordered graph, whose table has its order.

    Raises:
        ConfigError: If there are no columns.
    """
    if num_cols < 1:
        raise ConfigError(f"columns is {num_cols}: it must be at least 1")
    table = Table(graph, num_cols, reorder, protocol)
    rows = measure("aggregate", name, list(table.candidates(bits, None)), protocol)
    if weighted:
        generator = torch.Generator().manual_seed(1)
        weight = torch.randint(
            0, 256, (graph.num_edges, 1), generator=generator, dtype=torch.uint8, device="cpu"
        ).to(protocol.device)
        candidates = list(table.candidates(bits, weight))
        rows += measure("aggregate_weighted", name, candidates, protocol)
    return rows


def sparse_csr(indptr: Tensor, indices: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
    """A ``torch.sparse`` CSR matrix, without torch's notice that the layout is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return torch.sparse_csr_tensor(indptr, indices, value, size, check_invariants=False)


class Table:
    """The rows that are summed, and what all implementations share."""

    def __init__(
        self, graph: Graph, num_cols: int, reorder: bool = False, protocol: Protocol | None = None
    ) -> None:
        protocol = protocol or Protocol()
        device, self.card = protocol.device, protocol.card
        self.orders = (False, True) if reorder else (False,)
        self._ordered: ReorderedGraph | None = None
        generator = torch.Generator().manual_seed(0)
        self.given, self.num_cols = graph, num_cols
        drawn = torch.randn(graph.num_src, num_cols, generator=generator, device="cpu")
        self.x = drawn.to(device)
        graph = self.graph = graph_on(graph, device)
        # embedding_bag wants one type for both; 32 bits are the faster one.
        self.wide = graph.num_edges >= 2**31
        self.offsets = graph.indptr if self.wide else graph.indptr.int()
        self.indices = graph.indices.long() if self.wide else graph.indices

    def candidates(self, bits: Sequence[int], weight: Tensor | None) -> list[Candidate]:
        """All implementations; ``weight`` uint8 ``[E, 1]`` for weighted sums."""
        edges = self.graph.num_edges
        scaled = None if weight is None else weight.view(-1).float() / 255.0
        value = 0 if weight is None else 4
        index = 8 if self.wide else 4
        out = self.graph.num_dst * self.num_cols
        found = [
            Candidate(
                "PyG, edge_index",
                "float32",
                lambda: self._pyg(scaled),
                32,
                self._moved(4 * self.num_cols, 16 + value, 4),
                # One message per edge, and as many bytes again where they are weighted.
                edges * (16 + 4 * self.num_cols * (1 if weight is None else 2)) + 4 * out,
            ),
            Candidate(
                "torch.sparse CSR",
                "float32",
                lambda: self._sparse(scaled),
                32,
                self._moved(4 * self.num_cols, 4 + 4, 4),
                edges * 16 + 8 * out,
            ),
            Candidate(
                "embedding_bag float32",
                "float32",
                lambda: self._bag(self.x, scaled),
                32,
                self._moved(4 * self.num_cols, index + value, 4),
                8 * out,
            ),
        ]
        for dtype in (torch.bfloat16, torch.float16):
            found.append(
                Candidate(
                    f"embedding_bag {str(dtype).removeprefix('torch.')}",
                    "float",
                    self._half_bag(dtype, scaled),
                    16,
                    self._moved(2 * self.num_cols, index + value // 2, 2),
                    4 * out + 2 * edges,
                )
            )
        if self.card:
            found += sum_peers(self.graph, self.x, scaled)
        for width in () if self.card else bits:  # torch's quantized tables are of the CPU alone
            if width in _PREPACK:
                found.append(
                    Candidate(
                        f"quantized embedding_bag {width}",
                        "integer",
                        self._torch_quantized(width, scaled),
                        width,
                        self._moved(
                            row_bytes(self.num_cols, width) + _INLINE[width], index + value, 4
                        ),
                        8 * out,
                    )
                )
        suffix = "" if weight is None else ", u8 weights"
        for width in bits:
            row = row_bytes(self.num_cols, width)
            for ordered in self.orders:
                found.append(
                    Candidate(
                        f"nodebits u{width}{suffix}{', reordered' * ordered}",
                        "nodebits",
                        self._ours(width, weight, ordered),
                        width,
                        self._moved(row, 4 + (0 if weight is None else 1), 4),
                        8 * out + 24 * edges * ordered,
                    )
                )
            if self.card and weight is None:
                name = f"nodebits u{width}, packed result"
                found.append(Candidate(name, "nodebits", self._packed_result(width), width))
        return found

    def _moved(self, per_row: int, per_edge: int, per_value: int) -> int:
        """A source row and an index per edge, the row starts, and the result."""
        graph = self.graph
        gathered = graph.num_edges * (per_row + per_edge) + 8 * graph.indptr.numel()
        return gathered + graph.num_dst * self.num_cols * per_value

    def _pyg(self, weight: Tensor | None) -> Call:
        conv = SimpleConv(aggr="sum")
        edge_index = torch.stack([self.graph.indices.long(), self.graph.rows])
        return lambda: conv(self.x, edge_index, weight)

    def _sparse(self, weight: Tensor | None) -> Call:
        graph = self.graph
        value = torch.ones(graph.num_edges, device=graph.device) if weight is None else weight
        # The index type that MKL reads without converting it in every call.
        pointer = graph.indptr if self.wide else self.offsets
        matrix = sparse_csr(pointer, self.indices, value, (graph.num_dst, graph.num_src))
        return lambda: matrix @ self.x

    def _bag(self, x: Tensor, weight: Tensor | None) -> Call:
        weight = None if weight is None else weight.to(x.dtype)
        return lambda: functional.embedding_bag(
            self.indices,
            x,
            self.offsets,
            mode="sum",
            per_sample_weights=weight,
            include_last_offset=True,
        )

    def _half_bag(self, dtype: torch.dtype, weight: Tensor | None) -> Callable[[], Call]:
        return lambda: self._bag(self.x.to(dtype), weight)

    def _torch_quantized(self, bits: int, weight: Tensor | None) -> Callable[[], Call]:
        def build() -> Call:
            namespace: Any = torch.ops.quantized
            kind = _PREPACK[bits]
            packed = getattr(namespace, f"embedding_bag_{kind}_prepack")(self.x)
            run = getattr(namespace, f"embedding_bag_{kind}_rowwise_offsets")
            return lambda: run(
                packed,
                self.indices,
                self.offsets,
                False,
                0,
                False,
                weight,
                None,
                include_last_offset=True,
            )

        return build

    def _ours(self, bits: int, weight: Tensor | None, ordered: bool) -> Callable[[], Call]:
        cols = self.num_cols

        def build() -> Call:
            graph, x, edge_weight = self.graph, self.x, weight
            if ordered:
                graph = self._reordered()
                x = x[graph.order]
                edge_weight = None if weight is None else weight[graph.perm]
            # Four standard deviations to both sides, as calibration on this table would choose.
            scale = torch.tensor([8.0 / ((1 << bits) - 1)], device=x.device)
            zero = torch.tensor([((1 << bits) - 1) / 2], device=x.device)
            packed = ops.quantize_pack(x, scale, zero, -1, bits)
            blocks = graph.blocks(packed.size(1)) if weight is None else None

            def call() -> Tensor:
                edges = ops.Edges(graph.indptr, graph.indices, edge_weight, blocks)
                return ops.spmm(edges, ops.Source(packed, bits, cols))

            if self.card:
                self._compare(call(), packed.cpu(), bits, edge_weight)
            else:
                _check(graph, call(), ops.unpack(packed, bits, cols), edge_weight)
            return call

        return build

    def _compare(self, found: Tensor, packed: Tensor, bits: int, weight: Tensor | None) -> None:
        """What a card gave against the CPU's sums of the same rows."""
        graph, edge_weight = self.given, None if weight is None else weight.cpu()
        edges = ops.Edges(graph.indptr, graph.indices, edge_weight)
        if not torch.equal(found.cpu(), ops.spmm(edges, ops.Source(packed, bits, self.num_cols))):
            raise RuntimeError(f"sums of {bits} bits differ from those of the CPU")

    def _packed_result(self, bits: int) -> Callable[[], Call]:
        """The sum as layers run it: rescaled and quantized in the same pass."""

        def sums(graph: Graph, packed: Tensor) -> Callable[[], list[Tensor]]:
            edges = ops.Edges(graph.indptr, graph.indices)
            source = ops.Source(packed, bits, self.num_cols)
            one = torch.ones(1, device=packed.device)
            epilogue = ops.Epilogue(torch.ones(self.num_cols, device=packed.device))
            sink = ops.Sink(True, [ops.Output(one, one, bits)])
            return lambda: ops.fused_spmm(edges, source, ops.Own(), epilogue, sink)

        def build() -> Call:
            one = torch.ones(1, device=self.x.device)
            packed = ops.quantize_pack(self.x, one, one, -1, bits)
            call, expected = sums(self.graph, packed), sums(self.given, packed.cpu())()
            if not torch.equal(call()[0].cpu(), expected[0]):
                raise RuntimeError(f"packed sums of {bits} bits differ from those of the CPU")
            return call

        return build

    def _reordered(self) -> ReorderedGraph:
        if self._ordered is None:
            self._ordered = reordered(self.graph)
        return self._ordered


def _check(graph: Graph, result: Tensor, codes: Tensor, weight: Tensor | None) -> None:
    """What is timed must also be right: sampled rows against plain torch."""
    step = max(1, graph.num_dst // _CHECKED_ROWS)
    for row in range(0, graph.num_dst, step):
        edges = slice(int(graph.indptr[row]), int(graph.indptr[row + 1]))
        part = codes[graph.indices[edges].long()].long()
        if weight is not None:
            part = part * weight[edges].long()
        if not torch.equal(result[row].long(), part.sum(0)):
            raise RuntimeError(f"the sum of row {row} is wrong: not a speed to report")
