from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all packages of examples/."""
    target = tmp_path_factory.mktemp("target")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", target]
    # The build writes next to its sources.
    sources = shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("source") / "examples")
    packages = [path.parent for path in sorted(sources.glob("*/pyproject.toml"))]
    assert len(packages) == 2
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *packages], check=True)
    return target


class Run:
    """Runs Python with what a folder adds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def code(self, code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            timeout=280,
        )

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The command ``nodebits``."""
        return self.code("from nodebits.cli import main\nmain()\n", *arguments)


@pytest.fixture
def nodebits(installed: Path) -> Run:
    """With the packages."""
    return Run(installed)


@pytest.fixture
def bare(tmp_path: Path) -> Run:
    """Without."""
    return Run(tmp_path)
