"""The code blocks of a Markdown page or a notebook, and what is said of each in a comment.

A comment of HTML before a block is not shown on the page::

    <!-- hidden: ... -->        Python that is run and not shown
    <!-- raises: ShapeError --> the next block ends with this error
    <!-- not run: a reason -->  the next block is left alone
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LANGUAGES = {"python": "python", "py": "python", "sh": "sh", "bash": "sh", "console": "sh"}
# An indented block is of a shell if it begins so.
_SHELL = ("nodebits ", "python ", "pip ", "make ", "cmake ")
_COMMENT = re.compile(r"<!--\s*(hidden|raises|not run):\s*(.*?)\s*-->", re.DOTALL)
_PIECE = re.compile(
    r"(?P<comment><!--.*?-->)|^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^ *```"
    r"|(?P<plain>(?:^\n)(?:^ {4}[^\n]*\n(?:^\n(?=^ {4}))?)+)",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One block: where it begins, its language, its text, and what is said of it."""

    line: int
    language: str
    code: str
    raises: str = ""
    skipped: str = ""

    def json(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self)


def blocks_of(path: Path) -> list[Block]:
    """Returns the blocks of a page or notebook, in order."""
    text = path.read_text(encoding="utf-8")
    return list(_cells(text) if path.suffix == ".ipynb" else _fences(text))


def _cells(text: str) -> Iterator[Block]:
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        if cell["cell_type"] == "code":
            yield Block(number, "python", "".join(cell["source"]))


def _fences(text: str) -> Iterator[Block]:
    said: dict[str, str] = {}
    for match in _PIECE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["comment"]:
            comment = _COMMENT.fullmatch(match["comment"])
            if comment is None:
                continue
            if comment[1] == "hidden":
                yield Block(line, "python", comment[2])
            else:
                said[comment[1]] = comment[2]
            continue
        language, code = _block(match)
        if language in LANGUAGES and not code.lstrip().startswith("--8<--"):
            notes = {"raises": said.get("raises", ""), "skipped": said.get("not run", "")}
            yield Block(line, LANGUAGES[language], code, **notes)
        said = {}


def _block(match: re.Match[str]) -> tuple[str, str]:
    if match["plain"] is None:
        indent = match["indent"]
        lines = match["code"].split("\n")
        return match["language"], "\n".join(line.removeprefix(indent) for line in lines)
    code = "\n".join(line[4:] for line in match["plain"].strip("\n").split("\n"))
    return ("sh" if code.startswith(_SHELL) else ""), code
