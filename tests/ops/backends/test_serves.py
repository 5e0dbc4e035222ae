"""What serves each operator is what would run it."""

from __future__ import annotations

import pytest
import torch

from nodebits import ops
from nodebits.ops.backends.triton import choice, launch
from nodebits.ops.backends.triton.tiles import candidates, key_of
from nodebits.ops.operator import OPERATORS


def test_every_operator_of_every_device() -> None:
    found = ops.backends.serves()
    assert found.keys() == ops.backends.describe().keys()
    assert all(served.keys() == OPERATORS.keys() for served in found.values())
    assert set(found["other devices"].values()) == {"definition"}


def test_the_cpu_without_compiled_kernels() -> None:
    with ops.force_isa("reference"):
        assert set(ops.backends.serves()["cpu"].values()) == {"definition"}


def test_kernels_serve_where_nothing_keeps_them_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "device_problem", lambda: "torch finds no CUDA device")
    assert set(choice.serves().values()) == {"definition"}
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(choice, "device_problem", lambda: None)
    found = choice.serves()
    assert found["spmm"] == "triton" and found["coo_to_csr"] == "definition"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some Card")
    key = key_of("softmax", (4,))
    with launch.chosen({}):
        assert "on Some Card, tiles by rule; the definitions, in torch: coo" in choice.describe()
    with launch.chosen({key: candidates(key)[1]}):
        assert "tiles of 1 shapes measured" in choice.describe()
