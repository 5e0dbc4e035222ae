"""The field's most used layers beside PyG's best float form, at 8 and 4 bits.

    python benchmarks/forms.py --out benchmarks/results/forms.jsonl [--layers PNA "SAGE max"]
    python benchmarks/forms.py --out benchmarks/results/forms.jsonl --again --layers Cheb
    python benchmarks/forms.py --out benchmarks/results/forms.jsonl --graph reddit-like --limit 3600
    python benchmarks/forms.py --table benchmarks/results/forms.jsonl

A random graph of the size of ogbn-arxiv, 169,343 nodes and 1,166,243 edges with uneven degrees;
128 columns (16 where PyG makes a matrix per edge), calibrated, in one thread unless told otherwise.
"+ e" takes three numbers per edge, and "+ w" a weight; of "+ t" four rows of three numbers stand on
all edges, as types of bonds do.
``--graph reddit-like`` takes the generated graph of ``nodebits bench``, 114.6 million edges, and
the layers of which PyG makes no message per edge: those would take 58 GB.
PyG's layer is given ``edge_index`` and, where it takes one, a matrix in rows of edges; the faster
of the two counts. Beside it stands the layer on ``edge_index`` as ``torch.compile`` makes it for
these very sizes; what compiling takes is left out, and lines of earlier runs have no such figure.
Float and packed layers then run in turns, each for as long as a float call, and the least counts.
Memory is what a call takes at most beyond what was held before it. Packed models are called until
they run as the plan that they make of themselves.

Every layer has a process of its own, and a line per width is written as soon as it is known. What
the file has already from this kind of machine (processor and instruction set) is left out, so a run
that was ended goes on; ``--again`` measures it anew. Lines of other kinds stay: every kind has a
table of its own, so none mixes machines. A layer that takes longer than ``--limit`` is named at the
end. On a machine that others use as well, ``--processor`` counts seconds of the processor.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch_geometric
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.utils import to_torch_csr_tensor

import nodebits
from convs import BY_TYPE, CONVS, by_type, extras, run
from nodebits.bench.environment import processor_name
from nodebits.bench.speed.graphs import load_graph
from nodebits.nn.layer import QuantLayer
from nodebits.ops import current_isa
from nodebits.runtime.sites import runs_of
from peers import compiled
from propagate import machine, read, seconds, taken_mib, write

NODES, EDGES, COLUMNS, NARROW = 169_343, 1_166_243, 128, 16
WIDTHS = (8, 4)
REDDIT = "reddit-like"
NODES_OF = {"": NODES, REDDIT: 232_965}
# Layers that PyG runs on compressed rows without a message per edge.
WITHOUT_MESSAGES = ("GCN", "SAGE mean", "GIN", "SG", "TAG", "LightGCN", "GraphConv")
# Layers of which PyG makes a matrix per edge.
MATRICES = ("NN", "NN of two")
# Behind the name of a layer whose edges are of few types.
TYPES, NUM_TYPES = " + t", 4
# Further calls until a packed model runs as its plan: the second of a kind makes it, and the module
# answers the fourth, to look at the ranges of its sites.
UNTIL_PLAN = 3
# Forms of the edges that take longer than the faster one by this factor are called once.
NEAR = 1.4
SCALERS = ["identity", "amplification", "attenuation"]
Make = Callable[[Tensor, int], nn.Module]


def of(name: str) -> tuple[Make, tuple[str, ...]]:
    """A layer of ``convs.py``."""
    make, names = CONVS[name]
    # A layer that normalizes by degree needs no weights of edges.
    return lambda degrees, c: make(c), tuple(n for n in names if n != "edge_weight")


def weighted(name: str) -> tuple[Make, tuple[str, ...]]:
    """A layer of ``convs.py`` on edges with a weight each."""
    return of(name)[0], ("edge_weight",)


def with_edges(conv: Callable[..., nn.Module], heads: int = 1) -> tuple[Make, tuple[str, ...]]:
    """A layer that reads features of edges."""
    more = {"heads": heads} if heads > 1 else {}
    return lambda degrees, c: conv(c, c // heads, edge_dim=3, **more), ("edge_attr",)


def one_map(degrees: Tensor, c: int) -> nn.Module:
    """EdgeConv with a linear map and an activation."""
    return pyg.EdgeConv(nn.Sequential(nn.Linear(2 * c, c), nn.ReLU()))


def two_maps(degrees: Tensor, c: int) -> nn.Module:
    """NNConv whose network has a hidden layer."""
    network = nn.Sequential(nn.Linear(3, 2 * c), nn.ReLU(), nn.Linear(2 * c, c * c))
    return pyg.NNConv(c, c, network)


class Layer(nn.Module):
    """A layer that takes its further argument, if it has one, by position."""

    def __init__(self, conv: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.conv, self.names = conv, names

    def forward(self, x: Tensor, edge_index: Any, more: Tensor | None = None) -> Tensor:
        return run(self.conv, x, edge_index, {} if more is None else {self.names[0]: more})


class ByType(nn.Module):
    """A layer over types of nodes, whose results stand one below the other."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        return torch.cat(list(self.conv(x, edge_index).values()))


