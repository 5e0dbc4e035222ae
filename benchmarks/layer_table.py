"""What every convolution of PyG runs on, and its error at 8 bits: the table of docs/layers.md.

    python benchmarks/layer_table.py [--write]

Random features on a random graph of the size of Cora (2,708 nodes, 10,556 edges); the layer alone,
calibrated at 8 bits, trained for 50 steps at 4. ``--write`` puts the table into the page.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import nodebits
from convs import BY_TYPE, CONVS, LEFT_OUT, C, by_type, extras, run
from nodebits.nn.layer import QuantLayer
from nodebits.runtime.packed import PackedModel
from nodebits.runtime.sites import runs_of

NODES, EDGES = 2708, 10_556
STEPS, RATE = 50, 1e-3
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


def case(name: str, columns: int = C) -> tuple[Alone, tuple[Any, ...]]:
    """A layer and what its forward takes."""
    torch.manual_seed(0)
    if name in BY_TYPE:
        return Alone(BY_TYPE[name](columns)).eval(), by_type(NODES, EDGES, columns)
    make, names = CONVS[name]
    model = Alone(make(columns)).eval()
    x, edges = torch.randn(NODES, columns), torch.randint(0, NODES, (2, EDGES))
    return model, (x, edges, extras(names, edges, NODES, columns))


def packed(model: Alone, args: tuple[Any, ...], bits: int, steps: int) -> tuple[PackedModel, float]:
    """The layer at a width, and its error against float.

    Args:
        model: The float layer.
        args: What it takes.
        bits: Of every site.
        steps: Of training towards the float layer's result; 0 calibrates only.
    """
    with torch.no_grad():
        expected = model(*args)
    config = nodebits.UniformConfig(
        bits=bits, sum_bits=bits, head_bits=bits, mode="qat" if steps else "ptq"
    )
    prepared = nodebits.prepare(model, config)
    nodebits.calibrate(prepared, *args)
    optimizer = torch.optim.Adam(list(prepared.parameters()) or [torch.zeros(1)], RATE)
    prepared.train()
    for module in prepared.modules():  # the result to reach is that of norms that evaluate
        module.training = module.training and not isinstance(module, _BatchNorm)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (prepared(*args) - expected).square().mean()
        if loss.requires_grad:  # some layers have nothing to train
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        made = nodebits.convert(prepared.eval(), leave_unseen="float")
        error = float((made.predict(*args) - expected).norm() / expected.norm())
    return made, error


def row(name: str) -> str:
    """One line of the table."""
    model, args = case(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, eight = packed(model, args, 8, 0)
        _, four = packed(model, args, 4, STEPS)
    runs = [runs_of(m) for m in made.module.modules() if isinstance(m, QuantLayer)]
    kinds = [kind for kind in dict.fromkeys(runs) if kind != "integer product"]
    return (
        f"| `{name}` | {', '.join(kinds) or 'float'} | {100 * eight:.2f} % | {100 * four:.1f} % |"
    )


def table() -> str:
    """The table, in Markdown."""
    lines = ["| layer | runs | error at 8 bits | at 4 bits |", "|---|---|---|---|"]
    for name in sorted({*CONVS, *BY_TYPE, *LEFT_OUT}):
        if name not in LEFT_OUT:
            lines.append(row(name))
        else:
            lines.append(f"| `{name}` | not tried: {LEFT_OUT[name]} | | |")
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
