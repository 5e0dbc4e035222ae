"""What rounding alone costs normally distributed values: a bound on the error of any site.

    python benchmarks/rounding.py
    python benchmarks/rounding.py --layers [--columns 128] [--unweighted]

Relative error (root mean square) of the best uniform codes with one step for all values, found by a
search over steps; of codes with a step per row of 8 or 128 values; and the least error that any
code of as many bits per value can have, ``2 ** -bits`` (the rate-distortion function of a normal
source, Shannon 1959). A million values, seed 0.

``--layers`` prints the error at 8 bits of layers of ``layer_table.py`` where one kind of site alone
is quantized, then the root of the sum of their squares, then that of all sites together; of
features of other widths with ``--columns``, on edges without weights with ``--unweighted``.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from torch import Tensor

import nodebits
from convs import C
from layer_table import Alone, case

VALUES = 1 << 20
# Those that have been above one per cent.
LAYERS = (
    "APPNP", "ChebConv", "GATConv", "GATv2Conv", "GCN2Conv", "GCNConv", "GINConv", "GraphConv",
    "HypergraphConv", "PNAConv",
)  # fmt: skip
KINDS = ("message", "input", "weight", "attention")


def error(x: Tensor, step: Tensor | float, bits: int) -> float:
    """Of codes around the middle of the range, relative to ``x``."""
    half = 1 << (bits - 1)
    codes = torch.round(x / step).clamp(-half, half - 1)
    return float((codes * step - x).norm() / x.norm())


def error_of(model: Alone, args: tuple[Any, ...], widths: dict[str, int]) -> float:
    """Of a calibrated layer, relative to float.

    Args:
        model: The float layer.
        args: What it takes.
        widths: By kind of site; others stay in float.
    """
    chosen: dict[str, Any] = {f"{kind}_bits": widths.get(kind, 32) for kind in KINDS}
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=32, mode="ptq", **chosen))
    with torch.no_grad():
        expected = model(*args)
        nodebits.calibrate(prepared, *args)
        return float((prepared.eval()(*args) - expected).norm() / expected.norm())


def layers(columns: int, weighted: bool) -> None:
    """Prints what every kind of site adds to a layer's error.

    Args:
        columns: Of features and results.
        weighted: Whether layers that take weights of edges get some.
    """
    print("| layer | messages | inputs | weights | edges | together by squares | all |")
    print("|---|---|---|---|---|---|---|")
    warnings.simplefilter("ignore")
    for name in LAYERS:
        model, args = case(name, columns)
        if not weighted:
            args[2].pop("edge_weight", None)
        parts = [error_of(model, args, {kind: 8}) for kind in KINDS]
        whole = error_of(model, args, dict.fromkeys(KINDS, 8))
        joined = sum(part**2 for part in parts) ** 0.5
        shown = " | ".join(f"{100 * e:.2f} %" for e in (*parts, joined, whole))
        print(f"| `{name}` | {shown} |", flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--columns", type=int, default=C)
    parser.add_argument("--unweighted", action="store_true")
    given = parser.parse_args()
    if given.layers:
        layers(given.columns, not given.unweighted)
        return
    torch.manual_seed(0)
    x = torch.randn(VALUES)
    print("| bits | one step | a step per 8 | a step per 128 | any code |\n|---|---|---|---|---|")
    for bits in (8, 6, 4, 3, 2):
        top = (1 << (bits - 1)) - 1
        one = min(error(x, limit / top, bits) for limit in torch.arange(0.8, 5.5, 0.05).tolist())
        rows = [
            error(part, part.abs().amax(1, keepdim=True) / top, bits)
            for part in (x.view(-1, 8), x.view(-1, 128))
        ]
        shown = " | ".join(f"{100 * e:.2f} %" for e in (one, *rows, 2.0**-bits))
        print(f"| {bits} | {shown} |")


if __name__ == "__main__":
    main()
