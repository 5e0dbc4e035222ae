"""Operators on rows (pack, quantize, rescale): every level returns the reference's bytes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import COLUMNS, COMPILED, assert_all_levels_agree, codes, generator, misaligned

import flat
from nodebits import ops
from nodebits.core.errors import BitwidthError, NodeIndexError, ShapeError
from nodebits.engine.rows import Rows

BITS = range(1, 9)
SPECIAL = [
    math.nan,
    math.inf,
    -math.inf,
    1e38,
    -1e38,
    1e-45,
    -1e-45,
    0.0,
    -0.0,
    0.5,
    1.5,
    2.5,
    254.5,
]


@pytest.mark.parametrize("bits", BITS)
def test_pack_unpack(bits: int) -> None:
    g = generator()
    for cols in COLUMNS:
        u = misaligned(codes(11, cols, 8, g))
        packed = assert_all_levels_agree(ops.pack, u, bits)
        shifted = misaligned(packed, 3)
        back = assert_all_levels_agree(ops.unpack, shifted, bits, cols)
        assert torch.equal(back, u & ((1 << bits) - 1))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_gathered_rows_are_those_of_the_whole_decoded_matrix(bits: int, axis: int) -> None:
    g = generator(bits)
    for cols in (1, 7, 33, 64, 257, 1100):
        packed = misaligned(ops.pack(codes(9, cols, bits, g), bits))
        n = {-1: 1, 0: 9, 1: cols}[axis]
        scale, zero = torch.rand(n, generator=g) + 0.05, torch.randn(n, generator=g)
        index = torch.randint(0, 9, (40,), generator=g, dtype=torch.int32)
        found = assert_all_levels_agree(
            flat.gather_rows, packed, bits, cols, index, 3, 37, scale, zero, axis
        )
        whole = Rows.dense(packed, bits, cols, scale, zero, axis).dequantize()
        assert torch.equal(found, whole[index[3:37].long()])
    nothing = flat.gather_rows(packed, bits, cols, index, 5, 5, scale, zero, axis)
    assert nothing.shape == (0, cols)


def test_gathered_rows_must_be_there() -> None:
    packed, one = ops.pack(torch.zeros(3, 8, dtype=torch.uint8), 4), torch.ones(1)
    for index in ([0, 3], [-1, 0]):
        wrong = torch.tensor(index, dtype=torch.int32)
        with pytest.raises(NodeIndexError):
            flat.gather_rows(packed, 4, 8, wrong, 0, 2, one, one, -1)
    with pytest.raises(ShapeError, match="no range of 2 rows"):
        flat.gather_rows(packed, 4, 8, torch.zeros(2).int(), 1, 3, one, one, -1)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_quantize(bits: int, axis: int) -> None:
    g = generator(bits)
    for cols in (1, 7, 33, 64, 257, 1100):
        x = torch.randn(9, cols, generator=g) * (1 << bits)
        x.view(-1)[: len(SPECIAL)] = torch.tensor(SPECIAL)[: x.numel()]
        x = misaligned(x)
        n = {-1: 1, 0: 9, 1: cols}[axis]
        scale = torch.rand(n, generator=g) + 0.05
        zero = torch.rand(n, generator=g) * (1 << bits)
        factor = torch.rand(9, generator=g)
        plain = assert_all_levels_agree(ops.quantize_pack, x, scale, zero, axis, bits)
        assert_all_levels_agree(ops.quantize_pack, x, scale, zero, axis, bits, factor)
        floats = assert_all_levels_agree(ops.fake_quantize, x, scale, zero, axis, bits)
        assert torch.equal(ops.unpack(plain, bits, cols).float(), floats)
        assert not floats[x.isnan()].any()


def test_rounding_is_half_to_even_after_the_zero_point() -> None:
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, 3.0, 400.0, -400.0]])
    one = torch.ones(1)
    assert ops.fake_quantize(x, one, 0 * one, -1, 8).tolist() == [[0, 2, 2, 0, 3, 255, 0]]
    assert ops.fake_quantize(x, one, 0.5 * one, -1, 8).tolist() == [[1, 2, 3, 0, 4, 255, 0]]


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_codes_at_the_boundaries(axis: int) -> None:
    """Values within a few units of where the code changes: a division off by one would show."""
    g = generator(axis)
    steps = torch.tensor([-2, -1, 0, 1, 2])
    for exponent in (-126, -60, -41, -39, -20, 0, 20, 39, 41, 60):
        n = {-1: 1, 0: 64, 1: 80}[axis]
        scale = (1 + torch.rand(n, generator=g)) * 2.0**exponent
        zero = torch.where(
            torch.rand(n, generator=g) < 0.5, torch.zeros(n), torch.rand(n, generator=g) * 9
        )
        across = [t.view(-1, 1) if axis == 0 else t for t in (scale, zero)]
        code = torch.randint(-1, 257, (64, 80), generator=g) + 0.5
        middle = ((code - across[1]) * across[0]).float()
        x = (middle.view(torch.int32) + steps[torch.randint(5, (64, 80), generator=g)]).int()
        assert_all_levels_agree(ops.fake_quantize, x.view(torch.float32), scale, zero, axis, 8)


@pytest.mark.parametrize("zero", [1e30, -1e30, 2.0**23, -(2.0**23)])
def test_far_zero_points(zero: float) -> None:
    x = torch.tensor([[-zero, -zero * (1 + 2**-23), 3.0, math.inf, -math.inf, math.nan] * 3])
    for scale in (1.0, 1e-3, 1e-20, 1e20):
        args = (torch.tensor([scale]), torch.tensor([zero]), -1, 8)
        assert_all_levels_agree(ops.quantize_pack, x, *args)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=40),
    st.floats(2.0**-100, 2.0**100, width=32),
    st.floats(-300, 300, width=32),
    st.integers(1, 8),
)
def test_quantize_any_float(values: list[float], scale: float, zero: float, bits: int) -> None:
    x, s, z = torch.tensor([values]), torch.tensor([scale]), torch.tensor([zero])
    assert_all_levels_agree(ops.quantize_pack, x, s, z, -1, bits)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_fake_quantize_backward(axis: int, bits: int, mode: int) -> None:
    g = generator(bits)
    rows, cols = 70, 301
    x = torch.randn(rows, cols, generator=g) * 3
    grad = torch.randn(rows, cols, generator=g)
    n = {-1: 1, 0: rows, 1: cols}[axis]
    scale = torch.rand(n, generator=g) + 0.5
    zero = torch.full((n,), float(1 << (bits - 1)))
    call = ops.fake_quantize_backward
    with ops.force_isa("reference"):
        expected = call(grad, x, scale, zero, axis, bits, mode)
    for isa in COMPILED:
        with ops.force_isa(isa):
            made = call(grad, x, scale, zero, axis, bits, mode)
            torch.set_num_threads(1)
            single = call(grad, x, scale, zero, axis, bits, mode)
            torch.set_num_threads(2)
        for a, b, c in zip(made, expected, single, strict=True):
            assert torch.equal(a, c)
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert expected[1].shape == scale.shape and expected[2].shape == zero.shape


def test_fake_quantize_backward_is_the_derivative_of_the_clipped_line() -> None:
    g = generator()
    x = torch.randn(20, 30, generator=g).requires_grad_()
    s = torch.tensor([0.3], requires_grad=True)
    z = torch.tensor([7.5], requires_grad=True)
    grad = torch.randn(20, 30, generator=g)
    (x / s + z).clamp(0, 15).backward(grad)
    made = ops.fake_quantize_backward(grad, x, s, z, -1, 4, 0)
    for a, b in zip(made, (x.grad, s.grad, z.grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_rescale(heads: int) -> None:
    g = generator(heads)
    for cols in (8, 24, 128, 264):
        acc = torch.randint(-(2**31), 2**31 - 1, (13, cols), generator=g, dtype=torch.int32)
        col = [torch.randn(cols, generator=g) for _ in range(3)]
        row = [torch.randn(13, heads, generator=g) for _ in range(2)]
        for options in range(16):
            chosen = [
                t if options >> i & 1 else None
                for i, t in enumerate((col[1], row[0], row[1], col[2]))
            ]
            assert_all_levels_agree(flat.rescale, acc, col[0], *chosen)
        assert_all_levels_agree(flat.rescale, acc, col[0], col[1], row[0][:, :1], row[1])


def test_rescale_order_of_operations() -> None:
    acc = torch.tensor([[7, -3]], dtype=torch.int32)
    y = flat.rescale(
        acc,
        torch.tensor([0.1, 0.3]),
        torch.tensor([2.0, 5.0]),
        torch.tensor([[1.7]]),
        torch.tensor([[0.9]]),
        torch.tensor([0.01, 0.02]),
    )
    f = torch.tensor
    expected = (acc.float() - f([[1.7]]) * f([2.0, 5.0])) * f([0.1, 0.3]) * f([[0.9]])
    assert torch.equal(y, expected + f([0.01, 0.02]))


def test_empty_shapes() -> None:
    one = torch.ones(1)
    for rows, cols in ((0, 5), (4, 0), (0, 0)):
        for bits in (1, 3, 8):
            x = torch.zeros(rows, cols)
            assert_all_levels_agree(ops.quantize_pack, x, one, one, -1, bits)
            assert_all_levels_agree(ops.fake_quantize, x, one, one, -1, bits)
            u = x.to(torch.uint8)
            assert_all_levels_agree(ops.pack, u, bits)
        acc = torch.zeros(rows, cols, dtype=torch.int32)
        assert_all_levels_agree(flat.rescale, acc, torch.ones(cols))
        grads = ops.fake_quantize_backward(x, x, one, one, -1, 4, 0)
        assert grads[0].shape == x.shape and not grads[1].any()


def test_not_contiguous_inputs() -> None:
    g = generator()
    x = torch.randn(40, 9, generator=g).t()
    u = codes(40, 9, 4, g).t()
    one = torch.ones(1)
    assert torch.equal(ops.pack(u, 4), ops.pack(u.contiguous(), 4))
    made = ops.quantize_pack(x, one, one, -1, 4)
    assert torch.equal(made, ops.quantize_pack(x.contiguous(), one, one, -1, 4))


def test_bad_input_is_refused() -> None:
    u = torch.zeros(3, 4, dtype=torch.uint8)
    x, one = torch.zeros(3, 4), torch.ones(1)
    for bits in (0, 9, -1):
        with pytest.raises(BitwidthError, match="1 to 8"):
            ops.pack(u, bits)
    with pytest.raises(ShapeError, match="uint8"):
        ops.pack(x, 4)
    with pytest.raises(ShapeError, match="bytes"):
        ops.unpack(u, 4, 100)
    with pytest.raises(ShapeError, match="axis"):
        ops.quantize_pack(x, one, one, 2, 4)
    with pytest.raises(ShapeError, match="scale has 1"):
        ops.quantize_pack(x, one, one, 1, 4)
    with pytest.raises(ShapeError, match="row_factor"):
        ops.quantize_pack(x, one, one, -1, 4, one)
    with pytest.raises(ShapeError, match="groups"):
        flat.rescale(u.int(), torch.ones(4), None, torch.ones(3, 3))
    with pytest.raises(ValueError, match="mode"):
        ops.fake_quantize_backward(x, x, one, one, -1, 4, 3)
