"""The rules of prose of CONTRIBUTING.md, checked on Markdown and docstrings by `make lint`."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COLUMNS = 100
WORDS = 25
CELL_WORDS = 40
NUMBERS = 3
# Entries of the changelog are fragments, not sentences: only their lines are checked.
COLUMNS_ONLY = ("CHANGELOG.md",)
FOLDERS = ("docs", "csrc", "benchmarks", "examples", "src")

_ITEM = re.compile(r"(\s*)([-*]|\d+\.) ")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`[^`]*`")
_ABBREVIATION = re.compile(r"\b(et al|e\.g|i\.e|vs|approx|Fig|Sec)\.$")
_BOUNDARY = re.compile(r"""[.!?][*)"']*(?= +(?:[*("']*[A-Z0-9]|[*(]*[`\[]))""")
# Widths are names, not measurements; so are years of papers, and what a name ends in.
_WIDTH = re.compile(
    r"\b\d+(?:(?:, | and | or | to )\d+)*[- ]bits?\b|\b(?:19|20)\d\d\b|\b[A-Za-z][\w.-]*\d[\w.]*"
)
_ENTRY = re.compile(r"\s+[*\w.]+( \([^)]*\))?: ")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])\d[\d,.]*")


@dataclass(frozen=True)
class Block:
    """A paragraph or list item: the number of its first line and its lines."""

    first: int
    lines: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    """Paragraphs and list items, without headings, tables and code."""
    block: list[str] = []
    first = 0
    code = fenced = False
    blank = True
    for number, line in enumerate([*text.split("\n"), ""], 1):
        fence = line.lstrip().startswith("```")
        if fence:
            fenced = not fenced
        code = line.startswith("    ") and (blank or code) and not _in_list(block)
        other = fence or fenced or code or line.lstrip().startswith(("|", "#"))
        if block and (other or not line.strip() or _ITEM.match(line)):
            yield Block(first, tuple(block))
            block = []
        blank = not line.strip()
        if not other and not blank:
            first = first if block else number
            block.append(line)


def _in_list(block: list[str]) -> bool:
    return bool(block) and bool(_ITEM.match(block[0]))


def sentences(prose: str) -> list[str]:
    """The sentences of a paragraph that stands on one line."""
    found, begin = [], 0
    for match in _BOUNDARY.finditer(prose):
        if _ABBREVIATION.search(prose[: match.end()]):
            continue
        found.append(prose[begin : match.end()].strip())
        begin = match.end()
    return [*found, prose[begin:].strip()]


def markdown_faults(text: str, name: str, columns_only: bool = False) -> Iterator[str]:
    """Says where a Markdown file breaks the rules.

    Args:
        text: The file's content.
        name: What to call it.
        columns_only: Whether its sentences are left alone.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("|"):
            for cell in _LINK.sub(r"\1", line).split("|"):
                if len(cell.split()) > CELL_WORDS:
                    yield f"{name}:{number}: a cell of more than {CELL_WORDS} words"
        elif len(line) > COLUMNS:
            yield f"{name}:{number}: {len(line)} columns, more than {COLUMNS}"
    if columns_only:
        return
    # What a comment holds is no prose; its lines still count.
    for block in blocks(_COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)):
        place = f"{name}:{block.first}"
        item = _ITEM.match(block.lines[0])
        lines = [line.strip() for line in block.lines]
        if item:
            lines[0] = block.lines[0][item.end() :]
        for at, line in enumerate(lines):
            where = f"{name}:{block.first + at}"
            if len(sentences(line)) > 1:
                yield f"{where}: two sentences on one line"
        for sentence in sentences(" ".join(lines)):
            # A formula or a command is one word.
            words = len(_CODE.sub("code", _LINK.sub(r"\1", sentence)).split())
            if words > WORDS:
                yield f"{place}: {words} words, more than {WORDS}: {sentence[:60]}"
        for at in torn(block.lines):
            yield f"{name}:{block.first + at}: the line ends early in mid-sentence"
        numbers = len(_NUMBER.findall(_plain(" ".join(lines))))
        if numbers > NUMBERS:
            yield f"{place}: {numbers} numbers in a paragraph: make a table"


def _plain(prose: str) -> str:
    """``prose`` without code, addresses and widths."""
    return _WIDTH.sub("", _CODE.sub("", _LINK.sub(r"\1", prose)))


def torn(lines: tuple[str, ...], columns: int = COLUMNS) -> Iterator[int]:
    """The lines that end in mid-sentence although the next word had room."""
    for at in range(len(lines) - 1):
        line, after = lines[at].rstrip(), lines[at + 1].split()
        if not line or not after or re.search(r"""[.!?:;,][*)"'`]*$""", line):
            continue
        begins = re.match(r"[a-z(`*\[]", after[0])
        if begins and len(line) + 1 + len(after[0]) <= columns - 8:
            yield at


