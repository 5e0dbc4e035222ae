"""Runs the blocks of one page in a process of its own: they share names and a folder."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from docs.commands import commands_of, look_at, shortened


def run(blocks: list[dict[str, Any]], folder: str, repository: str) -> list[str]:
    """Returns what went wrong, a text per fault."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    names: dict[str, Any] = {"__name__": "__main__", "REPOSITORY": repository}
    faults: list[str] = []
    _make_short()
    for block in blocks:
        if block["skipped"]:
            continue
        place = f"line {block['line']}"
        if block["language"] == "python":
            fault = _python(block, names)
        else:
            fault = _shell(block["code"], Path(repository))
        if fault:
            faults.append(f"{place}: {fault}")
            break  # what follows builds on it
    return faults


def _make_short() -> None:
    """A few epochs show that a page works; three hundred show how well."""
    import nodebits

    fit, load = nodebits.fit, nodebits.load_dataset

    def short(model: Any, data: Any, config: Any = None, **options: Any) -> Any:
        config = config or nodebits.FitConfig()
        config = config.replace(epochs=min(config.epochs, 3), progress=False)
        return fit(model, data, config, **options)

    def embedded(name: str, *arguments: Any, **options: Any) -> Any:
        options.pop("root", None)
        known = name.startswith("digits") or Path(name).exists()
        return load(name if known else "digits", *arguments, **options)

    nodebits.fit, nodebits.load_dataset = short, embedded  # type: ignore[assignment]


def _python(block: dict[str, Any], names: dict[str, Any]) -> str:
    expected = block["raises"]
    try:
        exec(compile(block["code"], "<page>", "exec"), names)
    except BaseException as error:
        if type(error).__name__ == expected:
            return ""
        return "".join(traceback.format_exception(error))
    return f"{expected} was not raised" if expected else ""


def _shell(code: str, repository: Path) -> str:
    for words in commands_of(code):
        if words[0] != "nodebits":
            fault = look_at(words, repository)
        else:
            fault = _once(shortened(words[1:]))
        if fault:
            return f"{' '.join(words)}: {fault}"
    return ""


_measured: set[frozenset[str]] = set()


def _once(arguments: list[str]) -> str:
    """Runs a command; a measurement with the same options as an earlier one only stands for it."""
    options = frozenset([*arguments[:2], *(word for word in arguments if word.startswith("--"))])
    if arguments[0] == "bench" and options in _measured:
        return ""
    _measured.add(options)
    return _command(arguments)


def _command(arguments: list[str]) -> str:
    from nodebits.cli.app import main

    said = io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(arguments)
        except SystemExit as stop:
            code = stop.code
    if not code:
        return ""
    return f"ended with {code} as {' '.join(arguments)}: {said.getvalue()[-2000:]}"
