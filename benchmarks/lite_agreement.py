"""How far nodebits.lite is from nodebits where torch rounds a step in its own way.

    python benchmarks/lite_agreement.py [--nodes 2000] [--seeds 3] [--bits 4]

A row of Markdown for every model of the registry that has such a step; all others are equal, which
the last line counts. Models are calibrated on random features and edges. What may differ is the
rounding of a value that torch's own kernels compute; where the next layer rounds it to a code, a
value beside the middle of two codes becomes the other one.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import nodebits
from nodebits import lite
from nodebits.models import ModelSpec, build_model, model_names

FEATURES, HIDDEN, CLASSES, HEADS = 16, 32, 5, 4


class Agreement(NamedTuple):
    """Of the results of one model.

    Attributes:
        steps: What torch rounds in its own way, each once.
        equal: Share of the values that are the same.
        largest: Largest difference, in shares of the largest value.
    """

    steps: tuple[str, ...]
    equal: float
    largest: float


def data(nodes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features and edges."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, nodes, (2, 8 * nodes), generator=generator)
    return torch.randn(nodes, FEATURES, generator=generator), edges


def agreement(name: str, bits: int, nodes: int, seed: int) -> Agreement | str:
    """Of one model after calibration, or why lite does not run it."""
    torch.manual_seed(seed)
    x, edges = data(nodes, seed)
    model = build_model(ModelSpec(name, FEATURES, HIDDEN, CLASSES, heads=HEADS))
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=bits, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    packed = nodebits.convert(prepared)
    plan = packed.plan(x, edges)
    if isinstance(plan, str):
        return plan
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        packed.save(path)
        try:
            found = torch.from_numpy(lite.load(path).predict(x.numpy(), edges.numpy()))
        except nodebits.core.errors.PlanRefused as error:
            return str(error)
    expected = packed.predict(x, edges)
    difference = (found - expected).abs()
    largest = float(difference.max() / expected.abs().max())
    same = float((difference == 0).float().mean())
    return Agreement(tuple(dict.fromkeys(plan.leaves)), same, largest)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bits", type=int, default=4)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| model | steps | equal values | largest difference |\n|---|---|---|---|")
    equal = 0
    for name in model_names():
        made = [agreement(name, chosen.bits, chosen.nodes, seed) for seed in range(chosen.seeds)]
        refused = [one for one in made if isinstance(one, str)]
        if refused:
            print(f"| {name} | {refused[0]} | | |")
            continue
        some = [one for one in made if isinstance(one, Agreement)]
        if not any(one.steps for one in some):
            equal += all(one.largest == 0.0 for one in some)
            continue
        steps = ", ".join(dict.fromkeys(step for one in some for step in one.steps))
        share, largest = min(one.equal for one in some), max(one.largest for one in some)
        print(f"| {name} | {steps} | {100 * share:.2f} % | {largest:.1e} |")
    print(f"\n{equal} other models: all values are the same.")


if __name__ == "__main__":
    main()
