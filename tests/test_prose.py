"""The rules of prose hold in the repository, and their checks find what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

import prose

PACKAGE = prose.REPOSITORY / "src" / "nodebits"
FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")})


def test_repository() -> None:
    assert not prose.faults()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("word " * 21, "columns"),
        ("One. Two.", "two sentences"),
        ("One ends. `code` begins the next.", "two sentences"),
        ("- An item. Another sentence.", "two sentences"),
        ("a " * 26 + "\n", "26 words"),
        ("this line ends\nearly in its sentence", "ends early"),
        ("1, 2.5, 3 and 4 are numbers", "4 numbers"),
        ("| " + "a " * 41 + "|", "cell"),
        ("```\n" + "a" * 101 + "\n```", "columns"),
    ],
)
def test_markdown_fault_is_found(text: str, fault: str) -> None:
    assert [found for found in prose.markdown_faults(text, "x.md") if fault in found]


@pytest.mark.parametrize(
    "text",
    [
        "| " + "long " * 30 + "|",
        "One by Esser et al. 2020 at 1, 2, 4 and 8 bits.\nTwo.",
        "```\nOne. Two.\n```",
        "    One. Two.",
        "See [a page](docs/1-2-3-4.md).",
        "- An item.\n  Its second sentence.\n- Another item",
        "A sentence.\n\n<!-- hidden:\nx = 1\ny = [2, 3, 4, 5]. Two.\n-->\nAnother.",
    ],
)
def test_good_markdown_passes(text: str) -> None:
    assert not list(prose.markdown_faults(text, "x.md"))


@pytest.mark.parametrize(
    "docstring",
    [
        "A line that stops\n    early in its sentence.",
        "A line that goes on where it should not be,\n        deeper, and\n    back again.",
    ],
)
def test_torn_docstring_is_found(docstring: str) -> None:
    source = f'def f():\n    """Summary.\n\n    {docstring}\n    """\n'
    assert len(list(prose.docstring_faults(source, "x.py"))) >= 1


def test_whole_docstring_passes() -> None:
    source = """def f(a, b):
    '''Summary::

        set off
        by hand

    Args:
        a: What it is, said at length
            over two lines.
        b: Another.
    '''
"""
    assert not list(prose.docstring_faults(source, "x.py"))


def test_docstring_is_inherited() -> None:
    methods = prose.Methods()
    methods.read(
        """class Base:
    def said(self):
        'What it does.'
class Heir(Base[int]):
    def said(self): ...
    def unsaid(self): ...
    def _hidden(self): ...
    def pointer(self):
        'See :meth:`Base.said`.'
""",
        "x.py",
    )
    found = list(methods.faults())
    assert len(found) == 2
    assert "points elsewhere" in found[0]
    assert "Heir.unsaid" in found[1]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folder_says_what_lives_there(folder: Path) -> None:
    readme = folder / "README.md"
    assert readme.is_file(), f"{readme}: say what lives here and where a new thing goes"
    lines = [line for line in readme.read_text("utf-8").split("\n") if line.strip()]
    assert 3 <= len(lines) <= 10, f"{readme} has {len(lines)} lines"
