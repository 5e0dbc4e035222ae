"""What every convolution of PyG runs on, and its error at 8 bits: the table of docs/layers.md.

    python benchmarks/layer_table.py [--write]

Random features on a random graph of the size of Cora (2,708 nodes, 10,556 edges); the layer alone,
calibrated, not trained. ``--write`` puts the table into the page.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nodebits
from convs import BY_TYPE, CONVS, LEFT_OUT, C, by_type, extras, run
from nodebits.nn.layer import QuantLayer
from nodebits.runtime.sites import runs_of

NODES, EDGES = 2708, 10_556
PAGE = Path(__file__).resolve().parent.parent / "docs" / "layers.md"
START, END = "<!-- layer_table.py -->\n", "<!-- end -->\n"


class Alone(nn.Module):
    """A convolution whose further arguments come in a dictionary."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x, edge_index, extra=None):  # type: ignore[no-untyped-def]
        if extra is None:
            return torch.cat(list(self.conv(x, edge_index).values()))
        return run(self.conv, x, edge_index, extra)


def row(name: str) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    if name in BY_TYPE:
        model = Alone(BY_TYPE[name]()).eval()
        args: tuple[Any, ...] = by_type(NODES, EDGES)
    else:
        make, names = CONVS[name]
        model = Alone(make()).eval()
        x, edges = torch.randn(NODES, C), torch.randint(0, NODES, (2, EDGES))
        args = x, edges, extras(names, edges, NODES)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(*args)
        prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
        nodebits.calibrate(prepared, *args)
        packed = nodebits.convert(prepared, leave_unseen="float")
        found = packed.predict(*args)
    error = float((found - expected).norm() / expected.norm())
    conv = packed.module.conv
    runs = [runs_of(m) for m in conv.modules() if isinstance(m, QuantLayer)]
    kinds = [kind for kind in dict.fromkeys(runs) if kind != "integer product"]
    return f"| `{name}` | {', '.join(kinds) or 'float'} | {100 * error:.2f} % |"


def table() -> str:
    """The table, in Markdown."""
    lines = ["| layer | runs | error at 8 bits |", "|---|---|---|"]
    for name in sorted({*CONVS, *BY_TYPE, *LEFT_OUT}):
        if name not in LEFT_OUT:
            lines.append(row(name))
        else:
            lines.append(f"| `{name}` | not tried: {LEFT_OUT[name]} | |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true")
    made = table()
    if parser.parse_args().write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{START}{made}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
