"""Quantizers that learn a width per row: the formulas of the paper, graphs, frozen forms."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.errors import GraphMismatchError, NonFiniteError, NotCalibratedError
from nodebits.engine.rows import Rows
from nodebits.engine.sites import NearestRows, PerNodeRows, rows_from_config
from nodebits.graph import as_graph, graph_scope
from nodebits.nn.quantizers import NodeMessageQuantizer, NodeQuantizer, Quantizer, RawNodeQuantizer
from nodebits.nn.quantizers.node_raw import width_table, widths_within
from nodebits.nn.quantizers.row_gradients import RowFakeQuantize, local_error

from .cases import NODES, edges

COLS = 9


def trained(quantizer: NodeQuantizer, x: Tensor, steps: int = 25, price: float = 0.05) -> None:
    """A few steps of local gradient; widths end up different from row to row."""
    quantizer.train()
    quantizer(x)
    quantizer.price.fill_(price)
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        quantizer(x)
        quantizer.penalty().backward()
        optimizer.step()
    quantizer.eval()


def packed_values(quantizer: Quantizer, x: Tensor) -> tuple[Rows, Tensor]:
    rows = quantizer.freeze().pack(x)
    assert rows.data.name == "bucketed"
    return rows, rows.dequantize()


MAKERS = {
    "table": lambda: NodeQuantizer(4),
    "power of two": lambda: NodeQuantizer(4, scale_bits=4),
    "float scale": lambda: NodeQuantizer(4, scale_bits=32),
    "message": lambda: NodeMessageQuantizer(COLS, 4),
}


@pytest.mark.parametrize("positive", (True, False))
@pytest.mark.parametrize("name", MAKERS)
def test_frozen_rows_hold_the_simulated_codes(name: str, positive: bool) -> None:
    x = torch.randn(NODES, COLS) * torch.rand(NODES, 1) * 4
    x = x.relu() if positive else x
    quantizer = MAKERS[name]()
    trained(quantizer, x)
    assert quantizer.rounded_widths().unique().numel() > 1
    with torch.no_grad():
        codes = quantizer(x)
    rows, values = packed_values(quantizer, x)
    assert torch.equal(values, codes.dequantize())
    again = rows_from_config(quantizer.freeze().config())
    again.load_state_dict(quantizer.freeze().state_dict())
    loaded = again.pack(x)
    assert torch.equal(loaded.codes(), rows.codes())
    assert rows.layout.mean_bits == pytest.approx(quantizer.mean_bits())
    assert (
        quantizer.scale_cost(NODES)
        <= 8 * quantizer.freeze().scale_bytes(NODES)
        < (quantizer.scale_cost(NODES) + 3 * 8)
    )


def test_local_gradient_is_the_papers() -> None:
    """``dE/ds`` and ``dE/db`` of ``E_i = mean_j |x_q - x|``, by A2Q's formulas."""
    x = torch.randn(NODES, COLS) * 3
    step = (torch.rand(NODES, 1) + 0.3).requires_grad_()
    bits = torch.randint(2, 4, (NODES, 1)).float().requires_grad_()
    top = torch.exp2(bits) - 1
    zero = top / 2
    norm = x.abs().mean()
    loss = local_error(x, step, zero, top) * norm
    g_step, g_bits = torch.autograd.grad(loss, (step, bits))
    with torch.no_grad():
        u = x / step
        outside = (u + zero > top) | (u + zero < 0)
        integer = torch.round(u + zero).clamp_min(0).minimum(top) - zero
        error = integer * step - x
        end = x.sign() * (torch.exp2(bits) - 1) / 2
        by_step = error.sign() * torch.where(outside, end, integer - u)
        by_bits = error.sign() * torch.where(
            outside, x.sign() * torch.exp2(bits - 1) * math.log(2) * step, 0.0
        )
        count = NODES * COLS
        torch.testing.assert_close(loss, error.abs().mean())
        torch.testing.assert_close(g_step, by_step.sum(1, keepdim=True) / count)
        torch.testing.assert_close(g_bits, by_bits.sum(1, keepdim=True) / count)


