"""The packages of examples/, installed into a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock  # torch needs it as well

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def installed_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all packages of examples/; the workers of a run share one."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
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
