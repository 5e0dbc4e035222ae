"""Rows and codes answer for themselves: few places ask what kind they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "nodebits"
MOST = 5
# Containers of codes: of training, packed, and results that wait for their reader.
CONTAINERS = {"Codes", "WeightCodes", "EdgeCodes", "Rows", "PendingRows", "Stage"}


def formats() -> set[str]:
    """Names of the classes of `engine/formats`."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FORMATS.glob("*.py")]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return {c.name for c in classes if any(ast.unparse(base) == "Format" for base in c.bases)}


FORMATS = SOURCE / "engine" / "formats"


def asked(source: str, kinds: set[str]) -> Iterator[int]:
    """Yields the lines that test whether a value is one of ``kinds``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            if names & kinds:
                yield node.lineno
        if isinstance(node, ast.MatchClass) and ast.unparse(node.cls) in kinds:
            yield node.cls.lineno


def test_few_places_ask() -> None:
    kinds = CONTAINERS | formats()
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in SOURCE.rglob("*.py")
        for line in asked(path.read_text(encoding="utf-8"), kinds)
    ]
    assert len(found) <= MOST, found


def test_what_counts() -> None:
    assert {"Dense", "Sparse"} <= formats()
    source = "isinstance(x, A | int)\nisinstance(x, (int, B))\nisinstance(x, int)\n"
    source += "match x:\n    case A(): pass\n"
    assert list(asked(source, {"A", "B"})) == [1, 2, 5]
