"""``nodebits pack``: features in a file, as a model reads them or without a model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import Written
from nodebits.core.options import options_of
from nodebits.store.packing import Packing

_Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="model.safetensors of quantize, or a matrix: .npy, .npz, .pt, .parquet.",
    ),
]
_Out = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="File of packed features to write.")
]
_MATRIX = [option for option in options_of(Packing) if option.name != "seed"]


def _pack(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Write features packed: those of a data set for a model, or a matrix of your own.

    A matrix may be larger than memory: it is read twice, piece by piece, and a call that was
    stopped goes on. Python reads the file with nodebits.PackedFeatures.

    [bold]Examples[/bold]

      nodebits pack runs/cora/model.safetensors --out x.safetensors
      nodebits predict runs/cora/model.safetensors --features x.safetensors --out pred.csv

      nodebits pack features.npy --bits 4 --granularity column --out features.safetensors
    """
    packing = {option.name: values.pop(option.name) for option in _MATRIX}
    run = _pack_matrix if _is_matrix(values["model"]) else _pack_for_model
    return run(json, values, packing)


def _is_matrix(path: Path) -> bool:
    """Whether a path names a matrix; told by its suffix, before torch is imported."""
    return path.suffix in (".npy", ".npz", ".pt", ".pth", ".parquet")


def _pack_matrix(json: bool, values: dict[str, Any], packing: dict[str, Any]) -> int:
    needless = [
        name for name in ("dataset", "data", "split", "use_node_attr") if values[name] is not None
    ]
    if needless:
        raise typer.BadParameter(
            f"{values['model']} is a matrix of its own: leave out --{needless[0].replace('_', '-')}"
        )
    if not values["model"].exists():
        raise typer.BadParameter(f"there is no file {values['model']}")
    from nodebits.cli.output import print_json
    from nodebits.core.files import refuse_input
    from nodebits.jobs.threads import threads_set
    from nodebits.store.write import pack_features

    source, out = values["model"], values["out"]
    refuse_input(out, source)
    with threads_set(values["threads"]):
        found = pack_features(source, out, Packing(**packing), force=values["force"], progress=None)
    about = {field.name: getattr(found, field.name) for field in fields(found)}
    if json:
        print_json({**about, "path": str(found.path), "shape": list(found.shape)})
        return 0
    rows, columns = found.shape
    typer.echo(
        f"{rows} rows of {columns} features in {found.bytes} bytes ({found.float_bytes} as "
        f"float32) written to {found.path}"
    )
    if found.resumed:
        typer.echo(f"{found.resumed} rows were there from an earlier call")
    if found.clipped:
        typer.echo(f"{found.clipped} values lay beyond the ranges of the sample and were clipped")
    return 0


def _pack_for_model(json: bool, values: dict[str, Any], packing: dict[str, Any]) -> int:
    defaults = {option.name: option.default for option in _MATRIX}
    asked = [name for name, value in packing.items() if value != defaults[name]]
    if asked:
        raise typer.BadParameter(
            f"--{asked[0].replace('_', '-')} is for a matrix; a model's features have its widths "
            "and scales"
        )
    options.take_data(values, None)
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.loading import one_graph, open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json
    from nodebits.core.files import claimed

    given = Written(**{**values, "split": options.split_of(values["split"])})
    with claimed({"--out": given.out}, [given.model], given.force, "--force"):
        packed, problem, name = open_model_and_data(given)
        inputs = one_graph(problem, name)
        features = packed.pack_input(inputs.x, edge_index=inputs.edge_index)
        packed.save_input(features, given.out)
    size, floats = given.out.stat().st_size, 4 * inputs.x.numel()
    if json:
        found = {"dataset": name, "trained_on": trained_on(packed, name) or name}
        print_json({**found, "out": str(given.out), "bytes": size, "float_bytes": floats})
    else:
        title = title_of(packed, name)
        typer.echo(
            f"features of {title} in {size} bytes ({floats} as float32) written to {given.out}"
        )
    return 0


pack = command(
    _pack,
    Written,
    [*_MATRIX, *options.DATA],
    spelled={**options.OF_SAVED_MODEL, "model": _Source, "out": _Out},
)
