"""The field's most used layers beside PyG's best float form, at 8 and 4 bits.

    python benchmarks/forms.py --out benchmarks/results/forms.jsonl [--layers PNA "SAGE max"]
    python benchmarks/forms.py --table benchmarks/results/forms.jsonl

A random graph of the size of ogbn-arxiv, 169,343 nodes and 1,166,243 edges with uneven degrees;
128 columns (16 where PyG makes a matrix per edge), calibrated, in one thread unless told otherwise.
PyG's layer is given ``edge_index`` and, where it takes one, a matrix in rows of edges; the faster
of the two counts. Float and packed layers run in turns, and the least of some calls counts. Every
layer has a process of its own and a line per width; layers that the file has already are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_geometric
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.utils import to_torch_csr_tensor

import nodebits
from convs import BY_TYPE, CONVS, by_type, extras
from layer_table import Alone
from nodebits.nn.layer import QuantLayer
from nodebits.ops import current_isa
from nodebits.runtime.sites import runs_of
from propagate import mean, read, seconds

NODES, EDGES, COLUMNS, NARROW = 169_343, 1_166_243, 128, 16
WIDTHS = (8, 4)
SCALERS = ["identity", "amplification", "attenuation"]
TITLE = """# The field's layers on integers

Made by `python benchmarks/forms.py --table`; its text says what was measured, and how.

"""

Make = Callable[[Tensor, int], nn.Module]


def of(name: str) -> tuple[Make, tuple[str, ...]]:
    """A layer of ``convs.py``."""
    make, names = CONVS[name]
    # A layer that normalizes by degree needs no weights of edges.
    return lambda degrees, c: make(c), tuple(n for n in names if n != "edge_weight")


def one_map(degrees: Tensor, c: int) -> nn.Module:
    """EdgeConv with a linear map and an activation."""
    return pyg.EdgeConv(nn.Sequential(nn.Linear(2 * c, c), nn.ReLU()))


LAYERS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "GCN": (lambda d, c: pyg.GCNConv(c, c), ()),
    "GAT": (lambda d, c: pyg.GATConv(c, c // 8, heads=8), ()),
    "GATv2": (lambda d, c: pyg.GATv2Conv(c, c // 8, heads=8), ()),
    "Transformer": (lambda d, c: pyg.TransformerConv(c, c // 8, heads=8), ()),
    "SuperGAT": (lambda d, c: pyg.SuperGATConv(c, c // 8, heads=8), ()),
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
    "ARMA": of("ARMAConv"),
    "APPNP": (lambda d, c: pyg.APPNP(10, 0.1), ()),
    "GCN2": of("GCN2Conv"),
    "ResGated": of("ResGatedGraphConv"),
    "CG": of("CGConv"),
    "NN": of("NNConv"),
    "FiLM": (lambda d, c: pyg.FiLMConv(c, c), ()),
    "LightGCN": (lambda d, c: pyg.LGConv(), ()),
    "ClusterGCN": of("ClusterGCNConv"),
    "GraphConv": (lambda d, c: pyg.GraphConv(c, c), ()),
    "GraphConv max": (lambda d, c: pyg.GraphConv(c, c, aggr="max"), ()),
}


def edges() -> Tensor:
    """Int64 ``[2, E]``: sources alike, targets unevenly likely, each under some number."""
    target = (torch.rand(EDGES) ** 2.5 * NODES).long().clamp(max=NODES - 1)
    return torch.stack([torch.randint(NODES, (EDGES,)), torch.randperm(NODES)[target]])


def forms_of(name: str, model: nn.Module, args: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Calls of the float layer, by the form of the edges."""
    calls: dict[str, Callable[[], Any]] = {"edge_index": lambda: model(*args)}
    if name == "HGT" or args[2]:
        return calls
    matrix = to_torch_csr_tensor(args[1].flip(0), size=(NODES, NODES))
    try:
        model(args[0], matrix, args[2])
    except Exception:  # whatever a layer that takes no matrix says
        return calls
    calls["CSR"] = lambda: model(args[0], matrix, args[2])
    return calls


