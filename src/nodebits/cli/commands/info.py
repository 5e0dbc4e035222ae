"""``nodebits info``: the installation, or what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options
from nodebits.cli.settings import SavedModel


def info(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]", exists=True, dir_okay=False, help="A model file to describe."
        ),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw how many nodes have which width.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set, or path, to run the model on: shows what its forward fuses and reads "
            "as sparse rows; with --plot, widths against in-degrees."
        ),
    ] = None,
    allow: options.Allow = None,
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print versions and instruction sets, or the sites, widths and bytes of a model file.

    [bold]Examples[/bold]

      nodebits info

      nodebits info runs/digits/model.safetensors --dataset digits

      nodebits info runs/cora/model.safetensors --plot --dataset Cora
    """
    options.check_dataset(dataset, data_root)
    if model is None:
        _installation(json)
        return
    allowed = None if allow is None else options.names(allow, "--allow")
    asked = SavedModel(
        model=model, dataset=dataset, allow=allowed, data_root=data_root, cache=cache
    )
    if plot:
        _plot(asked, json)
    else:
        _model_file(asked, json)


def _plot(asked: SavedModel, as_json: bool) -> None:
    """Widths of nodes: a bar per width, and the mean by in-degree where there is a graph."""
    from nodebits.cli.loading import open_model_and_data
    from nodebits.cli.output import new_table, print_json, print_table
    from nodebits.report.sites import open_model
    from nodebits.report.widths import describe_widths, width_histograms

    if asked.dataset is None:
        found = {
            "histograms": width_histograms(open_model(asked.model, asked.allow or ()).module),
            "by_degree": [],
        }
    else:
        packed, problem, _ = open_model_and_data(asked)
        found = describe_widths(packed.module, problem.example("test"))
    if as_json:
        print_json(found)
        return
    table = new_table(asked.model.name, "site", "width", "nodes", "", text_columns=1)
    for entry in found["histograms"]:
        most = max(entry["nodes"]) or 1
        for bits, count in enumerate(entry["nodes"], start=1):
            if count:
                table.add_row(entry["site"], str(bits), str(count), "█" * round(30 * count / most))
    note = "" if found["histograms"] else "no site gives nodes widths of their own"
    print_table(table, *([note] if note else []))
    if found["by_degree"]:
        trend = new_table("by in-degree", "site", "in-degree", "nodes", "mean width", "")
        for entry in found["by_degree"]:
            for row in entry["classes"]:
                mean = row["mean_width"]
                cells = [row["degrees"], str(row["nodes"]), f"{mean:.2f}", "█" * round(4 * mean)]
                trend.add_row(entry["site"], *cells)
        print_table(trend)


def _installation(as_json: bool) -> None:
    from nodebits import ops
    from nodebits.bench.environment import describe_environment
    from nodebits.cli.output import new_table, print_json, print_table

    environment, kernels = describe_environment(), ops.describe()
    devices, served = ops.backends.describe(), ops.backends.serves()
    if as_json:
        found = {**environment, "kernels": kernels, "devices": devices, "operators": served}
        print_json(found)
        return
    table = new_table("nodebits", "", "", text_columns=2)
    for name, version in environment["versions"].items():
        table.add_row(name, version)
    table.add_row("processor", f"{environment['processor']}, {environment['threads']} threads")
    table.add_row("instruction set in use", str(kernels["isa"]) + _forced(kernels))
    for level in kernels["available"]:
        table.add_row(f"  {level}", "available")
    for level, reason in kernels["unavailable"].items():
        table.add_row(f"  {level}", f"off: {reason}")
    for device, words in devices.items():
        table.add_row(f"on {device}", words)
        for how, names in _by_kind(served[device]).items():
            few = len(names) < len(served[device])
            table.add_row(f"  {how}", ", ".join(names) if few else "all operators")
    print_table(table)


def _by_kind(served: dict[str, str]) -> dict[str, list[str]]:
    """Names of operators by what serves them."""
    found: dict[str, list[str]] = {}
    for name, how in served.items():
        found.setdefault(how, []).append(name)
    return found


def _forced(kernels: dict[str, Any]) -> str:
    return " (forced by NODEBITS_ISA)" if kernels.get("forced") else ""


