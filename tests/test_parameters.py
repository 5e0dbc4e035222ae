"""No function asks for more than eight values: what belongs together is a record of its own."""

from __future__ import annotations

import ast
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


def test_what_counts() -> None:
    source = "class A:\n def f(self, a, b, c, /, d, *, e, f, g, h, i, **more): ...\n"
    assert list(long_signatures(source)) == [("f", 9)]
    assert not list(long_signatures("def f(a, b, c, d, e, f, g, h, *rest): ..."))
