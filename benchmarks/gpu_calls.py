"""Calls that ``gpu.py`` times: packed ones and their peers, in one dictionary for each part.

What is packed is compared with the bits of the CPU when it is made. Peers that need a library which
is not installed are rows with that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex

import nodebits
from nodebits import ops
from nodebits.bench.speed.graphs import BenchGraph
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.rows import Rows
from nodebits.models import ModelSpec, build_model
from nodebits.ops import Edges, Epilogue, Output, Own, Product, Sink, Source, Weight

BITS = (8, 4, 2, 1)
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
ATOMS = 28  # kinds, as ZINC has
Calls = dict[str, Callable[[], Any]]


def codes(rows: int, cols: int, bits: int) -> Tensor:
    """Random packed codes, on the CPU."""
    drawn = torch.randint(0, 1 << bits, (rows, cols), dtype=torch.uint8)
    return ops.pack(drawn, bits)


def name_of(what: str, dtype: torch.dtype) -> str:
    """Of a float peer."""
    return f"{what}, {str(dtype).removeprefix('torch.')}"


def sums(found: BenchGraph, columns: int, device: torch.device) -> Calls:
    """Neighbour sums of ``columns`` columns, alone and with what a layer fuses to them.

    Raises:
        RuntimeError: If a sum differs from that of the CPU.
    """
    graph = found.graph
    host = Edges(graph.indptr, graph.indices)
    edges = Edges(graph.indptr.to(device), graph.indices.to(device))
    x = torch.randn(graph.num_src, columns, device=device)
    made: Calls = {}
    for dtype in FLOATS:
        ones = torch.ones(graph.num_edges, dtype=dtype, device=device)
        size = graph.num_dst, graph.num_src
        matrix = torch.sparse_csr_tensor(edges.indptr, edges.indices.long(), ones, size)
        rows = x.to(dtype)
        made[name_of("torch.sparse.mm", dtype)] = lambda m=matrix, r=rows: torch.sparse.mm(m, r)
    made.update(segments(edges, x))
    epilogue = Epilogue(torch.rand(columns, device=device))
    one = torch.ones(1, device=device)
    for bits in BITS:
        packed = codes(graph.num_src, columns, bits)
        source = Source(packed.to(device), bits, columns)
        if not torch.equal(
            ops.spmm(edges, source).cpu(), ops.spmm(host, Source(packed, bits, columns))
        ):
            raise RuntimeError(f"sums of {bits} bits differ from those of the CPU")
        sink = Sink(True, [Output(one, one, bits)])
        made[f"nodebits sum, {bits} bits"] = lambda s=source: ops.spmm(edges, s)
        made[f"nodebits sum to codes, {bits} bits"] = lambda s=source, k=sink: ops.fused_spmm(
            edges, s, Own(), epilogue, k
        )
    return made


def segments(edges: Edges, x: Tensor) -> Calls:
    """Kernels that reduce segments of gathered rows, where their libraries are installed."""
    indptr, columns = edges.indptr, edges.indices.long()

    def sparse_tensor() -> Tensor:
        kind: Any = import_module("torch_sparse").SparseTensor
        size = indptr.numel() - 1, x.size(0)
        found: Tensor = kind(rowptr=indptr, col=columns, sparse_sizes=size).matmul(x)
        return found

    def of(module: str) -> Callable[[], Tensor]:
        def call() -> Tensor:
            found: Tensor = import_module(module).segment_csr(x[columns], indptr)
            return found

        return call

    return {
        "torch.segment_reduce, float32": lambda: torch.segment_reduce(
            x[columns], "sum", offsets=indptr, axis=0
        ),
        "torch_scatter.segment_csr, float32": of("torch_scatter"),
        "pyg_lib segment_csr, float32": of("pyg_lib.ops"),
        "torch_sparse.matmul, float32": sparse_tensor,
    }


def products(shape: tuple[int, int, int], device: torch.device) -> Calls:
    """Dense products ``[N, K] x [K, M]``, alone and fused.

    Raises:
        RuntimeError: If a product differs from that of the CPU.
    """
    rows, depth, cols = shape
    made: Calls = {}
    for dtype in FLOATS:
        x = torch.randn(rows, depth, dtype=dtype, device=device)
        w = torch.randn(depth, cols, dtype=dtype, device=device)
        made[name_of("dense", dtype)] = lambda x=x, w=w: x @ w
    one, scales = torch.ones(1, device=device), torch.rand(cols, device=device)
    for bits in BITS:
        x_packed, w_packed = codes(rows, depth, bits), codes(cols, depth, bits)
        source = Source(x_packed.to(device), bits, depth)
        weight = Weight(w_packed.to(device), bits)
        expected = ops.gemm(Source(x_packed, bits, depth), Weight(w_packed, bits))
        if not torch.equal(ops.gemm(source, weight).cpu(), expected):
            raise RuntimeError(f"products of {bits} bits differ from those of the CPU")
        product = Product(source, weight, Epilogue(scales))
        sink = Sink(True, [Output(one, one, bits)])
        made[f"nodebits product to codes, {bits} bits"] = lambda p=product, k=sink: ops.fused_gemm(
            [p], k
        )
    return made


def forwards(found: BenchGraph, hidden: int, device: torch.device) -> Calls:
    """A GCN of two layers: PyG's, eager and compiled, and packed ones, all from float features.

    Raises:
        RuntimeError: If a packed model says something else than on the CPU.
    """
    graph, features = found.graph, found.features()
    spec = ModelSpec("gcn", found.num_features, hidden, found.num_classes)
    targets = torch.repeat_interleave(torch.arange(graph.num_dst), graph.indptr.diff())
    edge_index = torch.stack([graph.indices.long(), targets])
    model = build_model(spec).eval()
    made: Calls = {}
    for dtype in FLOATS:
        there = build_model(spec).eval().to(device, dtype)
        x = features.to(device, dtype)
        index = EdgeIndex(edge_index.to(device), sparse_size=(graph.num_src, graph.num_dst))
        index = index.sort_by("col").values
        made[name_of("PyG", dtype)] = lambda m=there, x=x, e=index: m(x, e)
        compiled = torch.compile(there)
        plain = index.as_tensor()
        made[name_of("PyG compiled", dtype)] = lambda m=compiled, x=x, e=plain: m(x, e)
    x = features.to(device)
    for bits in (8, 4, 2):
        prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=bits, mode="ptq"))
        nodebits.calibrate(prepared, features, graph)
        packed = nodebits.convert(prepared, spec)
        expected = packed.predict(features, graph)
        packed = packed.to(device)
        there = packed.prepare_graph(edge_index.to(device), graph.num_dst)
        if not torch.equal(packed.predict(x, there).cpu(), expected):
            raise RuntimeError(f"the forward at {bits} bits differs from that of the CPU")
        made[f"nodebits, {bits} bits"] = lambda p=packed, g=there: p.predict(x, g)
    return made


def taken(rows: int, columns: int, device: torch.device, batch: int = 100_000) -> Calls:
    """Rows of a sample: taken on the device from packed ones of the host, or copied as floats.

    Raises:
        RuntimeError: If packed rows are others than on the CPU.
    """
    index = torch.randint(0, rows, (batch,))
    x, there = torch.randn(rows, columns), index.to(device)
    made: Calls = {"float rows of the CPU, copied": lambda: x.index_select(0, index).to(device)}
    one = torch.ones(1)
    for bits in BITS:
        packed = Rows.dense(codes(rows, columns, bits), bits, columns, one, one)
        kept = PackedInput({"input": packed}, (rows, columns)).on_host(device)
        expected = packed.selected(index).dequantize()
        if not torch.equal(kept.selected(there).rows["input"].dequantize().cpu(), expected):
            raise RuntimeError(f"rows of {bits} bits differ from those of the CPU")
        made[f"nodebits rows of the host, {bits} bits"] = lambda k=kept: k.selected(there)
    return made


def steps(found: BenchGraph, hidden: int, device: torch.device) -> Calls:
    """A training step of a GCN: PyG's, and with the integers simulated."""
    graph = found.graph
    spec = ModelSpec("gcn", found.num_features, hidden, found.num_classes)
    x = found.features().to(device)
    targets = torch.repeat_interleave(torch.arange(graph.num_dst), graph.indptr.diff())
    edge_index = torch.stack([graph.indices.long(), targets]).to(device)
    y = torch.randint(0, found.num_classes, (graph.num_dst,), device=device)
    configs = {
        "PyG, float32": None,
        "PyG, bfloat16 by autocast": None,
        "nodebits, 8 bits": nodebits.UniformConfig(bits=8),
        "nodebits, 4 bits": nodebits.UniformConfig(bits=4),
        "nodebits Degree-Quant, 4 bits": nodebits.DegreeQuantConfig(bits=4),
    }
    made: Calls = {}
    for name, config in configs.items():
        plain = build_model(spec).to(device)
        model = (plain if config is None else nodebits.prepare(plain, config)).train()
        optimizer, amp = torch.optim.Adam(model.parameters()), "autocast" in name

        def step(model: nn.Module = model, optimizer: Any = optimizer, amp: bool = amp) -> None:
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
                loss = nn.functional.cross_entropy(model(x, edge_index), y)
            loss.backward()
            optimizer.step()

        made[name] = step
    return made


