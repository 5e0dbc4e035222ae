"""Steps around convolutions: the bits of their definitions at every level and thread count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, reference, results, same
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.plan.reference import meaning


def check(op: str, *args: Any) -> None:
    case = Case()
    ref = case.step(op, *[case.input(a) if isinstance(a, Tensor) else a for a in args])
    (made,) = case.everywhere(ref)
    assert same(made, reference(meaning(op), *args)), op


@pytest.mark.parametrize("shape", [(9, 1), (9, 5), (40, 64), (3, 4, 7), (6, 0), (0, 8)])
def test_norms_and_sums_of_rows(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape) * 3
    w, b = torch.rand(shape[-1]), torch.randn(shape[-1])
    check("row_sum", x)
    check("row_norm", x, w, b, 1e-5)
    check("row_norm", x, None, None, 1e-12)
    check("root", x.abs())


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("midrise", [False, True])
def test_embeddings(bits: int, midrise: bool) -> None:
    packed = ops.pack(torch.randint(0, 1 << bits, (11, 13), dtype=torch.uint8), bits)
    scale, ids = torch.rand(11), torch.randint(0, 11, (40,))
    for numbers in (ids, ids.int(), ids[:0]):
        check("embedding", numbers, packed, scale, bits, 13, midrise)


def test_ids_outside_of_a_table_are_refused() -> None:
    packed = ops.pack(torch.zeros(3, 4, dtype=torch.uint8), 4)
    for bad in (3, -1):
        case = Case()
        ref = case.step(
            "embedding", case.input(torch.tensor([0, bad])), packed, torch.ones(3), 4, 4, False
        )
        with pytest.raises(NodeIndexError):
            case.run(ref)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention(heads: int) -> None:
    q, k, v = (torch.randn(83, 16) * 2 for _ in range(3))
    batch = torch.arange(83).sqrt().long()
    check("graph_attention", q, k, v, batch, heads)
    check("graph_attention", q, k, v, None, heads)
    check("graph_attention", q[:0], k[:0], v[:0], batch[:0], heads)


def test_a_batch_that_falls_is_refused() -> None:
    x, batch = torch.randn(3, 4), torch.tensor([0, 1, 0])
    case = Case()
    ref = case.step("graph_attention", *[case.input(t) for t in (x, x, x, batch)], 2)
    with pytest.raises(ShapeError, match="ascend"):
        results(case.plan(ref).run(case.values(), 1))
