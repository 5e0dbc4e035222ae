"""A packed model on a bit-serial accelerator: cycles and memory traffic, beside 4 and 8 bits.

python benchmarks/simulate.py runs/cora/model.safetensors --dataset Cora --data-root DATA
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from accelerator import DEFAULTS, phases_of, read_accelerator, simulate
from nodebits.core.errors import NodebitsError
from nodebits.data import load_dataset
from nodebits.report.sites import open_model
from nodebits.report.words import float_layer_list
from nodebits.train import as_problem


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="file that nodebits quantize wrote")
    parser.add_argument("--dataset", help="default: the one that the model was trained on")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--parameters", type=Path, default=DEFAULTS, help="TOML file")
    parser.add_argument(
        "--raw-input",
        choices=("own", "equal", "excluded"),
        help="raw features: as stored, at one bit in all models, or left out",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        found = run(options)
    except NodebitsError as error:
        sys.exit(f"simulate: {error}")
    print(json.dumps(found, indent=2) if options.json else table_of(found))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the model once on its data and simulates that forward.

    Raises:
        NodebitsError: A file cannot be read, or model and data do not fit.
    """
    machine = read_accelerator(options.parameters)
    if options.raw_input is not None:
        machine = dataclasses.replace(machine, raw_input=options.raw_input)
    packed = open_model(options.model)
    dataset = load_dataset(
        options.dataset or packed.metadata["dataset"],
        options.data_root,
        cache=options.cache,
        normalize_features=bool(packed.metadata.get("normalize_features", True)),
    )
    example = as_problem(dataset).example("test")
    account = example.call(packed.account)
    loops = packed.spec is not None and packed.spec.name in ("gcn", "gat")
    edges = example.edge_index.size(1) + (example.x.size(0) if loops else 0)
    sites = [dataclasses.asdict(site) for site in account.sites]
    weights = [dataclasses.asdict(weight) for weight in account.weights]
    found = simulate(phases_of(sites, weights, edges), machine)
    return found | {
        "dataset": dataset.name,
        "average_bits": account.average_bits,
        "float_layers": account.float_layers,
    }


def table_of(found: dict[str, Any]) -> str:
    """The phases and their sums as a Markdown table."""
    forms = ("learned", "int4", "int8")
    lines = [
        f"accelerator, {found['dataset']}",
        "",
        "| site | kind | cycles | 4 bits | 8 bits | bytes |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for phase in found["phases"]:
        mine = phase["learned"]
        cells = [f"{phase[form]['cycles']:,.0f}" for form in forms]
        lines.append(
            f"| {mine['name']} | {mine['kind']} | {' | '.join(cells)} | {mine['bytes']:,} |"
        )
    total = [f"{found['cycles'][form]:,.0f}" for form in forms]
    lines.append(f"| all | | {' | '.join(total)} | {found['bytes']['learned']:,} |")
    speedup = found["speedup"]
    lines += [
        "",
        f"{speedup['int4']:.2f}x the speed of 4 bits, {speedup['int8']:.2f}x that of 8 bits",
        f"{found['average_bits']:.2f} bits on average",
    ]
    if found["float_layers"]:
        lines.append(f"not simulated: {float_layer_list(found['float_layers'])}, left in float")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
