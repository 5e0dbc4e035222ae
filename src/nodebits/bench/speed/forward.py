"""Whole models: PyG as users run it, the best that torch's operators allow, and packed ones."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import APPNP

from nodebits.bench.device.card import graph_on
from nodebits.bench.device.peers import model_peers
from nodebits.bench.speed.assembly import assemble
from nodebits.bench.speed.graphs import BenchGraph
from nodebits.bench.speed.models import Sizes, float_model, packed_model
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, Skip, measure
from nodebits.core.packing import row_bytes
from nodebits.nn.registry import layer_for

# A first layer's features of which fewer are not zero are worth a sparse product.
SPARSE_DENSITY = 0.2


def measure_forward(
    bench: BenchGraph,
    models: Sequence[str],
    bits: Sequence[int],
    sizes: Sizes,
    protocol: Protocol,
    reorder: bool = False,
) -> list[Row]:
    """Measures two-layer models (and ten-step APPNP), all nodes in one forward.

    Peers get features of their own type in memory. Packed models get float features (``float
    input``) or features packed ahead (``packed input``); the graph is prepared for all of them.

    Args:
        bench: Graph and features.
        models: Names out of :data:`MODELS`.
        bits: Widths of the packed models.
        sizes: Of the models.
        protocol: How to measure.
        reorder: Also with packed models on a reordered graph, features packed ahead.

    Raises:
        UnknownNameError: There is no such model.
    """
    rows: list[Row] = []
    for name in models:
        model = float_model(name, bench.num_features, bench.num_classes, sizes)
        candidates = _Models(name, model, bench, sizes, protocol).candidates(bits, reorder)
        widths = f"{bench.num_features}-{sizes.hidden}-{bench.num_classes}"
        with torch.no_grad():
            found = measure(f"{name} {widths}", bench.name, candidates, protocol)
        rows += found
    return rows


def sparse_input(x: Tensor) -> Tensor:
    """Features as torch's sparse matrix, with 32-bit indices, which it multiplies faster."""
    wide = x.to_sparse_csr()
    return torch.sparse_csr_tensor(
        wide.crow_indices().int(),
        wide.col_indices().int(),
        wide.values(),
        wide.shape,
        check_invariants=False,  # said, so that torch does not warn
    )


