"""Sums and norms of rows: torch's values, and bits that do not depend on what is beside a row."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nodebits.core.row_norm import root, row_norm, row_sum


@pytest.mark.parametrize("columns", [1, 2, 5, 8, 33])
def test_a_sum_does_not_depend_on_zeros_behind_it(columns: int) -> None:
    x = torch.randn(7, columns) * 10
    made = row_sum(x)
    torch.testing.assert_close(made, x.double().sum(1, keepdim=True).float())
    assert torch.equal(made, row_sum(F.pad(x, (0, 40))))
    assert torch.equal(made[3:4], row_sum(x[3:4]))


def test_no_columns_add_up_to_nothing() -> None:
    assert torch.equal(row_sum(torch.ones(3, 0)), torch.zeros(3, 1))
    assert row_norm(torch.ones(3, 0), None, None, 1e-5).shape == (3, 0)


@pytest.mark.parametrize("shape", [(7, 5), (3, 2, 16), (4,)])
def test_norms_are_those_of_torch(shape: tuple[int, ...]) -> None:
    x, w, b = torch.randn(shape), torch.rand(shape[-1]), torch.randn(shape[-1])
    for weight, bias in ((w, b), (w, None), (None, None)):
        want = F.layer_norm(x, shape[-1:], weight, bias, 1e-5)
        torch.testing.assert_close(row_norm(x, weight, bias, 1e-5), want)


def test_roots_are_rounded_correctly() -> None:
    x = torch.rand(10_000) * 100
    assert torch.equal(root(x), x.double().sqrt().float())
