"""Options that several commands share, and the TOML file that stands in for options."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

# Non-empty when --debug was given; read by ``main`` after the command has failed.
debugging: list[bool] = []


def _set_debug(value: bool) -> bool:
    if value:
        debugging.append(True)
    return value


# Options whose comma-separated numbers may be a list in a file.
_LISTS = ("splits", "choices")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


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


def _load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the file's values the defaults of the command, so that the command line wins."""
    if path is None:
        return None
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} is not TOML: {error}") from error
    known = {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.name not in ("config", "help", None)
    }
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, [str(n) for n in known], 1)
            hint = f"; did you mean {close[0].replace('_', '-')!r}?" if close else ""
            raise typer.BadParameter(f"{path}: unknown key {key!r}{hint}")
        if isinstance(value, dict) and getattr(known[name], "multiple", False):
            # A table stands for a repeated NAME=VALUE option; a list in it for commas.
            defaults[name] = [f"{k}={_text(v)}" for k, v in value.items()]
            continue
        if isinstance(value, dict) or (isinstance(value, list) and name not in _LISTS):
            raise typer.BadParameter(f"{path}: {key!r} must be a single value")
        if isinstance(value, list):
            value = _text(value)
        # As text, a value passes the same checks as on the command line: 4.5 is not quietly 4.
        defaults[name] = value if isinstance(value, bool) else str(value)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=_load_config,
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
    typer.Option("--dataset", help="Data set, such as digits, Cora, PubMed, REDDIT-BINARY."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
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
