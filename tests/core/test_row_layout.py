"""Rows of several widths: where they are, and how many bytes they take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.packing import row_bytes
from nodebits.core.row_layout import RowLayout, pack_widths, unpack_widths


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


def test_bad_widths_are_refused() -> None:
    with pytest.raises(BitwidthError, match="row 1 is 9"):
        RowLayout.of(torch.tensor([1, 9]))
    with pytest.raises(ShapeError, match=r"\[N\]"):
        RowLayout.of(torch.ones(2, 2))
