"""The epilogue of training: the kernel's values and gradients are those of torch's operations."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from nodebits import ops
from nodebits.engine.epilogue import rescale
from nodebits.ops.records import Epilogue

ROWS, COLS = 70, 12


def columns(one: bool) -> Tensor:
    return torch.rand(1 if one else COLS).add_(0.5).requires_grad_()


@pytest.mark.parametrize("isa", ops.available_isas())
def test_values_and_gradients(isa: str) -> None:
    for one, offset, heads, bias in product((False, True), (False, True), (0, 1, 3), (False, True)):
        torch.manual_seed(heads)
        acc = torch.randint(0, 900, (ROWS, COLS)).float().requires_grad_()
        given = [columns(one), columns(one) if offset else None, columns(False) if bias else None]
        rows = [torch.rand(ROWS, heads) if heads else None for _ in range(2)]
        learned = [t for t in (acc, *given) if t is not None]
        scale, off, add = given
        with ops.force_isa(isa):
            made = rescale(acc, scale, off, *rows, add)
            upstream = torch.randn(ROWS, COLS)
            found = torch.autograd.grad(made, learned, upstream)
        assert made.grad_fn is not None and made.grad_fn.name() == "RescaleBackward"
        plain = Epilogue(scale, off, *rows, add).apply(acc)
        assert torch.equal(made, plain)
        expected = torch.autograd.grad(plain, learned, upstream)
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1:], expected[1:], rtol=1e-5, atol=1e-4)


def test_factors_of_rows_that_learn_keep_their_gradients() -> None:
    acc = torch.rand(5, 4).requires_grad_()
    factor = torch.rand(5, 1).requires_grad_()
    rescale(acc, torch.ones(4), None, None, factor, None).sum().backward()
    assert factor.grad is not None and torch.allclose(factor.grad, acc.sum(1, keepdim=True))


def test_sums_are_the_same_for_any_number_of_threads() -> None:
    grad, acc = torch.randn(5000, 64), torch.randn(5000, 64)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(ops.rescale_backward(grad, acc, Epilogue(torch.rand(1).fill_(0.3))))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
