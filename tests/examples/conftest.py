from __future__ import annotations

from pathlib import Path

import pytest

from example_packages import installed_examples
from forking import Finished, Python


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all packages of examples/."""
    return installed_examples(tmp_path_factory)


class Run:
    """Runs Python with what a folder adds."""

    def __init__(self, folder: Path, python: Python) -> None:
        self.folder, self.python = folder, python

    def code(self, code: str, *arguments: str | Path) -> Finished:
        return self.python(code, *arguments, path=[self.folder])

    def __call__(self, *arguments: str | Path) -> Finished:
        """The command ``nodebits``."""
        return self.code("from nodebits.cli import main\nmain()\n", *arguments)


@pytest.fixture
def nodebits(installed: Path, python: Python) -> Run:
    """With the packages."""
    return Run(installed, python)


@pytest.fixture
def bare(tmp_path: Path, python: Python) -> Run:
    """Without."""
    return Run(tmp_path, python)
