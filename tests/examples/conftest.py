from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock  # torch needs it as well

from forking import Finished, Python

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all packages of examples/."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the workers of a run share what one has installed
        root = root.parent
    target = root / "examples"
    with FileLock(root / "examples.lock"):
        if not target.exists():
            _install(target, tmp_path_factory.mktemp("source"))
    return target


def _install(target: Path, work: Path) -> None:
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", target]
    # The build writes next to its sources.
    sources = shutil.copytree(EXAMPLES, work / "examples")
    packages = [path.parent for path in sorted(sources.glob("*/pyproject.toml"))]
    assert len(packages) == 3
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *packages], check=True)


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
