"""The scripts of examples/ run from start to end, and what they say of quality is plausible."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from example_packages import EXAMPLES
from forking import Python

SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
_CODE = """
import os, runpy, sys
os.chdir(sys.argv[1])
sys.argv = [sys.argv[2], "3"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_each_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert {"node.py", "molecules.py", "links.py", "hetero.py", "streaming.py"} <= set(SCRIPTS)
    assert all(f"[{name}]({name})" in listed for name in SCRIPTS)
    folders = [path.name for path in EXAMPLES.iterdir() if path.is_dir() and os.listdir(path)]
    assert all(f"]({name}/README.md)" in listed for name in folders if not name.startswith("_"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name: str, python: Python, tmp_path: Path) -> None:
    done = python(_CODE, tmp_path, EXAMPLES / name)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = re.findall(r"\d\.\d{3}", done.stdout)
    assert figures, done.stdout
