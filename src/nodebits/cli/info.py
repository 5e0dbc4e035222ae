"""``nodebits info``: the installation, or what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options


def info(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]", exists=True, dir_okay=False, help="A model file to describe."
        ),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print versions and instruction sets, or the sites, widths and bytes of a model file.

    [bold]Examples[/bold]

      nodebits info

      nodebits info runs/digits/model.safetensors
    """
    if model is None:
        _installation(json)
    else:
        _model_file(model, json)


def _installation(as_json: bool) -> None:
    from nodebits import ops
    from nodebits.bench.environment import describe_environment
    from nodebits.cli.output import new_table, print_json, print_table

    environment, kernels = describe_environment(), ops.describe()
    if as_json:
        print_json({**environment, "kernels": kernels})
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
    print_table(table)


def _forced(kernels: dict[str, Any]) -> str:
    return " (forced by NODEBITS_ISA)" if kernels.get("forced") else ""


def _model_file(path: Path, as_json: bool) -> None:
    from nodebits.bench.html import human_bytes
    from nodebits.bench.sites import describe_file
    from nodebits.cli.output import new_table, print_json, print_table

    found = describe_file(path)
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
    notes = [
        f"file {human_bytes(found['file_bytes'])}, weights {human_bytes(found['weight_bytes'])}"
    ]
    if found["model"] is not None:
        notes.append(", ".join(f"{key} {value}" for key, value in found["model"].items()))
    if found["metadata"]:
        notes.append(", ".join(f"{key} {value}" for key, value in found["metadata"].items()))
    print_table(table, *notes)
