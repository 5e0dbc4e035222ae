"""``nodebits pack``: the features of a data set as a model reads them, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodebits.cli import options


def pack(
    model: options.ModelFile,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="File of packed features to write.")
    ],
    dataset: options.OwnDataset = None,
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    split: options.Split = None,
    use_node_attr: options.UseNodeAttr = None,
    threads: options.Threads = None,
    force: options.Force = False,
    config: options.ConfigFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the features of a data set of one graph, packed for a model.

    [bold]Example[/bold]

      nodebits pack runs/cora/model.safetensors --out x.safetensors
      nodebits predict runs/cora/model.safetensors --features x.safetensors --out pred.csv
    """
    options.check_dataset(dataset, data_root)
    from nodebits.cli.loading import one_graph, open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json
    from nodebits.core.files import (
        ensure_writable_folder,
        refuse_existing,
        refuse_input,
        writing,
    )

    ensure_writable_folder(out.parent)
    with writing(out):
        refuse_existing([out], force, "--force")
        refuse_input(out, model)
        packed, problem, name = open_model_and_data(
            model, dataset, data_root, cache, None, threads, options.split_of(split), use_node_attr
        )
        inputs = one_graph(problem, name)
        features = packed.pack_input(inputs.x, edge_index=inputs.edge_index)
        packed.save_input(features, out)
    size, floats = out.stat().st_size, 4 * inputs.x.numel()
    if json:
        found = {"dataset": name, "trained_on": trained_on(packed, name) or name}
        print_json({**found, "out": str(out), "bytes": size, "float_bytes": floats})
    else:
        title = title_of(packed, name)
        typer.echo(f"features of {title} in {size} bytes ({floats} as float32) written to {out}")
