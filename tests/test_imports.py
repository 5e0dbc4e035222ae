"""The import direction of docs/design.md, section 3, checked on the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src" / "nodebits"

# Top to bottom; a package imports only packages below it.
ORDER = (
    "cli",
    "jobs",
    "serving",
    "report",
    "bench",
    "search",
    "train",
    "store",
    "session",
    "distributed",
    "out_of_core",
    "runtime",
    "data",
    "methods",
    "models",
    "nn",
    "plan",
    "engine",
    "lite",
    "tasks",
    "graph",
    "ops",
    "core",
)
ALLOWED = {package: set(ORDER[ORDER.index(package) :]) for package in ORDER}
ALLOWED["data"] = {"data", "tasks", "graph", "core"}
ALLOWED["tasks"] = {"tasks", "core"}
ALLOWED["lite"] = {"lite", "core"}

# Third-party (or compiled) modules that one package alone may import.
EXCLUSIVE = {
    "rich": "cli",
    "typer": "cli",
    "starlette": "serving",
    "uvicorn": "serving",
    "prometheus_client": "serving",
    "nodebits._kernels": "ops",
}


def imported_names(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yields line and absolute dotted name of everything that ``module`` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            argument = node.args[0]
            if called in ("importlib.import_module", "import_module", "__import__") and isinstance(
                argument, ast.Constant
            ):
                yield node.lineno, str(argument.value)


def violations(source: str, module: str) -> list[str]:
    """Lists the forbidden imports of ``module``; a package is named with ``.__init__``."""
    package = module.split(".")[1]
    if package not in ORDER:
        return [f"{module}: {package!r} is not a package of docs/design.md"]
    found = []
    for line, name in imported_names(ast.parse(source), module):
        for exclusive, owner in EXCLUSIVE.items():
            if (name == exclusive or name.startswith(exclusive + ".")) and package != owner:
                found.append(f"{module}:{line} imports {name}, which only {owner} may")
        parts = name.split(".")
        if parts[0] != "nodebits":
            continue
        if len(parts) == 1 or parts[1] not in (*ORDER, "_kernels"):
            found.append(f"{module}:{line} imports {name}: name the package that defines it")
        elif parts[1] != "_kernels" and parts[1] not in ALLOWED[package]:
            found.append(f"{module}:{line} imports {name}, which is not below {package}")
    return found


def module_name(path: Path) -> str:
    return ".".join(["nodebits", *path.relative_to(SOURCE).with_suffix("").parts])


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE)


def test_the_order_is_the_one_of_the_design() -> None:
    design = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    section = design.split("## 3. Packages")[1].split("## 4.")[0]
    assert tuple(re.findall(r"^    ([a-z_]+)  ", section, re.MULTILINE)) == ORDER


def test_every_file_is_in_a_package_of_the_order() -> None:
    assert {module_name(path).split(".")[1] for path in FILES} == set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_down(package: str) -> None:
    files = [path for path in FILES if module_name(path).split(".")[1] == package]
    assert files
    found = [v for p in files for v in violations(p.read_text(encoding="utf-8"), module_name(p))]
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nodebits.core.rounding", "from nodebits.graph.csr import Graph"),
        ("nodebits.core.rounding", "def f():\n    import nodebits.nn.gcn_conv"),
        ("nodebits.ops.reference", "from nodebits import graph"),
        ("nodebits.ops.reference", "from ..graph import Graph"),
        ("nodebits.ops.__init__", "from ..graph import Graph"),
        ("nodebits.data.load", "from nodebits.methods import prepare"),
        ("nodebits.data.load", "from nodebits.ops import spmm"),
        ("nodebits.methods.base", "from nodebits.data import load_dataset"),
        ("nodebits.methods.base", "import nodebits"),
        ("nodebits.methods.base", "from nodebits import prepare"),
        ("nodebits.graph.csr", "from nodebits import _kernels"),
        ("nodebits.runtime.run", "import nodebits._kernels as k"),
        ("nodebits.runtime.run", 'import importlib\nimportlib.import_module("nodebits._kernels")'),
        ("nodebits.report.page", "from rich.table import Table"),
        ("nodebits.bench.timing", "from nodebits.jobs import experiment"),
        ("nodebits.train.loop", "import typer"),
        ("nodebits.helpers.misc", "import torch"),
    ],
)
def test_the_rule_catches(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nodebits.ops.compiled", "from nodebits import _kernels"),
        ("nodebits.ops.compiled", "from nodebits.core.errors import ShapeError"),
        ("nodebits.data.load", "from nodebits.core import errors\nfrom .base import Dataset"),
        (
            "nodebits.cli.app",
            "import rich\nimport typer\nfrom nodebits.jobs import search",
        ),
        ("nodebits.graph.csr", "from nodebits.ops import coo_to_csr"),
        ("nodebits.nn.gcn_conv", "import torch\nfrom ..ops import spmm\nfrom . import registry"),
        ("nodebits.core.rounding", "import richness"),
    ],
)
def test_the_rule_allows(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Nor inside a function, or for the type checker alone."""
    found = {module_name(path).removesuffix(".__init__"): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in found.items():
        imports = imported_names(ast.parse(path.read_text(encoding="utf-8")), module)
        names = {name if name in found else name.rpartition(".")[0] for _, name in imports}
        graph[module] = (names & set(found)) - {module}
    left = set(graph)
    while True:  # what imports nothing that is left is on no circle
        done = {module for module in left if not graph[module] & left}
        if not done:
            break
        left -= done
    assert not left
