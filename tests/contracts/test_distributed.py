"""What every registered layer keeps on parts of a graph: the bits of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from forking import Python

TESTS = Path(__file__).resolve().parent.parent
FOLDERS = [
    TESTS / "contracts",
    TESTS / "distributed",
    TESTS.parent / "examples" / "nodebits-smoothness" / "src",
]


@pytest.mark.slow
@pytest.mark.parametrize("world", [3, 1, 2, 4])
def test_ranks_have_the_bits_of_one_process_or_say_why_not(
    python: Python, tmp_path: Path, world: int
) -> None:
    code = f"import sys, pathlib, in_parts; in_parts.check(pathlib.Path(sys.argv[1]), {world})"
    result = python(code, tmp_path, path=FOLDERS)
    assert result.returncode == 0, result.stderr