def docstring_faults(source: str, name: str) -> Iterator[str]:
    """Says where a docstring is torn in mid-sentence."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    text = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, kinds) or ast.get_docstring(node) is None:
            continue
        first, last = node.body[0].lineno, node.body[0].end_lineno or 0
        lines = text[first - 1 : last]
        broken = {at for at in torn(tuple(lines)) if _indent(lines[at]) == _indent(lines[at + 1])}
        for at in sorted(broken | set(_shifted(lines))):
            # What is set off, such as a formula or a command, is laid out by hand.
            entry = _ENTRY.match(lines[at + 1]) or lines[at + 1].lstrip().startswith("nodebits ")
            if not entry and not _set_off(lines, at):
                yield f"{name}:{first + at}: the docstring's line ends early in mid-sentence"


def _shifted(lines: list[str]) -> Iterator[int]:
    """The lines that the next one goes on from at another indentation."""
    for at in range(1, len(lines) - 1):
        one, two = lines[at], lines[at + 1]
        if not one.strip() or not two.strip() or two.strip() == '"""':
            continue
        deeper = _indent(two) > _indent(one)
        begun = deeper and (_ENTRY.match(one) or _ITEM.match(one) or one.endswith(":"))
        if _indent(one) != _indent(two) and not begun and not re.search(r"[.:;,!?)`]$", one):
            yield at


def _set_off(lines: list[str], at: int) -> bool:
    """Whether the block of line ``at`` follows a line that ends in two colons."""
    while at and lines[at].strip():
        at -= 1
    return lines[max(at - 1, 0)].endswith("::")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


class Methods:
    """Which methods of which classes have docstrings, by the classes' names.

    Ruff's rule would want one on every method. Here one without a docstring inherits it, as
    `inspect.getdoc` does, and only an ancestor's that says something counts.
    """

    def __init__(self) -> None:
        self.bases: dict[str, set[str]] = {}
        self.documented: set[tuple[str, str]] = set()
        self.bare: list[tuple[str, str, str]] = []
        self.empty: list[str] = []

    def read(self, source: str, name: str) -> None:
        """Takes up the classes of a file."""
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "operator":
                # The record of an operator has the methods of a protocol, documented there.
                self.bases.setdefault(ast.unparse(node.args[0]), set()).add("Arguments")
            if not isinstance(node, ast.ClassDef):
                continue
            names = (re.split(r"[.\[]", ast.unparse(base).split("[")[0])[-1] for base in node.bases)
            self.bases.setdefault(node.name, set()).update(names)
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    self._take(node, item, name)

    def _take(self, owner: ast.ClassDef, method: ast.FunctionDef, name: str) -> None:
        text = ast.get_docstring(method)
        place = f"{name}:{method.lineno}"
        decorators = [ast.unparse(decorator) for decorator in method.decorator_list]
        exempt = any(decorator.endswith((".setter", "overload")) for decorator in decorators)
        if text and re.fullmatch(r"See :\w+:`[^`]*`\.?", text):
            self.empty.append(f"{place}: a docstring that only points elsewhere: leave it out")
        elif text:
            self.documented.add((owner.name, method.name))
        elif not owner.name.startswith("_") and not method.name.startswith("_") and not exempt:
            self.bare.append((place, owner.name, method.name))

    def _documents(self, base: str, method: str) -> bool:
        of_python = getattr(getattr(builtins, base, None), method, None)
        return of_python is not None or (base, method) in self.documented

    def faults(self) -> Iterator[str]:
        """Says which methods neither have nor inherit a docstring."""
        yield from self.empty
        for place, owner, method in self.bare:
            bases = self._ancestors(owner, set())
            if not any(self._documents(base, method) for base in bases):
                yield f"{place}: {owner}.{method} has no docstring, nor has what it overrides"

    def _ancestors(self, name: str, seen: set[str]) -> Iterator[str]:
        for base in self.bases.get(name, set()) - seen:
            seen.add(base)
            yield base
            yield from self._ancestors(base, seen)


def markdown_files() -> list[Path]:
    """The files whose prose is checked."""
    found = list(REPOSITORY.glob("*.md"))
    for folder in FOLDERS:
        found += (REPOSITORY / folder).rglob("*.md")
    generated = REPOSITORY / "benchmarks" / "results"
    return sorted(path for path in found if generated not in path.parents)


def faults() -> list[str]:
    """All faults of the repository."""
    found: list[str] = []
    for path in markdown_files():
        name = str(path.relative_to(REPOSITORY))
        found += markdown_faults(path.read_text("utf-8"), name, name in COLUMNS_ONLY)
    methods = Methods()
    for path in sorted((REPOSITORY / "src" / "nodebits").rglob("*.py")):
        source, name = path.read_text("utf-8"), str(path.relative_to(REPOSITORY))
        found += docstring_faults(source, name)
        methods.read(source, name)
    return [*found, *methods.faults()]


if __name__ == "__main__":
    lines = faults()
    print("\n".join(lines))
    sys.exit(bool(lines))