def test_task_gradients_are_those_of_the_clamped_line() -> None:
    """Straight-through: the gradient of ``clamp(x / s + z, 0, top)``, rounding left out."""
    x, step = torch.randn(6, 5, dtype=torch.float64) * 3, torch.rand(6, 1).double() + 0.3
    column, zero = torch.rand(5).double() + 0.5, torch.rand(6, 1).double()
    top = torch.tensor([[1.0], [3.0]] * 3).double()
    inputs = [t.requires_grad_() for t in (x, column, step, zero, top)]
    up = torch.randn(6, 5).double()
    found = torch.autograd.grad(RowFakeQuantize.apply(*inputs), inputs, up)
    line = (x / (column * step) + zero).clamp_min(0).minimum(top)
    for one, other in zip(found, torch.autograd.grad(line, inputs, up), strict=True):
        torch.testing.assert_close(one, other)


def test_values_outside_the_range_get_no_gradient() -> None:
    x = torch.tensor([[0.1, 0.2, 50.0]], requires_grad=True)
    quantizer = NodeQuantizer(3).train()
    quantizer(torch.tensor([[0.1, 0.2, 0.5]]))
    quantizer(x).dequantize().sum().backward()
    assert x.grad is not None and x.grad[0, 2] == 0 and (x.grad[0, :2] > 0).all()


def test_the_task_reaches_ranges_only_where_it_should() -> None:
    x = torch.randn(NODES, COLS, requires_grad=True)
    for gradient, reached in (("local", False), ("task", True), ("auto", False)):
        quantizer = NodeQuantizer(3, gradient=gradient).train()
        quantizer(x).dequantize().square().sum().backward()
        assert (quantizer.log_range.grad is not None) == reached, gradient


def test_a_price_lowers_widths_and_ranges_stay_positive() -> None:
    x = torch.randn(NODES, COLS)
    quantizer = NodeQuantizer(6)
    trained(quantizer, x, steps=40, price=1e3)
    assert quantizer.mean_bits() == 1.0
    codes = quantizer(x)
    assert (codes.scale > 0).all() and set(codes.codes.unique().tolist()) <= {0.0, 1.0}
    free = NodeQuantizer(2)
    trained(free, x, steps=40, price=0.0)
    assert free.mean_bits() > 4  # a wider code is always nearer


def test_scales_come_from_the_table() -> None:
    x = torch.rand(NODES, COLS) * torch.logspace(-3, 3, NODES).view(-1, 1)
    quantizer = NodeQuantizer(4, scale_bits=5)
    trained(quantizer, x)
    step = quantizer(x).scale.view(-1)
    table = quantizer.scale_table()
    assert table.numel() == 32
    assert all((table == s).any() for s in step)
    torch.testing.assert_close(table[1:] / table[:-1], torch.full((31,), 2**0.5))


def test_rows_of_batches_find_the_nearest_range() -> None:
    batch = torch.zeros(NODES, dtype=torch.int64)
    quantizer = NodeQuantizer(4, groups=7)
    x = torch.rand(NODES, COLS) * torch.rand(NODES, 1)
    with graph_scope(batch=batch):
        quantizer.train()
        out = quantizer(x)
        assert quantizer.num_rows == 7 and quantizer._local() is False
        out.dequantize().sum().backward()
        quantizer.width.data.uniform_(1, 8)
        quantizer.eval()
        other = torch.rand(50, COLS)
        with torch.no_grad():
            codes = quantizer(other)
    largest, limits = other.amax(1), torch.exp2(quantizer.log_range.detach())
    nearest = (largest.view(-1, 1) - limits).abs().argmin(1)
    expected = quantizer.rounded_widths()[nearest]
    rows, values = packed_values(quantizer, other)
    assert isinstance(quantizer.freeze(), NearestRows)
    assert torch.equal(rows.layout.widths.float(), expected)
    assert torch.equal(values, codes.dequantize())
    # The task's gradient of a group is the sum over the rows that chose it.
    assert quantizer.log_range.grad is not None and quantizer.log_range.grad.count_nonzero() > 1


