"""``nodebits simulate``: a model on a bit-serial accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options


def simulate(
    model: options.ModelFile,
    dataset: options.OwnDataset = None,
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    split: options.Split = None,
    use_node_attr: options.UseNodeAttr = None,
    parameters: Annotated[
        Path | None,
        typer.Option(
            "--parameters", metavar="FILE", help="TOML file of the accelerator's parameters."
        ),
    ] = None,
    raw_input: Annotated[
        str | None,
        typer.Option(help="Raw features: own (as stored), equal (one bit in all) or excluded."),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Simulate cycles and memory traffic of a model, beside the same model at 4 and 8 bits.

    [bold]Examples[/bold]

      nodebits simulate runs/cora/model.safetensors --dataset Cora --data-root DATA

      nodebits simulate model.safetensors --parameters accelerator.toml --json
    """
    import dataclasses

    options.check_dataset(dataset, data_root)
    from nodebits.bench.accelerator import DEFAULTS, phases_of, read_accelerator
    from nodebits.bench.accelerator import simulate as run
    from nodebits.cli.loading import open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json

    machine = read_accelerator(parameters or DEFAULTS)
    if raw_input is not None:
        machine = dataclasses.replace(machine, raw_input=raw_input)
    packed, problem, name = open_model_and_data(
        model, dataset, data_root, cache, None, None, options.split_of(split), use_node_attr
    )
    example = problem.example("test")
    account = example.call(packed.account)
    edges = example.edge_index.size(1) + (
        example.x.size(0) if packed.spec is not None and packed.spec.name in ("gcn", "gat") else 0
    )
    sites = [dataclasses.asdict(site) for site in account.sites]
    weights = [dataclasses.asdict(weight) for weight in account.weights]
    found = run(phases_of(sites, weights, edges), machine)
    found["average_bits"] = account.average_bits
    found["float_layers"] = account.float_layers
    found |= {"dataset": name, "trained_on": trained_on(packed, name) or name}
    if json:
        print_json(found)
    else:
        _print(found, title_of(packed, name))


def _print(found: dict[str, Any], title: str) -> None:
    from nodebits.bench.html import float_layer_list
    from nodebits.cli.output import new_table, print_table

    table = new_table(
        f"accelerator, {title}",
        "site",
        "kind",
        "cycles",
        "4 bits",
        "8 bits",
        "bytes",
        text_columns=2,
    )
    for phase in found["phases"]:
        mine = phase["learned"]
        cells = [f"{phase[name]['cycles']:,.0f}" for name in ("learned", "int4", "int8")]
        table.add_row(mine["name"], mine["kind"], *cells, f"{mine['bytes']:,}")
    total = [f"{found['cycles'][name]:,.0f}" for name in ("learned", "int4", "int8")]
    table.add_row("all", "", *total, f"{found['bytes']['learned']:,}")
    speedup, floats = found["speedup"], found["float_layers"]
    print_table(
        table,
        f"{speedup['int4']:.2f}x the speed of 4 bits, {speedup['int8']:.2f}x that of 8 bits",
        f"{found['average_bits']:.2f} bits on average",
        f"not simulated: {float_layer_list(floats)}, left in float" if floats else "",
    )
