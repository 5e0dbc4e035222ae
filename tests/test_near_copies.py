"""No two functions have many lines in common: what is the same is a function of its own."""

from __future__ import annotations

import ast
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "src" / "nodebits"
# Lines that two functions may share, whatever their order.
MOST = 10
# A line of more functions than this is an idiom.
IDIOM = 20


class Function(NamedTuple):
    """A function: its file, name, lines in the file, and the statements in it."""

    file: str
    name: str
    first: int
    last: int
    lines: frozenset[str]


def functions(source: str, file: str) -> Iterator[Function]:
    """Yields the functions of a module, without docstrings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            text = "\n".join(ast.unparse(statement) for statement in body)
            lines = frozenset(line.strip() for line in text.splitlines())
            yield Function(file, node.name, node.lineno, node.end_lineno or 0, lines)


def near_copies(found: list[Function]) -> dict[tuple[str, str], int]:
    """Pairs of functions, neither inside of the other, and the lines that they share."""
    having = defaultdict(list)
    for number, function in enumerate(found):
        for line in function.lines:
            having[line].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in having.values():
        if len(numbers) <= IDIOM:
            shared.update(itertools.combinations(numbers, 2))
    pairs = {}
    for (one, other), count in shared.items():
        a, b = found[one], found[other]
        nested = a.file == b.file and (a.first <= b.first <= a.last or b.first <= a.first <= b.last)
        if count > MOST and not nested:
            pairs[f"{a.file}:{a.name}", f"{b.file}:{b.name}"] = count
    return pairs


def test_no_two_functions_are_near_copies() -> None:
    found = [
        function
        for path in sorted(SOURCE.rglob("*.py"))
        for function in functions(path.read_text(encoding="utf-8"), str(path.relative_to(SOURCE)))
    ]
    assert near_copies(found) == {}


def test_what_counts() -> None:
    lines = "\n".join(f"    a{i} = b{i}" for i in range(MOST + 1))
    source = f"def f():\n{lines}\ndef g(c):\n    '''Said.'''\n{lines}\n    return c\n"
    found = list(functions(source, "x"))
    assert near_copies(found) == {("x:f", "x:g"): MOST + 1}
    inner = lines.replace("    a", "        a")
    assert near_copies(list(functions(f"def f():\n    def g():\n{inner}\n", "x"))) == {}
