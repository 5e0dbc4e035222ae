from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forking import COMMAND, Python
from nodebits.cli.app import main

QUICK = ["--epochs", "8", "--hidden", "16", "--latency-repeats", "2", "--no-progress"]
QUICK += ["--threads", "1"]  # more only wait for each other on a busy machine


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process."""

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), streams.out, streams.err)

    return call


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Python]:
    """Runs code in a process that has what the command is made of, and nothing slow."""
    python = Python(tmp_path_factory.mktemp("command"), COMMAND)
    yield python
    python.stop()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one small job on digits."""
    folder = tmp_path_factory.mktemp("job")
    with pytest.raises(SystemExit) as stop:
        main(["quantize", "--out", str(folder), "--seeds", "2", *QUICK, "--epochs", "40"])
    assert not stop.value.code
    return folder