class _Models:
    def __init__(
        self, name: str, model: nn.Module, bench: BenchGraph, sizes: Sizes, protocol: Protocol
    ) -> None:
        self.name, self.bench, self.sizes = name, bench, sizes
        self.given, self.card, self.device = model, protocol.card, protocol.device
        self.model = copy.deepcopy(model).to(self.device)
        self.x = bench.features().to(self.device)
        self.graph = graph_on(bench.graph, self.device)

    def candidates(self, bits: Sequence[int], reorder: bool) -> list[Candidate]:
        nodes, edges = self.graph.num_dst, self.graph.num_edges
        hidden = self.sizes.hidden
        floats = 4 * nodes * (2 * hidden + self.bench.num_classes)
        # with_self_loops sorts the edges once.
        loops = 60 * edges if self.name in ("gcn", "gat", "appnp") else 0
        heads = self.sizes.heads if self.name == "gat" else 0
        by_head = 60 * edges * heads
        narrow = self.name not in ("gin", "sage")
        widest = hidden if narrow else max(hidden, self.bench.num_features)
        found = [
            Candidate(
                "PyG, edge_index",
                "float32",
                self._pyg,
                32,
                needs=edges * (48 + 8 * widest + 24 * heads) + floats,
            )
        ]
        if self.name in ("gcn", "gin", "sage"):
            found.append(
                Candidate(
                    "PyG, torch.sparse CSR",
                    "float32",
                    self._pyg_sparse,
                    32,
                    self.moved(32),
                    40 * edges + loops + floats,
                )
            )
        if self.name != "gat":
            found.append(
                Candidate(
                    "assembly, torch.sparse CSR",
                    "float32",
                    lambda: self._assembly(torch.float32, sparse=True),
                    32,
                    self.moved(32),
                    16 * edges + loops + floats,
                )
            )
        for dtype, width in ((torch.float32, 32), (torch.bfloat16, 16), (torch.float16, 16)):
            found.append(
                Candidate(
                    f"assembly, embedding_bag {str(dtype).removeprefix('torch.')}",
                    "float32" if width == 32 else "float",
                    self._assembly_of(dtype),
                    width,
                    self.moved(width),
                    8 * edges + loops + by_head + floats + self.x.nbytes,
                )
            )
        if self.bench.x is not None and self._density() < SPARSE_DENSITY:
            for sums, sparse in (("embedding_bag", False), ("torch.sparse CSR", True)):
                found.append(
                    Candidate(
                        f"assembly, {sums} float32, sparse input",
                        "float32",
                        self._assembly_sparse_input(sparse),
                        32,
                        None,
                        16 * edges + loops + by_head + floats,
                    )
                )
        if self.card:
            # PyG in float32 is there already. A message per edge, by types of floats.
            peers = model_peers(self.model, self.x, self._edge_index())[1:]
            need = edges * (48 + 8 * widest + 24 * heads) + floats
            found += [replace(peer, needs=need * peer.bits // 32) for peer in peers]
        for width in bits:
            ways = ["float input", "packed input"]
            ways += ["packed input, reordered"] * reorder
            for way in ways:
                found.append(
                    Candidate(
                        f"nodebits u{width}, {way}",
                        "nodebits",
                        self._ours(width, way),
                        width,
                        self.moved(width, 32 if way == "float input" else None),
                        loops + 2 * floats + 2 * edges * heads,
                    )
                )
        return found

    def moved(self, bits: int, input_bits: int | None = None) -> int:
        """Input, weights' results, gathered rows, indices and the output, each once."""
        nodes, features = self.graph.num_dst, self.bench.num_features
        classes, hidden = self.bench.num_classes, self.sizes.hidden
        first = row_bytes(features, bits)
        entry = first if input_bits is None else row_bytes(features, input_bits)
        index = 4 * self.graph.num_edges
        wide, last = row_bytes(hidden, bits), row_bytes(classes, bits)
        per_edge = index // 4
        if self.name == "appnp":
            steps = 10 * (per_edge * last + index + 2 * nodes * last)
            return nodes * (entry + 2 * wide) + steps + 4 * nodes * classes
        gathers = (wide, last)  # GCN and GAT sum what the linear map gave
        if self.name in ("gin", "sage"):
            gathers = (first, wide) if bits < 16 else (min(first, wide), min(wide, last))
        total = nodes * entry + sum(per_edge * g + index for g in gathers)
        return total + nodes * (4 * wide + last) + 4 * nodes * classes

    def _density(self) -> float:
        return float((self.x != 0).float().mean())

    def _edge_index(self) -> Tensor:
        if self.bench.edge_index is not None:
            return self.bench.edge_index.to(self.device)
        return torch.stack([self.graph.indices.long(), self.graph.rows])

    def _pyg(self) -> Call:
        edge_index = self._edge_index()
        return lambda: self.model(self.x, edge_index)

    def _pyg_sparse(self) -> Call:
        """PyG on a torch.sparse matrix that is normalised beforehand, where that applies."""
        from nodebits.bench.speed.aggregate import sparse_csr

        graph = self.graph
        model: Any = self.model
        value = torch.ones(graph.num_edges, device=graph.device)
        if self.name == "gcn":
            graph = graph.with_self_loops()
            factor = graph.deg_inv_sqrt
            value = factor[graph.rows] * factor[graph.indices.long()]
            model = copy.deepcopy(model)
            for conv in model.convs:
                conv.normalize = False
        matrix = sparse_csr(
            graph.indptr, graph.indices.long(), value, (graph.num_dst, graph.num_src)
        )
        return lambda: model(self.x, matrix)

    def _assembly(self, dtype: torch.dtype, sparse: bool) -> Call:
        forward = assemble(self.name, self.model, self.graph, dtype, sparse)
        x = self.x.to(dtype)
        return lambda: forward(x)

    def _assembly_of(self, dtype: torch.dtype) -> Callable[[], Call]:
        return lambda: self._assembly(dtype, sparse=False)

    def _assembly_sparse_input(self, sparse: bool) -> Callable[[], Call]:
        def build() -> Call:
            if self.name in ("gin", "sage"):
                raise Skip("the first layer sums the features before it multiplies them")
            if self.name == "gat" and sparse:
                raise Skip("torch.sparse has no sum with attention")
            forward = assemble(self.name, self.model, self.graph, torch.float32, sparse)
            x = sparse_input(self.x)
            return lambda: forward(x)

        return build

    def _ours(self, bits: int, way: str) -> Callable[[], Call]:
        def build() -> Call:
            if self.name == "appnp" and layer_for(APPNP(K=1, alpha=0.1)) is None:
                raise Skip("APPNP has no quantized form in this version")
            packed = packed_model(self.given, self.bench, bits)
            expected = None
            if self.card and way == "float input":
                expected = packed.predict(self.bench.features(), self.bench.graph)
            packed = packed.to(self.device)
            graph = packed.prepare_graph(
                self.graph, self.graph.num_dst, reorder=way.endswith("reordered")
            )
            if expected is not None and not torch.equal(
                packed.predict(self.x, graph).cpu(), expected
            ):
                raise RuntimeError(f"{self.name} at {bits} bits differs from that of the CPU")
            if way == "float input":
                return lambda: packed.predict(self.x, graph)
            # Features that are not those of the call before.
            x = (packed.pack_input(self.x, edge_index=graph) for _ in range(2))
            inputs = itertools.cycle(x)
            return lambda: packed.predict(next(inputs), graph)

        return build
