"""Rows of several widths: where they are, how many bytes they take, what they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodebits.core.bucketed import BucketedRows, RowLayout, pack_widths, unpack_widths
from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.packing import pack, row_bytes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 8), max_size=60), st.integers(0, 40))
def test_bytes_are_the_sum_of_the_rows(widths: list[int], cols: int) -> None:
    layout = RowLayout.of(torch.tensor(widths, dtype=torch.int64))
    assert layout.bytes(cols) == sum(row_bytes(cols, bits) for bits in widths)
    assert layout.mean_bits == pytest.approx(sum(widths) / max(len(widths), 1))
    assert torch.equal(layout.order.sort().values, torch.arange(len(widths)).int())
    by_width = layout.widths[layout.order.long()].int()
    assert torch.equal(by_width, by_width.sort().values)
    # (bucket, row) of a node: its place among the nodes of its width.
    for node, bits in enumerate(widths):
        assert int(layout.position[node]) == widths[:node].count(bits)


@given(st.lists(st.integers(1, 8), max_size=30))
def test_widths_take_three_bits(widths: list[int]) -> None:
    values = torch.tensor(widths, dtype=torch.uint8)
    packed = pack_widths(values)
    assert packed.numel() == (3 * len(widths) + 7) // 8
    assert torch.equal(unpack_widths(packed, len(widths)), values)


def test_a_row_is_found_where_its_position_says() -> None:
    widths = [3, 1, 8, 3, 1, 3]
    codes = torch.tensor([[i % (1 << w)] * 5 for i, w in enumerate(widths)], dtype=torch.uint8)
    layout = RowLayout.of(torch.tensor(widths))
    packed = [pack(codes[i : i + 1], widths[i]).view(-1) for i in layout.order.tolist()]
    rows = BucketedRows(torch.cat(packed), layout, torch.ones(6), torch.zeros(8), 5)
    assert torch.equal(rows.codes(), codes)
    start = layout.counts[0] * row_bytes(5, 1) + int(layout.position[3]) * row_bytes(5, 3)
    assert torch.equal(rows.packed[start : start + row_bytes(5, 3)], pack(codes[3:4], 3).view(-1))
    assert rows.nbytes == (2 * 1 + 3 * 2 + 1 * 5) + 3 + 4 * 6


def test_shifted_codes_stand_for_powers_of_two() -> None:
    widths, shift = torch.tensor([1, 2]), torch.tensor([3, 0], dtype=torch.uint8)
    layout = RowLayout.of(widths)
    codes = torch.tensor([[1, 0], [3, 2]], dtype=torch.uint8)
    packed = torch.cat([pack(codes[:1], 1).view(-1), pack(codes[1:], 2).view(-1)])
    zero = (2.0 ** torch.arange(1, 9) - 1) / 2
    rows = BucketedRows(packed, layout, torch.tensor([0.5, 2.0]), zero, 2, 1, shift)
    assert rows.dequantize().tolist() == [[2.0, -8.0], [0.75, 1.0]]
    assert rows.row_zero_point().view(-1).tolist() == [4.0, 1.5]
    assert rows.max_code == 255


def test_bad_parts_are_refused() -> None:
    with pytest.raises(BitwidthError, match="row 1 is 9"):
        RowLayout.of(torch.tensor([1, 9]))
    with pytest.raises(ShapeError, match=r"\[N\]"):
        RowLayout.of(torch.ones(2, 2))
    layout = RowLayout.of(torch.tensor([1, 8]))
    data = torch.zeros(1 + 3, dtype=torch.uint8)
    one, zeros = torch.ones(1), torch.zeros(8)
    with pytest.raises(ShapeError, match="packed must be"):
        BucketedRows(data[1:], layout, torch.ones(2), zeros, 3)
    with pytest.raises(ShapeError, match="scale has 3"):
        BucketedRows(data, layout, torch.ones(3), zeros, 3)
    with pytest.raises(ShapeError, match="zero_point of BucketedRows has 1"):
        BucketedRows(data, layout, one, torch.zeros(1), 3, -1)
    shift = torch.tensor([0, 1], dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"width \+ shift"):
        BucketedRows(data, layout, one, zeros, 3, -1, shift)
    with pytest.raises(ShapeError, match="shared scale"):
        BucketedRows(data, layout, torch.ones(2), zeros, 3, 0, shift)
