"""Packed rows beside float on a CUDA device: neighbour sums, products, a forward, a training step.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json [--graph reddit-like]

Peers are cuSPARSE (``torch.sparse.mm`` of CSR), dense products, and PyG's GCN eager and compiled,
each in float32 and bfloat16. The integers are compared with those of the CPU before they are timed.
Calls are made in turns and end when the device is done; the median counts. A peer that cannot run
is a row with its reason. Without a card the program says so and ends with code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex

import nodebits
from nodebits import ops
from nodebits.bench.environment import versions
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.bench.timing import measure_interleaved
from nodebits.models import ModelSpec, build_model
from nodebits.ops import Edges, Epilogue, Output, Own, Product, Sink, Source, Weight
from nodebits.ops.backends.triton import choice

BITS = (8, 4, 2, 1)
FLOATS = (torch.float32, torch.bfloat16)
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


def steps(found: BenchGraph, hidden: int, device: torch.device) -> Calls:
    """A training step of a GCN: in float, and with the integers simulated."""
    graph = found.graph
    spec = ModelSpec("gcn", found.num_features, hidden, found.num_classes)
    x = found.features().to(device)
    targets = torch.repeat_interleave(torch.arange(graph.num_dst), graph.indptr.diff())
    edge_index = torch.stack([graph.indices.long(), targets]).to(device)
    y = torch.randint(0, found.num_classes, (graph.num_dst,), device=device)
    made: Calls = {}
    for name, config in (
        ("float", nodebits.UniformConfig(bits=32)),
        ("nodebits, 4 bits", nodebits.UniformConfig(bits=4)),
    ):
        model = nodebits.prepare(build_model(spec).to(device), config).train()
        optimizer = torch.optim.Adam(model.parameters())

        def step(model: nn.Module = model, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x, edge_index), y).backward()
            optimizer.step()

        made[name] = step
    return made


def timed(calls: Calls, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """A row per call: milliseconds and the memory that it takes beyond what was held before it."""
    reasons, rows, able = {}, [], {}
    for name, call in calls.items():
        try:
            rows.append({"name": name, "extra_bytes": _extra_bytes(call, device)})
            able[name] = lambda call=call: _done(call, device)
        except (RuntimeError, TypeError) as error:  # torch's words for what a peer cannot
            rows.append({"name": name})
            reasons[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    times = measure_interleaved(able, repeats) if able else {}
    for row in rows:
        name = row["name"]
        row.update(times[name].to_json() if name in times else {"reason": reasons[name]})
    return rows


def _done(call: Callable[[], Any], device: torch.device) -> Any:
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result


def _extra_bytes(call: Callable[[], Any], device: torch.device) -> int | None:
    if device.type != "cuda":
        _done(call, device)
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _done(call, device)
    return torch.cuda.max_memory_allocated(device) - before


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", default="reddit-like", help="as of nodebits bench")
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--shape", type=int, nargs=3, default=(232_965, 602, 128))
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--only", nargs="*", default=["sums", "products", "forward", "train"])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    problem = choice.device_problem() or choice.triton_problem()
    if problem is not None:
        print(f"benchmarks/gpu.py measures kernels on a CUDA device: {problem}", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    torch.manual_seed(0)
    found = load_graph(asked.graph)
    report: dict[str, Any] = {
        "card": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "versions": versions(),
        "graph": asked.graph,
        "columns": asked.columns,
        "hidden": asked.hidden,
        "shape": list(asked.shape),
        "rows": {},
    }
    parts = {
        "sums": lambda: sums(found, asked.columns, device),
        "products": lambda: products(tuple(asked.shape), device),
        "forward": lambda: forwards(found, asked.hidden, device),
        "train": lambda: steps(found, asked.hidden, device),
    }
    for name in asked.only:
        calls = parts[name]()
        with torch.set_grad_enabled(name == "train"):
            report["rows"][name] = timed(calls, device, asked.repeats)
        for row in report["rows"][name]:
            print(name, row["name"], row.get("median", row.get("reason")))
    if asked.json is not None:
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
