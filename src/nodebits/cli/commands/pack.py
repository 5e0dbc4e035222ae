"""``nodebits pack``: the features of a data set as a model reads them, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import Written

_Out = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="File of packed features to write.")
]


def _pack(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Write the features of a data set of one graph, packed for a model.

    [bold]Example[/bold]

      nodebits pack runs/cora/model.safetensors --out x.safetensors
      nodebits predict runs/cora/model.safetensors --features x.safetensors --out pred.csv
    """
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.loading import one_graph, open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json
    from nodebits.core.files import claimed

    asked = Written(**{**values, "split": options.split_of(values["split"])})
    with claimed({"--out": asked.out}, [asked.model], asked.force, "--force"):
        packed, problem, name = open_model_and_data(asked)
        inputs = one_graph(problem, name)
        features = packed.pack_input(inputs.x, edge_index=inputs.edge_index)
        packed.save_input(features, asked.out)
    size, floats = asked.out.stat().st_size, 4 * inputs.x.numel()
    if json:
        found = {"dataset": name, "trained_on": trained_on(packed, name) or name}
        print_json({**found, "out": str(asked.out), "bytes": size, "float_bytes": floats})
    else:
        title = title_of(packed, name)
        typer.echo(
            f"features of {title} in {size} bytes ({floats} as float32) written to {asked.out}"
        )
    return 0


pack = command(_pack, Written, spelled={**options.OF_SAVED_MODEL, "out": _Out})
