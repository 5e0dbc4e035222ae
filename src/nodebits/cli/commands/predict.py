"""``nodebits predict``: class indices of every node or graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodebits.cli import options

if TYPE_CHECKING:
    from torch import Tensor


def predict(
    model: options.ModelFile,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help=".npy: int64 class indices; .csv: number, class and logits of every row.",
        ),
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
    """Write the predicted class of every node (or graph) of a data set.

    A .csv file has a header and a line per row: node (or graph), class, logit_0, logit_1, ...
    The softmax of the logits are probabilities.

    [bold]Example[/bold]

      nodebits predict runs/cora/model.safetensors --dataset Cora --out pred.npy
    """
    if out.suffix not in _FORMATS:
        raise typer.BadParameter(f"--out is {str(out)!r}: its name must end in .npy or .csv")
    options.check_dataset(dataset, data_root)
    from nodebits.cli.loading import one_graph, open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json
    from nodebits.core.files import (
        ensure_writable_folder,
        refuse_existing,
        write_atomically,
        writing,
    )
    from nodebits.train import predict_logits
    from nodebits.train.problem import NodeProblem

    ensure_writable_folder(out.parent)
    with writing(out):
        refuse_existing([out], force, "--force")
        packed, problem, name = open_model_and_data(
            model, dataset, data_root, cache, None, threads, options.split_of(split), use_node_attr
        )
        if features is None:
            logits = predict_logits(packed, problem)
        else:
            edge_index = one_graph(problem, name).edge_index
            logits = packed.predict(packed.load_input(features), edge_index)
        rows = "node" if isinstance(problem, NodeProblem) else "graph"
        write_atomically(out, _FORMATS[out.suffix](logits, rows))
    count = int(logits.size(0))
    if json:
        found = {"dataset": name, "trained_on": trained_on(packed, name) or name}
        print_json({**found, "out": str(out), "count": count})
    else:
        typer.echo(f"{count} class indices for {title_of(packed, name)} written to {out}")


def _as_npy(logits: Tensor, rows: str) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, logits.argmax(dim=-1).numpy().astype(np.int64), allow_pickle=False)
    return buffer.getvalue()


def _as_csv(logits: Tensor, rows: str) -> bytes:
    """Logits in the fewest digits that read back as the same float32."""
    names = ",".join(f"logit_{column}" for column in range(logits.size(1)))
    classes = logits.argmax(dim=-1).tolist()
    lines = [
        f"{number},{label},{','.join(map(str, values))}"
        for number, (label, values) in enumerate(zip(classes, logits.numpy(), strict=True))
    ]
    return "\n".join([f"{rows},class,{names}", *lines, ""]).encode()


_FORMATS: dict[str, Callable[[Tensor, str], bytes]] = {".npy": _as_npy, ".csv": _as_csv}
