"""``nodebits predict``: class indices of every node or graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodebits.cli import options


def predict(
    model: options.ModelFile,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.npy", help="NumPy file of int64 class indices.")
    ],
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Packed features of 'nodebits pack', one graph.",
        ),
    ] = None,
    dataset: options.Dataset = "digits",
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    threads: options.Threads = None,
    config: options.ConfigFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the predicted class of every node (or graph) of a data set.

    [bold]Example[/bold]

      nodebits predict runs/cora/model.safetensors --dataset Cora --out pred.npy
    """
    import io

    import numpy as np

    from nodebits.cli.loading import one_graph, open_model_and_data
    from nodebits.cli.output import print_json
    from nodebits.core.files import ensure_writable_folder, write_atomically
    from nodebits.train import predict_logits

    ensure_writable_folder(out.parent)
    packed, problem, name = open_model_and_data(model, dataset, data_root, cache, None, threads)
    if features is None:
        logits = predict_logits(packed, problem)
    else:
        edge_index = one_graph(problem, name).edge_index
        logits = packed.predict(packed.load_input(features), edge_index)
    classes = logits.argmax(dim=-1).numpy().astype(np.int64)
    buffer = io.BytesIO()
    np.save(buffer, classes, allow_pickle=False)
    write_atomically(out, buffer.getvalue())
    if json:
        print_json({"dataset": name, "out": str(out), "count": int(classes.size)})
    else:
        typer.echo(f"{classes.size} class indices for {name} written to {out}")
