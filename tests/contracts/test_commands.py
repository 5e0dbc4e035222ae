"""What every command keeps: help with an example, described options, one line per error.

A command joins by being a file of ``cli/commands``, its settings by one line of ``SETTINGS``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from nodebits.cli import commands
from nodebits.cli.app import app
from nodebits.jobs.quantize_config import JobConfig
from nodebits.jobs.search_config import SearchConfig

from .settings import wrong_values

ROOT: Any = typer.main.get_command(app)
SETTINGS = (JobConfig, SearchConfig)


def leaves(command: Any, *path: str) -> Iterator[Any]:
    """Yields every command and its words, those of groups too."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, *path, name)
    else:
        yield pytest.param(command, path, id=" ".join(path))


every_command = pytest.mark.parametrize(("command", "path"), list(leaves(ROOT)))
every_settings = pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.__name__)


def test_every_file_of_the_folder_is_a_command() -> None:
    files = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert set(ROOT.commands) == files


@every_command
def test_help_says_what_it_does_and_shows_an_example(
    command: Any, path: tuple[str, ...], run: Any
) -> None:
    shown = run(*path, "--help")
    assert shown.code == 0 and shown.err == ""
    usage, _, rest = shown.out.partition("Usage:")[2].partition("\n")
    assert " ".join(path) in usage
    if {parameter.name for parameter in command.params} > {"json", "debug"}:
        assert f"nodebits {' '.join(path)}" in rest, "an example"
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        assert text and text.strip(), f"{' '.join(path)}: {parameter.name} has no help"


@every_command
def test_an_option_that_is_none_is_refused_in_one_line(
    command: Any, path: tuple[str, ...], run: Any
) -> None:
    result = run(*path, "--no-such-option")
    assert result.code == 2 and result.out == ""
    (line,) = result.err.strip().splitlines()
    assert line.startswith("nodebits: ") and "--no-such-option" in line


@every_command
def test_every_option_is_spelled_once(command: Any, path: tuple[str, ...]) -> None:
    spelled = [flag for p in command.params for flag in (*p.opts, *p.secondary_opts)]
    assert len(spelled) == len(set(spelled))
    assert {"--debug", "--json"} & set(spelled) or not command.params


@every_settings
def test_settings_refuse_values_of_another_type(settings: type) -> None:
    for name, value in wrong_values(settings):
        with pytest.raises(ValueError, match=name):
            settings(**{"out": Path("x"), name: value})


@pytest.mark.parametrize("word", ["quantise", "serch", "modls", "inf", ""])
def test_a_word_that_is_no_command(word: str, run: Any) -> None:
    result = run(word)
    assert result.code == 2 and result.out == ""
    assert result.err.startswith("nodebits: ") and word in result.err
