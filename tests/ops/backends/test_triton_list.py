"""What has no kernel for CUDA is said in the documentation; no triton is needed to see it."""

from __future__ import annotations

import ast
from pathlib import Path

from nodebits.ops.operator import OPERATORS

ROOT = Path(__file__).resolve().parents[3]


def with_kernels() -> set[str]:
    """Names of the functions that the backend lists."""
    text = (ROOT / "src/nodebits/ops/backends/triton/calls.py").read_text(encoding="utf-8")
    tuples = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Tuple)]
    return {one.attr for t in tuples for one in t.elts if isinstance(one, ast.Attribute)}


def test_operators_without_a_kernel_are_listed() -> None:
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    told = [line for line in page.splitlines() if "the definition, in torch" in line]
    missing = set(OPERATORS) - with_kernels()
    assert "spmm" in with_kernels() and missing
    assert not {name for name in missing if not any(f"`{name}`" in line for line in told)}