LAYERS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "GCN": (lambda d, c: pyg.GCNConv(c, c), ()),
    "GAT": (lambda d, c: pyg.GATConv(c, c // 8, heads=8), ()),
    "GAT + e": with_edges(pyg.GATConv, heads=8),
    "GATv2": (lambda d, c: pyg.GATv2Conv(c, c // 8, heads=8), ()),
    "GATv2 + e": with_edges(pyg.GATv2Conv, heads=8),
    "Transformer": (lambda d, c: pyg.TransformerConv(c, c // 8, heads=8), ()),
    "Transformer + e": with_edges(pyg.TransformerConv, heads=8),
    "SuperGAT": (lambda d, c: pyg.SuperGATConv(c, c // 8, heads=8), ()),
    "AGNN": of("AGNNConv"),
    "SAGE mean": (lambda d, c: pyg.SAGEConv(c, c), ()),
    "SAGE max": (lambda d, c: pyg.SAGEConv(c, c, aggr="max"), ()),
    "SAGE pool": (lambda d, c: pyg.SAGEConv(c, c, aggr="max", project=True), ()),
    "GIN": of("GINConv"),
    "GINE": of("GINEConv"),
    "GEN": of("GENConv"),
    "PNA": (lambda d, c: pyg.PNAConv(c, c, ["mean", "max", "min", "std"], SCALERS, d), ()),
    "Edge": (one_map, ()),
    "RGCN": of("RGCNConv"),
    "HGT": (lambda d, c: BY_TYPE["HGTConv"](c), ()),
    "SG": of("SGConv"),
    "TAG": of("TAGConv"),
    "Cheb": of("ChebConv"),
    "Cheb + w": weighted("ChebConv"),
    "ARMA": of("ARMAConv"),
    "ARMA + w": weighted("ARMAConv"),
    "APPNP": (lambda d, c: pyg.APPNP(10, 0.1), ()),
    "GCN2": of("GCN2Conv"),
    "ResGated": of("ResGatedGraphConv"),
    "ResGated + e": with_edges(pyg.ResGatedGraphConv),
    "CG": of("CGConv"),
    "NN": of("NNConv"),
    "NN of two": (two_maps, ("edge_attr",)),
    "GMM": of("GMMConv"),
    "FiLM": (lambda d, c: pyg.FiLMConv(c, c), ()),
    "LightGCN": (lambda d, c: pyg.LGConv(), ()),
    "ClusterGCN": of("ClusterGCNConv"),
    "GraphConv": (lambda d, c: pyg.GraphConv(c, c), ()),
    "GraphConv max": (lambda d, c: pyg.GraphConv(c, c, aggr="max"), ()),
}
TYPED = (
    "GAT + e", "GATv2 + e", "Transformer + e", "GINE", "ResGated + e", "CG", "NN",
    "NN of two", "GMM",
)  # fmt: skip
LAYERS |= {name.removesuffix(" + e") + TYPES: LAYERS[name] for name in TYPED}


def edges() -> Tensor:
    """Int64 ``[2, E]``: sources alike, targets unevenly likely, each under some number."""
    target = (torch.rand(EDGES) ** 2.5 * NODES).long().clamp(max=NODES - 1)
    return torch.stack([torch.randint(NODES, (EDGES,)), torch.randperm(NODES)[target]])


def forms_of(name: str, model: nn.Module, args: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Calls of the float layer, by the form of the edges."""
    calls: dict[str, Callable[[], Any]] = {"edge_index": lambda: model(*args)}
    if name == "HGT" or len(args) > 2:
        return calls
    if args[1].layout == torch.sparse_csr:
        return {"CSR": calls["edge_index"]}
    matrix = to_torch_csr_tensor(args[1].flip(0), size=(NODES, NODES))
    try:
        model(args[0], matrix)
    except Exception:  # whatever a layer that takes no matrix says
        return calls
    calls["CSR"] = lambda: model(args[0], matrix)
    return calls


def large_case(name: str, graph: str) -> tuple[nn.Module, tuple[Any, ...], int]:
    """A layer on compressed rows of a generated graph."""
    made = load_graph(graph).graph
    ones = torch.ones(made.num_edges)
    size = made.num_dst, made.num_src
    matrix = torch.sparse_csr_tensor(made.indptr, made.indices.long(), ones, size)
    make, _ = LAYERS[name]
    layer = Layer(make(torch.ones(1), COLUMNS), ()).eval()
    return layer, (torch.randn(size[1], COLUMNS), matrix), COLUMNS


def case(name: str, graph: str = "") -> tuple[nn.Module, tuple[Any, ...], int]:
    """A layer, what its forward takes, and how many columns both have."""
    if graph:
        return large_case(name, graph)
    columns = NARROW if name.removesuffix(TYPES) in MATRICES else COLUMNS
    make, names = LAYERS[name]
    if name == "HGT":
        nothing = torch.zeros(1, dtype=torch.int64)
        return ByType(make(nothing, columns)).eval(), by_type(NODES // 2, EDGES // 3, columns), 128
    plain = edges()
    degrees = torch.bincount(torch.bincount(plain[1], minlength=NODES))
    more = extras(names, plain, NODES, columns)
    if name.endswith(TYPES):
        rows = more["edge_attr"][:NUM_TYPES]
        more["edge_attr"] = rows[torch.randint(NUM_TYPES, (EDGES,))]
    args = torch.randn(NODES, columns), plain, *more.values()
    return Layer(make(degrees, columns), names).eval(), args, columns


def measure(name: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Lines of the file, one for each width; says on the way what it does."""
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.processor else time.perf_counter
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model, args, columns = case(name, given.graph)
        said("float forms")
        expected = model(*args)
        floats = forms_of(name, model, args)
        best = {form: seconds(call, clock) for form, call in floats.items()}
        least = min(best.values())
        floats = {form: call for form, call in floats.items() if best[form] < NEAR * least}
        held = min(taken_mib(call) for call in floats.values())
        said("compiled")
        fast = None if given.graph else compiled(model, *args, dynamic=False)
        best_fast = math.inf if fast is None else seconds(lambda: fast(*args), clock)
        for bits in given.bits:
            said(f"{bits} bits: ranges")
            config = nodebits.UniformConfig(bits=bits, sum_bits=bits, head_bits=bits, mode="ptq")
            prepared = nodebits.prepare(model, config)
            nodebits.calibrate(prepared, *args)
            packed = nodebits.convert(prepared, leave_unseen="float")
            del prepared
            said(f"{bits} bits: calls")
            found = packed.predict(*args)
            error = float((found - expected).norm() / expected.norm())
            del found
            for _ in range(UNTIL_PLAN):
                packed.predict(*args)
            taken = taken_mib(lambda packed=packed: packed.predict(*args))
            packs = seconds(lambda packed=packed: packed.predict(*args), clock)
            for _ in range(given.repeats):
                for form, call in floats.items():
                    best[form] = min(best[form], seconds(call, clock))
                budget = min(best.values())
                packs = min(
                    packs, least_of(lambda packed=packed: packed.predict(*args), clock, budget)
                )
                if fast is not None:
                    best_fast = min(best_fast, least_of(lambda: fast(*args), clock, budget))
            layers = [m for m in packed.module.modules() if isinstance(m, QuantLayer)]
            kinds = [k for k in dict.fromkeys(map(runs_of, layers)) if k != "integer product"]
            plan = packed.plan(*args)
            form = min(floats, key=lambda form: best[form])
            yield {
                "layer": name,
                **({"graph": given.graph} if given.graph else {}),
                "bits": bits,
                "columns": columns,
                "runs": ", ".join(kinds) or "float",
                "plan": not isinstance(plan, str) and "module" not in _steps(plan),
                "float_s": round(best[form], 4),
                "float_form": form,
                "packed_s": round(packs, 4),
                "ratio": round(best[form] / packs, 2),
                **({} if fast is None else beside_compiled(best_fast, packs)),
                "float_mib": round(held, 1),
                "packed_mib": round(taken, 1),
                "error": round(error, 5),
                "torch": torch.__version__,
                "pyg": torch_geometric.__version__,
                "nodebits": nodebits.__version__,
                "isa": current_isa(),
                "processor": processor_name(),
                "threads": given.threads,
                "repeats": given.repeats,
                "clock": "processor" if given.processor else "wall",
                "seed": 0,
            }


def least_of(function: Callable[[], Any], clock: Callable[[], float], budget: float) -> float:
    """Seconds of the fastest call among those that ``budget`` seconds hold, at least one.

    A short call falls into a slow moment of a shared machine as a whole, a long one in part.
    """
    best, spent = math.inf, 0.0
    while spent < budget:
        found = seconds(function, clock)
        best, spent = min(best, found), spent + found
    return best


def beside_compiled(compiled_s: float, packed_s: float) -> dict[str, float]:
    """Fields of a line where the float layer could be compiled."""
    return {
        "compiled_s": round(compiled_s, 4),
        "compiled_ratio": round(compiled_s / packed_s, 2),
    }


def said(what: str) -> None:
    """Progress, for whoever waits, and seconds of the processor so far."""
    print(f"  {time.process_time():6.1f} s  {what}", file=sys.stderr, flush=True)


def _steps(plan: Any) -> set[str]:
    return {step["op"] for step in plan.about["steps"]}


def one_layer(name: str, given: argparse.Namespace) -> str | None:
    """Measures the widths that the file lacks, in a process of their own.

    Args:
        name: Of the layer.
        given: Options.

    Returns:
        Why lines are missing; None where they are not.
    """
    if given.graph and name not in WITHOUT_MESSAGES:
        return f"PyG's messages would not fit the memory at the size of {given.graph}"
    shape = {"processor": processor_name(), "isa": current_isa(), "graph": given.graph}
    here = machine(shape)
    lines = [one for one in read(given.out) if one["layer"] == name and machine(one) == here]
    known = set() if given.again else {one["bits"] for one in lines}
    bits = [str(b) for b in given.bits if b not in known]
    if not bits:
        return None
    command = [sys.executable, __file__, "--one", name, "--out", str(given.out), "--bits", *bits]
    command += ["--repeats", str(given.repeats), "--threads", str(given.threads)]
    command += ["--graph", given.graph] if given.graph else []
    command += ["--processor"] * given.processor
    print(name, file=sys.stderr, flush=True)
    try:
        ended = subprocess.run(command, check=False, timeout=given.limit).returncode
    except subprocess.TimeoutExpired:
        return f"it took more than {given.limit} s; --limit gives it more"
    return f"its process ended with {ended}" if ended else None


def main() -> None:
    """Measures the layers that were asked for, or prints the table of a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--bits", nargs="*", type=int, default=list(WIDTHS), choices=WIDTHS)
    parser.add_argument("--again", action="store_true", help="measure what the file has anew")
    parser.add_argument("--graph", default="", choices=["", REDDIT], help="default: arxiv's size")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processor", action="store_true", help="count seconds of the processor")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for a layer")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.table:
        from forms_table import tables

        print(tables(read(given.table)), end="")
        return
    if not given.out:
        parser.error("give --out or --table")
    if given.one:
        for line in measure(given.one, given):
            write(given.out, line)
            print(json.dumps(line), flush=True)
        return
    missing = {name: one_layer(name, given) for name in given.layers}
    for name, reason in missing.items():
        if reason is not None:
            print(f"{name}: {reason}", flush=True)


if __name__ == "__main__":
    main()
