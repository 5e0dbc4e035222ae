"""gemm: exact products of unsigned rows and signed weights at every level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import assert_all_levels_agree, codes, generator, misaligned
from torch import Tensor

import flat
from nodebits import ops


def by_hand(x: Tensor, w: Tensor, bits: int, midrise: bool) -> Tensor:
    signed = w.long()
    signed = torch.where(signed >= 1 << (bits - 1), signed - (1 << bits), signed)
    if midrise:
        signed = 2 * signed + 1
    return (x.long() @ signed.t()).int()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 60),
    st.integers(0, 140),
    st.integers(0, 140),
    st.booleans(),
)
def test_any_shape(x_bits: int, w_bits: int, n: int, k: int, m: int, midrise: bool) -> None:
    midrise = midrise and w_bits < 8
    g = generator(n * 1000 + k)
    x, w = codes(n, k, x_bits, g), codes(m, k, w_bits, g)
    x_packed = misaligned(ops.pack(x, x_bits), 1)
    w_packed = misaligned(ops.pack(w, w_bits), 3)
    out = assert_all_levels_agree(flat.gemm, x_packed, x_bits, k, w_packed, w_bits, midrise)
    assert torch.equal(out, by_hand(x, w, w_bits, midrise))


@pytest.mark.parametrize("k", [511, 1024, 1025, 1433, 3000])
@pytest.mark.parametrize("m", [7, 16, 70])
def test_deep(k: int, m: int) -> None:
    g = generator(k)
    for x_bits, w_bits in ((8, 8), (3, 5), (1, 1)):
        x, w = codes(50, k, x_bits, g), codes(m, k, w_bits, g)
        xp, wp = ops.pack(x, x_bits), ops.pack(w, w_bits)
        out = assert_all_levels_agree(flat.gemm, xp, x_bits, k, wp, w_bits)
        assert torch.equal(out, by_hand(x, w, w_bits, False))


@pytest.mark.parametrize("field", [0x80, 0x7F])
def test_extremes_do_not_saturate(field: int) -> None:
    k = 4096
    x = torch.full((3, k), 255, dtype=torch.uint8)
    w = torch.full((5, k), field, dtype=torch.uint8)
    out = assert_all_levels_agree(flat.gemm, x, 8, k, w, 8)
    assert out.eq(k * 255 * (-128 if field == 0x80 else 127)).all()


def test_one_bit_weights() -> None:
    x = ops.pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 2)
    w = ops.pack(torch.tensor([[0, 1, 1]], dtype=torch.uint8), 1)
    assert flat.gemm(x, 2, 3, w, 1).tolist() == [[-5]]  # fields 0, 1 are 0, -1
    assert flat.gemm(x, 2, 3, w, 1, True).tolist() == [[-4]]  # and +1, -1 in midrise form


def test_bad_input_is_refused() -> None:
    u = torch.zeros(3, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="midrise"):
        flat.gemm(u, 8, 4, u, 8, True)
    with pytest.raises(ValueError, match="bytes"):
        flat.gemm(u, 8, 5, u, 8)
