"""No function asks for more than eight values: what belongs together is a record of its own."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "nodebits"
MOST = 8
# Signatures that users call: PyG's own, and the keywords of fit and load_dataset.
KEPT = {
    ("train/fit.py", "fit"),
    ("data/load.py", "load_dataset"),
    ("plan/reference.py", "feature_product"),  # a step's arguments, as a file has them
    ("runtime/sampled.py", "predict_nodes"),
}

# Kernels take pointers and sizes one by one, as those in C++ do.
KERNELS = "ops/backends/triton/kernels"


def long_signatures(source: str) -> Iterator[tuple[str, int]]:
    """Yields name and number of parameters, the object itself left out, of functions beyond."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        named = [*node.args.posonlyargs, *node.args.args]
        count = len(named) + len(node.args.kwonlyargs)
        count -= bool(named) and named[0].arg in ("self", "cls")
        if count > MOST:
            yield node.name, count


def test_signatures_are_short() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), name)
        for path in SOURCE.rglob("*.py")
        if path.parent != SOURCE / KERNELS
        for name, _ in long_signatures(path.read_text(encoding="utf-8"))
    }
    assert found == KEPT


# Lists of so many names stand in one place.
LONG = 5


def parameter_lists(source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields functions and records with the names that they take."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef):
            given = node.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names = names[bool(names) and names[0] in ("self", "cls") :]
        elif isinstance(node, ast.ClassDef):
            fields = (one.target for one in node.body if isinstance(one, ast.AnnAssign))
            names = [target.id for target in fields if isinstance(target, ast.Name)]
        if len(names) >= LONG:
            yield getattr(node, "name", ""), tuple(names)


def test_no_list_of_arguments_is_written_twice() -> None:
    found = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent != SOURCE / KERNELS:
            for name, taken in parameter_lists(path.read_text(encoding="utf-8")):
                found[taken].add(f"{path.relative_to(SOURCE).as_posix()}: {name}")
    assert not {taken: places for taken, places in found.items() if len(places) > 1}


def test_what_counts() -> None:
    source = "class A:\n def f(self, a, b, c, /, d, *, e, f, g, h, i, **more): ...\n"
    assert list(long_signatures(source)) == [("f", 9)]
    assert not list(long_signatures("def f(a, b, c, d, e, f, g, h, *rest): ..."))
    twice = "def f(self, a, b, c, *, d, e): ...\nclass G:\n a: A\n b: B\n c: C\n d: D\n e: E\n"
    assert {name: len(taken) for name, taken in parameter_lists(twice)} == {"f": 5, "G": 5}
    assert len({taken for _, taken in parameter_lists(twice)}) == 1
