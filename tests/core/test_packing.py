"""The packed layout, against a bit string built in plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodebits.core.packing import pack, row_bytes, unpack


def packed_by_hand(row: list[int], bits: int) -> list[int]:
    string = sum(code << (j * bits) for j, code in enumerate(row))
    return [(string >> (8 * i)) & 255 for i in range((len(row) * bits + 7) // 8)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 40), st.data())
def test_layout_is_the_bit_string(bits: int, cols: int, data: st.DataObject) -> None:
    row = data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=cols, max_size=cols))
    packed = pack(torch.tensor([row], dtype=torch.uint8), bits)
    assert packed.tolist() == [packed_by_hand(row, bits)]
    assert unpack(packed, bits, cols).tolist() == [row]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_empty(bits: int, shape: tuple[int, int]) -> None:
    packed = pack(torch.zeros(shape, dtype=torch.uint8), bits)
    assert packed.shape == (shape[0], row_bytes(shape[1], bits))
    assert unpack(packed, bits, shape[1]).shape == shape


@pytest.mark.parametrize("bits", range(1, 8))
def test_high_bits_are_dropped_and_padding_is_zero(bits: int) -> None:
    packed = pack(torch.full((2, 3), 255, dtype=torch.uint8), bits)
    assert unpack(packed, bits, 3).eq((1 << bits) - 1).all()
    unused = 8 * packed.size(1) - 3 * bits
    assert int(packed[0, -1]) < 1 << (8 - unused)