def test_messages_of_batches() -> None:
    quantizer = NodeMessageQuantizer(COLS, 4, groups=5)
    with graph_scope(batch=torch.zeros(NODES, dtype=torch.int64)):
        quantizer.train()
        quantizer(torch.randn(NODES, COLS))
        quantizer.width.data.uniform_(1, 6)
        quantizer.eval()
        other = torch.randn(60, COLS) * 2
        with torch.no_grad():
            codes = quantizer(other)
    rows, values = packed_values(quantizer, other)
    assert torch.equal(values, codes.dequantize())
    assert rows.affine.shift is not None
    assert int((rows.layout.widths + rows.affine.shift).max()) <= 8


@pytest.mark.parametrize(
    "make",
    (
        lambda f: NodeQuantizer(4, fallback=f),
        lambda f: NodeMessageQuantizer(COLS, 4, fallback=f),
        lambda f: RawNodeQuantizer(3, fallback=f),
    ),
)
def test_other_graphs(make) -> None:  # type: ignore[no-untyped-def]
    index = edges()
    with graph_scope(graph=as_graph(index, NODES, NODES)):
        for fallback in (False, True):
            quantizer = make(fallback).train()
            x = torch.randn(NODES, COLS)
            quantizer(x)
            quantizer.eval()
            with torch.no_grad():
                assert torch.equal(packed_values(quantizer, x)[1], quantizer(x).dequantize())
            other = torch.randn(31, COLS)
            if fallback:
                with torch.no_grad():
                    found: Codes = quantizer(other)
                assert torch.equal(packed_values(quantizer, other)[1], found.dequantize())
                continue
            for attempt in (quantizer, quantizer.freeze().pack):
                with pytest.raises(GraphMismatchError, match=rf"{NODES}.* (got 31|31 nodes)"):
                    attempt(other)


@pytest.mark.parametrize(
    "make",
    (lambda: NodeQuantizer(), lambda: NodeMessageQuantizer(COLS), lambda: RawNodeQuantizer(2)),
)
def test_states(make) -> None:  # type: ignore[no-untyped-def]
    x = torch.rand(NODES, COLS)
    quantizer = make()
    with pytest.raises(NotCalibratedError):
        quantizer.eval()(x)
    with pytest.raises(NonFiniteError):
        quantizer.train()(torch.full((2, COLS), torch.nan))
    quantizer(x)
    fresh = make()
    fresh.load_state_dict(quantizer.state_dict())
    for other in (fresh, copy.deepcopy(quantizer)):
        assert torch.equal(other.eval()(x).dequantize(), quantizer.eval()(x).dequantize())
    quantizer.reset()
    with pytest.raises(NotCalibratedError):
        quantizer.eval()(x)


def test_raw_rows_take_the_bits_they_need() -> None:
    x = torch.zeros(4, 40)
    x[0, :7] = 1 / 7  # two values: exact at one bit
    x[1] = (torch.arange(40) % 16).float()  # sixteen: exact at four
    x[2] = torch.rand(40)
    quantizer = RawNodeQuantizer(8.0).train()
    codes = quantizer(x)
    assert quantizer.widths.tolist()[:2] == [1, 4] and int(quantizer.widths[3]) == 1
    torch.testing.assert_close(codes.dequantize()[:2], x[:2], rtol=0, atol=1e-6)
    assert quantizer(x) is codes  # a constant is quantized once
    rows = quantizer.freeze()
    assert isinstance(rows, PerNodeRows)
    assert torch.equal(rows.pack(x).dequantize(), codes.dequantize())


@pytest.mark.parametrize("limit", (1.0, 2.5, 4.0))
def test_raw_widths_keep_to_the_mean_at_equal_error(limit: float) -> None:
    x = torch.randn(200, 30) * torch.logspace(-2, 1, 200).view(-1, 1)
    error, _ = width_table(x, True)
    widths = widths_within(error, limit)
    assert float(widths.float().mean()) <= limit
    if limit > 1:
        assert float(widths.float().mean()) > limit - 0.05
        assert widths[-50:].float().mean() > widths[:50].float().mean() + 1