def _model_file(asked: SavedModel, as_json: bool) -> None:
    from nodebits.cli.loading import open_model_and_data
    from nodebits.cli.output import new_table, print_json, print_table
    from nodebits.report.running import describe_backend, describe_forward
    from nodebits.report.sites import describe_file
    from nodebits.report.words import human_bytes

    path = asked.model
    found = describe_file(path, asked.allow or ())
    found["backend"], found["forward"] = describe_backend(), None
    if asked.dataset is not None:
        packed, problem, name = open_model_and_data(asked)
        forward = describe_forward(packed, problem.example("test"))
        found["forward"] = {"dataset": name, **forward}
    if as_json:
        print_json(found)
        return
    table = new_table(
        path.name, "layer", "site", "bits", "scale per", "shape", "bytes", text_columns=2
    )
    for site in found["sites"]:
        shape = f"{site['num_rows']} x {site['num_cols']}" if "num_rows" in site else ""
        size = human_bytes(site["bytes"] + site["scale_bytes"]) if "bytes" in site else ""
        width = "float" if site["bits"] is None else str(site["bits"])
        table.add_row(site["layer"], site["site"], width, site["granularity"], shape, size)
    size, quantized = found["weight_bytes"], found["quantized_weight_bytes"]
    notes = [
        f"file {human_bytes(found['file_bytes'])}, weights {human_bytes(size)}, "
        f"of which {human_bytes(size - quantized)} biases and float layers"
    ]
    if found["model"] is not None:
        notes.append(", ".join(f"{key} {value}" for key, value in found["model"].items()))
    if found["metadata"]:
        notes.append(", ".join(f"{key} {value}" for key, value in found["metadata"].items()))
    notes += [_left_in_float(found), _backend(found["backend"]), _plan(found["plan"])]
    if found["forward"] is None:
        notes.append("which results are fused is known when the model runs: --dataset NAME runs it")
    print_table(table, *notes)
    if found["forward"] is not None:
        _print_forward(found["forward"])


def _left_in_float(found: dict[str, Any]) -> str:
    from nodebits.report.words import float_layer_list

    parts = [
        f"{site['layer']}.{site['site']}"
        for site in found["sites"]
        if site["granularity"] == "float"
    ]
    if found["float_layers"]:
        parts.append(float_layer_list(found["float_layers"]))
    return f"left in float: {', '.join(parts) or 'nothing'}"


def _plan(plan: dict[str, Any]) -> str:
    """How the forward runs: steps without Python, and where it leaves them."""
    if plan["reason"]:
        return f"no plan, the module runs by itself, since {plan['reason']}"
    names = list(dict.fromkeys(plan["python"]))
    leaves = f"; Python runs {', '.join(names)}" if names else ", none of which needs Python"
    whole = ", ".join(plan["of_all"])
    samples = f"; predict_nodes computes all rows of a sample, for {whole}" if whole else ""
    return f"a plan of {len(plan['steps'])} steps{leaves}{samples}"


def _backend(backend: dict[str, Any]) -> str:
    from nodebits.report.words import count_of

    who = "reference operators" if backend["operators"] == "reference" else "compiled kernels"
    level = f"{backend['isa']}{_forced(backend)}"
    return f"run by {who}, {level}, {count_of(backend['threads'], 'thread')}"


def _print_forward(forward: dict[str, Any]) -> None:
    """What became of every layer's result, and how the features are read."""
    from nodebits.cli.output import new_table, print_table
    from nodebits.report.words import human_bytes

    title = f"results in a forward on {forward['dataset']}"
    table = new_table(title, "of", "then", "go to", "shape", "as float", text_columns=3)
    for chain in forward["chains"]:
        target = ", ".join(chain["readers"]) if chain["fused"] else f"({chain['float_reason']})"
        shape = f"{chain['num_rows']} x {chain['num_cols']}"
        size = "fused" if chain["fused"] else human_bytes(chain["float_bytes"])
        then = ", ".join(filter(None, (chain["norm"], chain["activation"])))
        table.add_row(" + ".join(chain["layers"]), then, target, shape, size)
    print_table(table)
    table = new_table("features", "read by", "as", "not zero", "dense", "sparse", text_columns=2)
    notes = []
    for entry in forward["raw_inputs"]:
        name, sparse = f"{entry['layer']}.{entry['site']}", entry["sparse_bytes"]
        table.add_row(
            name,
            "sparse rows" if entry["sparse"] else "dense rows",
            f"{100 * entry['share_not_zero']:.1f} %",
            human_bytes(entry["dense_bytes"]),
            "" if sparse is None else human_bytes(sparse),
        )
        notes.append(f"{name}: {entry['reason']}")
    print_table(table, *notes)