def measure(name: str, repeats: int, threads: int) -> list[dict[str, Any]]:
    """Lines of the file, one for each width."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    columns = NARROW if name == "NN" else COLUMNS
    make, names = LAYERS[name]
    args: tuple[Any, ...]
    if name == "HGT":
        x, index = by_type(NODES // 2, EDGES // 3, columns)
        args = x, index
        degrees = torch.zeros(1, dtype=torch.int64)
    else:
        plain = edges()
        args = torch.randn(NODES, columns), plain, extras(names, plain, NODES, columns)
        degrees = torch.bincount(torch.bincount(plain[1], minlength=NODES))
    model = Alone(make(degrees, columns)).eval()
    lines = []
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        floats = forms_of(name, model, args)
        best = {form: seconds(call) for form, call in floats.items()}
        expected = model(*args)
        for bits in WIDTHS:
            config = nodebits.UniformConfig(bits=bits, mode="ptq")
            prepared = nodebits.prepare(model, config)
            nodebits.calibrate(prepared, *args)
            packed = nodebits.convert(prepared, leave_unseen="float")
            del prepared
            found = packed.predict(*args)
            error = float((found - expected).norm() / expected.norm())
            del found
            packs = seconds(lambda packed=packed: packed.predict(*args))
            for _ in range(repeats):
                for form, call in floats.items():
                    best[form] = min(best[form], seconds(call))
                packs = min(packs, seconds(lambda packed=packed: packed.predict(*args)))
            layers = [m for m in packed.module.modules() if isinstance(m, QuantLayer)]
            kinds = [k for k in dict.fromkeys(map(runs_of, layers)) if k != "integer product"]
            form = min(best, key=lambda form: best[form])
            plan = packed.plan(*args)
            lines.append(
                {
                    "layer": name,
                    "bits": bits,
                    "columns": columns,
                    "runs": ", ".join(kinds) or "float",
                    "plan": not isinstance(plan, str) and "module" not in _steps(plan),
                    "float_s": round(best[form], 4),
                    "float_form": form,
                    "packed_s": round(packs, 4),
                    "ratio": round(best[form] / packs, 2),
                    "error": round(error, 5),
                    "torch": torch.__version__,
                    "pyg": torch_geometric.__version__,
                    "nodebits": nodebits.__version__,
                    "isa": current_isa(),
                    "threads": threads,
                    "repeats": repeats,
                    "seed": 0,
                }
            )
    return lines


def _steps(plan: Any) -> set[str]:
    return {step["op"] for step in plan.about["steps"]}


def table(lines: list[dict[str, Any]]) -> str:
    """In Markdown, a row per layer."""
    by_layer: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        by_layer.setdefault(str(line["layer"]), {})[int(line["bits"])] = line
    rows = [
        "| layer | runs | plan | PyG, s | form | 8 bits, s | times as fast | error | 4 bits, s | "
        "times as fast | error |",
        "|---" * 11 + "|",
    ]
    for name in (name for name in LAYERS if name in by_layer):
        one = by_layer[name]
        cells = [name, one[8]["runs"], "yes" if one[8]["plan"] else "in parts"]
        cells += [f"{min(line['float_s'] for line in one.values()):.3f}", one[8]["float_form"]]
        for bits in WIDTHS:
            line = one[bits]
            cells += [f"{line['packed_s']:.3f}", f"{line['ratio']:.1f}"]
            cells += [f"{100 * line['error']:.1f} %"]
        rows.append("| " + " | ".join(cells) + " |")
    said = []
    for bits in WIDTHS:
        ratios = [line["ratio"] for line in lines if line["bits"] == bits]
        slower = [str(one["layer"]) for one in lines if one["bits"] == bits and one["ratio"] < 1]
        said.append(
            f"At {bits} bits {mean(ratios):.1f} times as fast in the geometric mean; slower than "
            f"PyG: {', '.join(slower) or 'none'}."
        )
    return TITLE + "\n".join(rows) + "\n\n" + "\n".join(said) + "\n"


def main() -> None:
    """Measures the layers that were asked for, or prints the table of a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print("\n".join(map(json.dumps, measure(given.one, given.repeats, given.threads))))
    elif given.table:
        print(table(read(given.table)), end="")
    elif given.out:
        known = {line["layer"] for line in read(given.out)}
        for name in given.layers:
            if name in known:
                continue
            options = ["--repeats", str(given.repeats), "--threads", str(given.threads)]
            command = [sys.executable, __file__, "--one", name, *options]
            made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if made.returncode:
                print(f"{name}: no line, its process ended with {made.returncode}", flush=True)
                continue
            with given.out.open("a", encoding="utf-8") as file:
                file.write(made.stdout)
            print(made.stdout, end="", flush=True)
    else:
        parser.error("give --out or --table")


if __name__ == "__main__":
    main()
