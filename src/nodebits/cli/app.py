"""Entry point: the typer application, exit codes, and one clear line per error.

Exit codes: 0 success, 2 bad usage (options, names, ranges), 1 any other failure. Commands import
torch when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

from nodebits.cli import commands, options

OK, FAILURE, USAGE = 0, 1, 2

app = typer.Typer(
    name="nodebits",
    help="Train, pack, store and execute graph neural networks in 1 to 8 bits.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add_commands() -> None:
    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{found.name}")
        command = getattr(module, found.name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=found.name)
        else:
            app.command(found.name)(command)


_add_commands()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Train, pack, store and execute graph neural networks in 1 to 8 bits."""
    if version:
        from importlib import metadata

        typer.echo(metadata.version("nodebits"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and exits the process with its code."""
    options.debugging.clear()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _command()(
            args=list(given),
            prog_name="nodebits",
            standalone_mode=False,
            obj=["nodebits", *given],
        )
    except KeyboardInterrupt:
        code = _fail("interrupted", FAILURE)
    except typer.Abort:
        code = _fail("aborted", FAILURE)
    except BrokenPipeError:
        code = FAILURE
    except Exception as error:
        if options.debugging:
            traceback.print_exc()
        code = _fail(_message(error, given), _exit_code(error))
    sys.exit(code if isinstance(code, int) else OK)


@functools.cache
def _command() -> Any:
    """The application as click runs it: made once, for it is made of every option there is."""
    return typer.main.get_command(app)


def _fail(message: str, code: int) -> int:
    print(f"nodebits: {message}", file=sys.stderr)
    return code


def _message(error: Exception, given: Sequence[str]) -> str:
    """Returns the error in one line."""
    if hasattr(error, "format_message"):
        text = " ".join(error.format_message().split()) + _rejected_value(error, given)
        context = getattr(error, "ctx", None)
        return f"{text} (see: {context.command_path} --help)" if context is not None else text
    text = " ".join(str(error).split()) or type(error).__name__
    if _is_expected(error):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _rejected_value(error: Exception, given: Sequence[str]) -> str:
    """Returns the refused value where typer's own message leaves it out."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    flags = [flag for flag in getattr(parameter, "opts", ()) if flag in given[:-1]]
    if flags:
        last = max(place for place, text in enumerate(given[:-1]) if text == flags[-1])
        value: object = given[last + 1]  # given twice, the last one counts
    else:
        defaults = getattr(context, "default_map", None) or {}
        value = defaults.get(getattr(parameter, "name", None))
    return "" if value is None or str(value) in str(error) else f"; got {str(value)!r}"


def _exit_code(error: Exception) -> int:
    # The classes of click moved between releases of typer; their attributes did not.
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code
    if not _is_expected(error):
        return FAILURE
    from nodebits.core import errors

    usage = (
        errors.ConfigError,
        errors.BitwidthError,
        errors.UnknownNameError,
        errors.UnsupportedTaskError,
        errors.UnsupportedIsaError,
    )
    return USAGE if isinstance(error, usage) else FAILURE


def _is_expected(error: Exception) -> bool:
    from nodebits.core.errors import NodebitsError

    return isinstance(error, (NodebitsError, ImportError))
