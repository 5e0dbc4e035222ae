"""Options that several commands share, and the checks of their values that need no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli.toml import load_config
from nodebits.core.options import Option
from nodebits.core.registry import METHODS, MODELS, TASKS, Registry

# Non-empty when --debug was given; read by ``main`` after the command has failed.
debugging: list[bool] = []


def _set_debug(value: bool) -> bool:
    if value:
        debugging.append(True)
    return value


def integers(text: str, option: str) -> tuple[int, ...]:
    """Reads comma-separated whole numbers.

    Raises:
        BadParameter: If there is anything else; it names ``option``.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} takes whole numbers with commas, such as 4,8,16; got {text!r}"
        ) from error


def names(text: str, option: str) -> tuple[str, ...]:
    """Reads comma-separated names; an empty text is none."""
    del option
    return tuple(part.strip() for part in text.split(",") if part.strip())


def overrides(given: list[str] | None) -> dict[str, int | list[int]]:
    """Reads ``SITE=BITS`` options; ``SITE=8,4,2,2`` gives a width per degree bucket.

    Raises:
        BadParameter: On anything else.
    """
    table: dict[str, int | list[int]] = {}
    for text in given or []:
        site, found, value = text.rpartition("=")
        if not found or not site:
            raise typer.BadParameter(
                f"--override takes SITE=BITS, such as 'convs.0.*=4'; got {text!r}"
            )
        widths = integers(value, f"--override {site}")
        table[site] = widths[0] if len(widths) == 1 else list(widths)
    return table


def existing_folder(value: Path | None) -> Path | None:
    """Refuses a folder that is not there, before anything slow is imported."""
    if value is not None and not value.is_dir():
        raise typer.BadParameter(
            f"the data folder {value} does not exist; correct it, or leave it out to download"
        )
    return value


def known_method(value: str) -> str:
    """Refuses an unknown method; what follows a plus is looked at where methods are imported."""
    _known(value.partition("+")[0], METHODS)
    return value


def known_model(value: str) -> str:
    """Refuses an unknown architecture; MODULE:NAME is one of the user's own."""
    return value if ":" in value else _known(value, MODELS)


def known_task(value: str | None) -> str | None:
    """Refuses an unknown task."""
    return None if value is None else _known(value, TASKS)


def _known(value: str, registry: Registry[Any]) -> str:
    if value not in registry.names():
        raise registry.unknown(value)
    return value


def check_dataset(name: str | None, data_root: Path | None) -> None:
    """Refuses an unknown data set; None is the one that a model file names.

    Raises:
        UnknownNameError: There is no such name.
        UnsupportedTaskError: The set is for a task that no loader of it prepares.
    """
    from nodebits.data.catalogue import data_folder
    from nodebits.data.sources.base import find_source

    if name is not None:
        find_source(name, data_folder(data_root))


def take_data(values: dict[str, Any], default: str | None = "digits") -> None:
    """Puts ``--data``, a path, in the place of ``--dataset``.

    Args:
        values: Options by name; loses ``data``.
        default: What ``dataset`` is where it is not given.

    Raises:
        BadParameter: Both are given, or there is nothing at the path.
    """
    data = values.pop("data", None)
    if data is None:
        return
    if values.get("dataset") not in (None, default):
        raise typer.BadParameter(f"--data {data} and --dataset {values['dataset']}: give one")
    if not data.exists():
        raise typer.BadParameter(f"--data: there is no file or folder {data}")
    # A path that cannot be taken for a name.
    text = str(data)
    values["dataset"] = text if data.is_absolute() or data.is_file() else f"./{text}"


def split_of(text: str | None) -> int | str | None:
    """Reads ``--split``: a number where it is one."""
    return int(text) if text is not None and text.isdecimal() else text


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=load_config,
        help="TOML file with the same keys as the options; the command line wins.",
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", is_eager=True, callback=_set_debug, help="Show the traceback of an error."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Dataset = Annotated[
    str,
    typer.Option("--dataset", help="One of nodebits datasets, such as digits or Cora, or a path."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Data of your own: a folder of tables (nodes, edges, graphs), .pt, or .npz.",
    ),
]
OutFile = Annotated[
    Path, typer.Option("--out", metavar="FILE.toml", help="File of settings to write.")
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        callback=known_model,
        autocompletion=MODELS.names,
        help="One of nodebits models, or MODULE:NAME of your own, which is imported.",
    ),
]
Allow = Annotated[
    str | None,
    typer.Option(
        "--allow",
        metavar="MODULE,...",
        help="Modules from which the model's own class may be imported.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        callback=known_method,
        autocompletion=METHODS.names,
        help="One of nodebits methods; NAME+lorap adds prompts to it.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        callback=known_task,
        autocompletion=TASKS.names,
        help="One of nodebits tasks; default: what the data are for, or look like.",
    ),
]
OwnDataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Data set; default: the one that the model was trained on."),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="public or full (Planetoid), number of a published split, fold (TU), or seed; of own "
        "data also 0.8/0.1/0.1, column:NAME, time:NAME or masks.",
    ),
]
UseNodeAttr = Annotated[
    bool | None,
    typer.Option(
        "--use-node-attr/--no-use-node-attr",
        help="TU sets: node attributes too, not node labels alone.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace results that exist.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        callback=existing_folder,
        help="Folder of raw data; without it the data set is downloaded (digits needs neither).",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Folder for processed data."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads; default: torch's choice.")
]
ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="File that quantize wrote (model.safetensors).")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        rich_help_panel="Bit widths",
        help="Width of a site: 'convs.0.*=4'; sgquant, by degree bucket: 'convs.1.message=8,4,2'.",
        metavar="SITE=BITS",
    ),
]
# Of commands that take a data set.
DATA = [Option("data", Path | None, (), None, "", "Data")]
# Of commands about a saved model, which is their argument.
OF_SAVED_MODEL: dict[str, Any] = {"model": ModelFile, "dataset": OwnDataset}
