"""Whole models: PyG as users run it, the best that torch's operators allow, and packed ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import APPNP

from nodebits.bench.speed.assembly import assemble
from nodebits.bench.speed.graphs import BenchGraph
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, Skip, measure
from nodebits.core.errors import UnknownNameError
from nodebits.core.packing import row_bytes
from nodebits.graph import Graph
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.models import ModelSpec, build_model
from nodebits.nn.registry import layer_for
from nodebits.runtime import PackedModel, convert

MODELS = ("gcn", "gin", "sage", "gat", "appnp")
# Ranges of a packed model on a generated graph come from a small graph of the same mean degree.
_CALIBRATION_NODES = 2_000
_CALIBRATION_DEGREE = 100
# A first layer's features of which fewer are not zero are worth a sparse product.
SPARSE_DENSITY = 0.2
# Above this size Python is a small part of a forward.


class Propagation(nn.Module):
    """APPNP (Gasteiger et al. 2019): two linears, then ten steps of personalised PageRank."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(in_channels, hidden)
        self.lin2 = nn.Linear(hidden, out_channels)
        self.act = nn.ReLU()
        self.prop = APPNP(K=10, alpha=0.1)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        x = self.lin2(self.act(self.lin1(x)))
        result: Tensor = self.prop(x, edge_index)
        return result


@dataclass(frozen=True)
class Sizes:
    """What models are built from.

    Attributes:
        hidden: Hidden width (GAT: 8 heads together).
        heads: Heads of GAT's first layer.
    """

    hidden: int = 128
    heads: int = 8


def float_model(name: str, num_features: int, num_classes: int, sizes: Sizes) -> nn.Module:
    """PyG's model with seeded weights, in evaluation mode.

    Raises:
        UnknownNameError: There is no such model.
        ConfigError: Its sizes make no model.
    """
    if name not in MODELS:
        raise UnknownNameError.for_name("model", name, MODELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "appnp":
            return Propagation(num_features, sizes.hidden, num_classes).eval()
        spec = ModelSpec(
            name, num_features, sizes.hidden, num_classes, dropout=0.0, heads=sizes.heads
        )
        return build_model(spec).eval()


def packed_model(model: nn.Module, bench: BenchGraph, bits: int) -> PackedModel:
    """The model at ``bits`` bits at all sites, calibrated after training.

    Speed does not depend on the ranges; on a generated graph they come from a smaller one.
    """
    prepared = prepare(model, UniformConfig(bits=bits, mode="ptq"))
    if bench.x is not None:
        calibrate(prepared, bench.x, bench.graph)
    else:
        nodes = min(_CALIBRATION_NODES, bench.graph.num_src)
        mean = max(1, bench.graph.num_edges // max(1, bench.graph.num_src))
        small = _small_graph(nodes, min(mean, _CALIBRATION_DEGREE))
        generator = torch.Generator().manual_seed(1)
        calibrate(
            prepared,
            torch.randn(nodes, bench.num_features, generator=generator, device="cpu"),
            small,
        )
    return convert(prepared)


def _small_graph(nodes: int, degree: int) -> Graph:
    generator = torch.Generator().manual_seed(2)
    indptr = torch.arange(nodes + 1, device="cpu") * degree
    indices = torch.randint(
        0, nodes, (nodes * degree,), generator=generator, dtype=torch.int32, device="cpu"
    )
    return Graph(indptr, indices, nodes)


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
        candidates = _Models(name, model, bench, sizes).candidates(bits, reorder)
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
    def __init__(self, name: str, model: nn.Module, bench: BenchGraph, sizes: Sizes) -> None:
        self.name, self.model, self.bench, self.sizes = name, model, bench, sizes
        self.x = bench.features()
        self.graph = bench.graph

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
            return self.bench.edge_index
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
            model = float_model("gcn", self.x.size(1), self.bench.num_classes, self.sizes)
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
            packed = packed_model(self.model, self.bench, bits)
            graph = packed.prepare_graph(
                self.graph, self.graph.num_dst, reorder=way.endswith("reordered")
            )
            if way == "float input":
                return lambda: packed.predict(self.x, graph)
            # Features that are not those of the call before.
            x = (packed.pack_input(self.x, edge_index=graph) for _ in range(2))
            inputs = itertools.cycle(x)
            return lambda: packed.predict(next(inputs), graph)

        return build


__all__ = [
    "MODELS",
    "SPARSE_DENSITY",
    "Sizes",
    "float_model",
    "measure_forward",
    "packed_model",
    "sparse_input",
]
