"""Over-smoothing and rounding error layer by layer, by depth and width: figures and a plot.

python benchmarks/deep_smoothness.py --data-root DATA
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deep import FAMILIES
from nodebits.bench.environment import describe_environment
from nodebits.data import load_dataset
from nodebits.jobs.experiment import FLOAT_SITES, Experiment, make_spec
from nodebits.methods import make_config, prepare
from nodebits.train import find_recipe
from smoothness import appnp_errors, layer_states, smoothness

RESULTS = Path(__file__).resolve().parent / "results"


def study(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains every family at every width and measures the states of one forward."""
    dataset = load_dataset(options.dataset, options.data_root, cache=options.cache)
    rows: list[dict[str, Any]] = []
    for name in options.names:
        model_name, axis, fields = FAMILIES[name]
        recipe = find_recipe(model_name, "node", dataset.name)
        fields = {**fields, axis: options.depth}
        layers = fields.pop("num_layers", None)
        spec = make_spec(dataset, model_name, recipe, layers=layers, **fields)
        experiment = Experiment(dataset, spec)
        fit = recipe.quantized_fit.replace(epochs=options.epochs, progress=False)
        teacher = experiment.train_float(recipe.float_fit.replace(epochs=150, progress=False))
        inputs = experiment.problem.example()
        for bits in options.bits:
            if bits == 32:
                trained, model = teacher, prepare(teacher.model, FLOAT_SITES).eval()
            else:
                trained = experiment.quantize(teacher, make_config("smp", bits), fit, True)
                model = trained.model.eval()
            with torch.no_grad(), layer_states(model) as states:
                inputs.call(model)
            row = {"name": name, "depth": options.depth, "bits": bits, "seed": 0}
            row["test"] = trained.test.accuracy
            row["layers"] = [asdict(smoothness(s, inputs.edge_index)) for s in states]
            if model_name == "appnp" and bits != 32:
                layer = model.propagation
                with torch.no_grad():
                    h = inputs.x
                    for number, lin in enumerate(model.lins):
                        h = lin(h if number == 0 else torch.relu(h))
                sites = [layer.site("message", k) for k in range(layer.steps)]
                steps = [lambda v, s=s: s(v).dequantize() for s in sites]
                errors = appnp_errors(h, inputs.edge_index, layer.alpha, steps)
                row["norm"] = float(h.norm())
                row["errors"] = [asdict(e) for e in errors]
            rows.append(row)
            last = row["layers"][-1]
            print(
                f"{name}, depth {options.depth}, {bits} bit: test {row['test']:.4f}, after the "
                f"last layer Dirichlet {last['dirichlet']:.4f}, similarity "
                f"{last['similarity']:.4f}, distinct {last['distinct']:.4f}",
                flush=True,
            )
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Dirichlet energy, similarity, and rounding error with its bound, against the layer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    styles = {32: "-", 8: "-.", 4: "--", 2: ":"}
    names = list(dict.fromkeys(row["name"] for row in rows))
    for row in rows:
        color = f"C{names.index(row['name'])}"
        label = f"{row['name']}, {'float' if row['bits'] == 32 else row['bits']}"
        layers = range(1, len(row["layers"]) + 1)
        for axis, field in zip(axes, ("dirichlet", "similarity"), strict=False):
            values = [layer[field] for layer in row["layers"]]
            axis.plot(layers, values, styles[row["bits"]], color=color, label=label)
        if "errors" in row:
            norm = row["norm"]
            shade = {8: "C2", 4: "C3", 2: "C4"}[row["bits"]]
            error = [e["error"] / norm for e in row["errors"]]
            bound = [e["bound"] / norm for e in row["errors"]]
            axes[2].plot(layers, error, color=shade, label=f"{row['bits']} bits")
            axes[2].plot(layers, bound, ":", color=shade, label=f"bound, {row['bits']} bits")
    axes[0].set(title="Dirichlet energy / |x|^2", xlabel="layer", yscale="log")
    axes[1].set(title="Mean cosine of neighbours", xlabel="layer")
    axes[2].set(title="APPNP: error / |H|", xlabel="step", yscale="log")
    axes[0].legend(fontsize=6)
    axes[2].legend(fontsize=6)
    figure.savefig(path)


def main() -> None:
    """Runs the study and draws it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="Cora")
    parser.add_argument("--names", nargs="+", default=["APPNP", "GCN"])
    parser.add_argument("--bits", nargs="+", type=int, default=[32, 4, 2])
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--data-root")
    parser.add_argument("--cache")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = study(options)
    stem = f"deep_smoothness-{options.dataset}-{options.depth}"
    report = {"rows": rows, **describe_environment()}
    (options.results / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(rows, options.results / f"{stem}.svg")


if __name__ == "__main__":
    main()
