"""Numbers that stand in several languages are the same in all of them."""

from __future__ import annotations

import ctypes
import re
import tomllib
from pathlib import Path

import nodebits
from nodebits.core import errors
from nodebits.lite import library
from nodebits.runtime import container

ROOT = Path(__file__).parents[2]
HEADER = (ROOT / "csrc" / "capi" / "nodebits.h").read_text(encoding="utf-8")


def test_versions() -> None:
    texts = [ROOT / "pyproject.toml", ROOT / "packages" / "lite" / "pyproject.toml"]
    found = {tomllib.loads(path.read_text())["project"]["version"] for path in texts}
    init = (ROOT / "packages" / "lite" / "src" / "nodebits_lite" / "__init__.py").read_text()
    (lite,) = re.findall(r'__version__ = "(.*)"', init)
    assert found == {nodebits.__version__, lite, library.library().nb_version().decode()}


def test_the_format_is_read_in_the_version_that_is_written() -> None:
    source = (ROOT / "csrc" / "capi" / "file.h").read_text(encoding="utf-8")
    (version,) = re.findall(r"kFormatVersion = (\d+)", source)
    assert int(version) == container.FORMAT_VERSION


def test_the_interface_that_python_expects_is_that_of_the_header() -> None:
    assert f"#define NB_API_VERSION {library.API_VERSION}\n" in HEADER
    assert f"#define NB_MOST_AXES {library.MOST_AXES}\n" in HEADER
    declared = set(re.findall(r"NB_API [^(]*?(nb_\w+)\(", HEADER))
    assert set(library._PROTOTYPES) <= declared
    for name in declared:
        assert getattr(library.library(), name)
    assert ctypes.sizeof(library.NbArray) == 8 + 8 * library.MOST_AXES + 8


def test_kinds_of_errors_are_classes() -> None:
    named: set[str] = set()
    for path in (ROOT / "csrc" / "capi").glob("*.cpp"):
        source = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'PlanError\(\s*"(\w+)"', source))
        named |= set(re.findall(r'"(\w+Error)"', source))
    assert "FileFormatError" in named and len(named) > 8
    builtins = {"FileNotFoundError", "KeyboardInterrupt", "OSError", "RuntimeError"}
    assert {kind for kind in named if not hasattr(errors, kind)} == builtins
