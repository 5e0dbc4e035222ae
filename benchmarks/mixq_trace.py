"""Why MixQ's widths move or stay: what the task and what the price pull at, site by site.

While widths are open, the gradient of a site's logits has two parts, the loss's and the price's.
The *lead* is the logit of the widest candidate less that of the narrowest. Printed are its start
and end, by how much a step of plain gradient descent at rate 1 would change it for the loss and for
the price (mean over the steps), and the width that is chosen. Relaxed training starts from a float
model's weights, as the preset does, or from fresh ones, as the released code does.

    python benchmarks/mixq_trace.py --data-root DATA --write
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.data import load_dataset
from nodebits.jobs.experiment import Experiment, make_spec
from nodebits.methods.mixq import MixQConfig, WidthChoice
from nodebits.tasks import NODE
from nodebits.train import find_recipe

PAGE = Path(__file__).resolve().parent / "results" / "mixq_trace.md"
PRICES = (-1e-8, 0.1, 1.0)
# Of the hundred epochs of the preset those in which widths are open, and one to choose them in.
RELAXED = 50
STARTS = {"float model": True, "fresh": False}


class Pull:
    """What moved the lead of one site.

    Attributes:
        loss: By step, the change of the lead that the loss asks for.
        price: Likewise the price.
        leads: The lead before every step, and at the end.
        bits: The likeliest width at the end.
        elements: Values of the tensor.
    """

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.price: list[float] = []
        self.leads: list[float] = []
        self.bits = 0
        self.elements = 0


@dataclass(frozen=True)
class Traced(MixQConfig):
    """MixQ that keeps the gradients of its logits in ``pulls``, by site."""

    @property
    def pulls(self) -> dict[str, Pull]:
        """By path of the site."""
        found: dict[str, Pull] = self.__dict__.setdefault("_pulls", defaultdict(Pull))
        return found

    def penalty(self, model: nn.Module) -> Tensor:
        price = super().penalty(model)
        for name, choice in _open(model):
            if choice.elements:
                (part,) = torch.autograd.grad(price, choice.logits, retain_graph=True)
                pull = self.pulls[name]
                pull.elements = choice.elements
                pull.price.append(_towards_wide(part))
                pull.leads.append(_lead(choice))
        return price

    def advance(self, model: nn.Module, progress: float) -> None:
        for name, choice in _open(model):
            if choice.logits.grad is not None and name in self.pulls:
                pull = self.pulls[name]
                pull.loss.append(_towards_wide(choice.logits.grad) - pull.price[-1])
        if progress >= (self.settle or 0.0):
            for name, choice in _open(model):
                pull = self.pulls[name]
                pull.leads.append(_lead(choice))
                pull.bits = choice.bits
        super().advance(model, progress)


def _open(model: nn.Module) -> list[tuple[str, WidthChoice]]:
    found = model.named_modules()
    pairs = [(name, m) for name, m in found if isinstance(m, WidthChoice) and m.open]
    return [(name.removesuffix(".width"), choice) for name, choice in pairs]


def _lead(choice: WidthChoice) -> float:
    logits = choice.logits.detach()
    return float(logits[-1] - logits[0])


def _towards_wide(gradient: Tensor) -> float:
    return float(gradient[0] - gradient[-1])


def trace(experiment: Any, recipe: Any, price: float, seed: int, warm: bool) -> dict[str, Pull]:
    """The pulls of one relaxed training of the published preset."""
    epochs = RELAXED + 2
    settle = (RELAXED - 0.5) / epochs
    method = Traced(bits=8, preset="published", bit_lambda=price, settle=settle)
    fit = method.published_fit(recipe.quantized_fit, NODE).replace(seed=seed, epochs=epochs)
    teacher = experiment.train_float(recipe.float_fit.replace(seed=seed))
    experiment.quantize(teacher, method, fit, warm_start=warm)
    return method.pulls


def render(found: dict[tuple[str, float], list[dict[str, Pull]]]) -> str:
    """The tables: all sites of the first seed, and chosen widths of all seeds."""
    lines = [HEADER, "| start | lambda | mean width by seed | mean |", "|---|---|---|---|"]
    for (start, price), runs in found.items():
        means = [statistics.mean(pull.bits for pull in run.values()) for run in runs]
        shown = ", ".join(f"{mean:.2f}" for mean in means)
        lines.append(f"| {start} | {price:g} | {shown} | {statistics.mean(means):.2f} |")
    lines += ["", "## Sites, seed 0", ""]
    lines += [
        "| start | lambda | site | values | loss | price | lead, from | to | width |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (start, price), runs in found.items():
        for name, pull in runs[0].items():
            loss, cost = statistics.mean(pull.loss), statistics.mean(pull.price)
            ends = f"{pull.leads[0]:.3f} | {pull.leads[-1]:+.3f}"
            numbers = f"{pull.elements:,} | {loss:+.1e} | {cost:+.1e} | {ends} | {pull.bits}"
            lines.append(f"| {start} | {price:g} | {name} | {numbers} |")
    return "\n".join(lines) + "\n"


HEADER = """# What pulls at MixQ's widths: Cora, GCN of two layers of 128, published preset

The first fifty epochs, in which widths are open, by `python benchmarks/mixq_trace.py`.
*Loss* and *price* are what their gradients ask of the lead of 8 bits over 2, mean over the steps.
Above zero is towards 8.

## Widths that are chosen
"""


def main() -> None:
    """Runs all starts, prices and seeds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset("Cora", options.data_root)
    recipe = find_recipe("gcn", "node", "Cora")
    spec = make_spec(dataset, "gcn", recipe, hidden=128)
    experiment = Experiment(dataset, spec, None, recipe.quantized_dropout)
    found: dict[tuple[str, float], list[dict[str, Pull]]] = defaultdict(list)
    for start, warm in STARTS.items():
        for price in PRICES:
            for seed in range(options.seeds):
                run = trace(experiment, recipe, price, seed, warm)
                found[start, price].append(run)
                print(start, price, seed, {n: p.bits for n, p in run.items()}, flush=True)
    text = render(found)
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
