"""The version is the same wherever it is written, and files of the project are what they claim."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nodebits

REPOSITORY = Path(__file__).resolve().parent.parent


def _text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_all_say_the_same_version() -> None:
    version = tomllib.loads(_text("pyproject.toml"))["project"]["version"]
    assert nodebits.__version__ == version
    assert tomllib.loads(_text("packages/lite/pyproject.toml"))["project"]["version"] == version
    assert f"\nversion: {version}\n" in _text("CITATION.cff")
    assert f"{{{version}}}" in _text("docs/cite.md")


def test_the_extras_of_the_site_are_what_make_installs() -> None:
    extras = tomllib.loads(_text("pyproject.toml"))["project"]["optional-dependencies"]
    (line,) = re.findall(r"constraints\.txt ('mkdocs-material.*)", _text("Makefile"))
    assert re.findall(r"'([^']+)'", line) == extras["docs"]


def test_every_pin_is_wanted_by_someone() -> None:
    wanted = " ".join(_text(name) for name in ("pyproject.toml", "Makefile", "mkdocs.yml"))
    pins = re.findall(r"^([a-z][\w-]*)==", _text("constraints.txt"), re.MULTILINE)
    bare = [p for p in pins if p not in wanted and p.replace("-python", "") not in wanted]
    assert not bare, bare
