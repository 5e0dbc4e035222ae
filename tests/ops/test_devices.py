"""Operators make tensors where their arguments are, whatever the default device is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

OPS = Path(__file__).resolve().parents[2] / "src" / "nodebits" / "ops"
FACTORIES = {
    "arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn",
    "randperm", "scalar_tensor", "tensor", "zeros",
}  # fmt: skip


def without_device(source: str) -> Iterator[str]:
    """Yields the calls of torch's factories that leave the device to the default."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
        named = any(keyword.arg == "device" for keyword in node.keywords)
        if of_torch and node.func.attr in FACTORIES and not named:
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", sorted(OPS.rglob("*.py")), ids=lambda p: str(p.relative_to(OPS)))
def test_every_factory_says_its_device(path: Path) -> None:
    assert not list(without_device(path.read_text(encoding="utf-8")))


def test_the_rule_catches() -> None:
    assert list(without_device("torch.zeros(3)")) == ["line 1: torch.zeros(3)"]
    assert not list(without_device("torch.zeros(3, device=x.device); x.new_zeros(3)"))
