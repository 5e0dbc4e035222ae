"""``nodebits check``: what would become of a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options


def check(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODULE:NAME",
            help="A model of your own: a class or function that makes it without arguments, or "
            "the model itself. The module is imported.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            exists=True,
            dir_okay=False,
            help="A PyG Data object written by torch.save; nothing in it is run.",
        ),
    ],
    limit: Annotated[
        float,
        typer.Option(min=1e-6, help="Relative error of a layer's result that counts as safe."),
    ] = 0.05,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what of a model will run on integers, on tiles of decoded rows, or in float.

    [bold]Example[/bold]

      nodebits check --model my_pkg.models:Net --data graph.pt
    """
    from dataclasses import asdict

    from nodebits.cli.output import print_json
    from nodebits.runtime.check import check as run

    found = run(_made(model), _read(data), limit=limit)
    if json:
        # Widths are keys of objects here: text.
        whole = asdict(found)
        for part in (whole, *whole["layers"]):
            part["errors"] = {str(bits): error for bits, error in part["errors"].items()}
        print_json(whole)
    else:
        typer.echo(str(found))


def _made(text: str) -> Any:
    """The model of ``module:name``.

    Raises:
        ConfigError: If there is none of that name, or it is no model.
    """
    import importlib
    import sys

    from torch import nn

    from nodebits.core.errors import ConfigError

    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"--model is {text!r}: it must be MODULE:NAME, as my_pkg.models:Net")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        value: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--model {text}: {error}") from error
    if isinstance(value, nn.Module):
        return value
    try:
        made = value()
    except TypeError as error:
        raise ConfigError(
            f"--model {text} cannot be made without arguments ({error}): name a function that "
            "makes it"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"--model {text} is a {type(made).__name__}: it must be a torch module")
    return made


def _read(path: Path) -> Any:
    """The graph of a file.

    Raises:
        ConfigError: If it holds something else, or what torch does not load as plain data.
    """
    import pickle

    import torch
    from torch_geometric.data.data import BaseData, DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    from nodebits.core.errors import ConfigError

    plain = [DataEdgeAttr, DataTensorAttr, GlobalStorage]  # of a Data, beside what PyG declares
    try:
        with torch.serialization.safe_globals(plain):
            value = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ConfigError(
            f"--data {path} is no graph written by torch.save, or holds more than tensors and "
            f"plain values ({type(error).__name__})"
        ) from error
    if not isinstance(value, BaseData):
        raise ConfigError(f"--data {path} holds a {type(value).__name__}: it must be a PyG Data")
    return value