def molecules(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Made-up molecules of ZINC's sizes in one batch: rings and chains, a kind for each atom.

    Returns:
        Features float32 ``[N, 28]``, edges int64 ``[2, E]`` both ways, and the graph of each node.
    """
    g = torch.Generator().manual_seed(0)
    sizes = torch.randint(12, 38, (count,), generator=g)
    batch = torch.repeat_interleave(torch.arange(count), sizes)
    first = sizes.cumsum(0) - sizes
    place = torch.arange(batch.numel()) - first[batch]
    later = (place > 0).nonzero().view(-1)
    # Every atom is bound to one of the three before it, every ninth to one further back.
    back = torch.randint(1, 4, (later.numel(),), generator=g).minimum(place[later])
    chain = torch.stack([later - back, later])
    closing = later[place[later] % 9 == 8]
    rings = torch.stack([closing - 5, closing])
    one_way = torch.cat([chain, rings], 1).unique(dim=1)
    kinds = torch.randint(0, ATOMS, (batch.numel(),), generator=g)
    x = nn.functional.one_hot(kinds, ATOMS).float()
    return x, torch.cat([one_way, one_way.flip(0)], 1), batch


def batches(count: int, hidden: int, device: torch.device) -> Calls:
    """GCN and GIN of four layers on a batch of molecules: eager, compiled and packed.

    Raises:
        RuntimeError: If a packed model says something else than on the CPU.
    """
    x, edge_index, batch = molecules(count)
    there = x.to(device), edge_index.to(device), batch.to(device)
    made: Calls = {}
    for name in ("gcn", "gin"):
        spec = ModelSpec(name, ATOMS, hidden, 10, num_layers=4, task="graph")
        model = build_model(spec).eval()
        for dtype in FLOATS:
            own = build_model(spec).eval().to(device, dtype)
            given = there[0].to(dtype), there[1], there[2]
            made[name_of(f"PyG {name}", dtype)] = lambda m=own, v=given: m(*v[:2], batch=v[2])
            compiled = torch.compile(own)
            made[name_of(f"PyG {name} compiled", dtype)] = lambda m=compiled, v=given: m(
                *v[:2], batch=v[2]
            )
        for bits in (8, 4, 2):
            prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=bits, mode="ptq"))
            nodebits.calibrate(prepared, x, edge_index, batch=batch)
            packed = nodebits.convert(prepared, spec)
            expected = packed.predict(x, edge_index, batch=batch)
            packed = packed.to(device)
            found = packed.predict(*there[:2], batch=there[2]).cpu()
            if not torch.equal(found, expected):
                raise RuntimeError(f"{name} at {bits} bits differs from that of the CPU")
            made[f"nodebits {name}, {bits} bits"] = lambda p=packed: p.predict(
                *there[:2], batch=there[2]
            )
    return made
