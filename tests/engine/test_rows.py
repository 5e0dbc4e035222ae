"""The container refuses parts that do not fit, and reads back what was packed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.packing import pack, row_bytes
from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.formats.bucketed import Bucketed
from nodebits.engine.rows import Rows


def dense(bits: int = 3, rows: int = 4, cols: int = 5, **changes: Any) -> Rows:
    codes = torch.randint(0, 1 << bits, (rows, cols), dtype=torch.uint8)
    parts: dict[str, Any] = {
        "packed": pack(codes, bits),
        "scale": torch.ones(1),
        "zero_point": torch.zeros(1),
        "bits": bits,
        "num_cols": cols,
    }
    return Rows.dense(**{**parts, **changes})


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_dequantize_by_axis(bits: int, axis: int) -> None:
    length = {-1: 1, 0: 4, 1: 5}[axis]
    scale, zero_point = torch.rand(length) + 0.5, torch.arange(float(length))
    q = dense(bits, scale=scale, zero_point=zero_point, axis=axis)
    column = (-1, 1) if axis == 0 else (1, -1)
    expected = (q.codes().float() - zero_point.view(column)) * scale.view(column)
    assert torch.equal(q.dequantize(), expected)
    assert q.shape == (4, 5) and q.num_rows == 4
    assert q.nbytes == q.data.nbytes + 8 * length


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packed": torch.zeros(4, 3, dtype=torch.uint8)}, r"uint8 \[N, 2\].*\[4, 3\]"),
        ({"packed": torch.zeros(4, 2)}, "float32"),
        ({"packed": torch.zeros(8, dtype=torch.uint8)}, r"\[8\]"),
        ({"scale": torch.ones(2)}, "2 values but axis -1 needs 1"),
        ({"scale": torch.ones(4), "axis": 1}, "axis 1 needs 5"),
        ({"axis": 2}, "axis 2"),
        ({"zero_point": torch.zeros(3)}, "zero_point of rows has 3 values"),
    ],
)
def test_parts_must_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        dense(**changes)


def test_bits_are_checked() -> None:
    with pytest.raises(BitwidthError, match="bits of rows is 9"):
        Rows.dense(torch.zeros(1, 1, dtype=torch.uint8), 9, 1, torch.ones(1), torch.zeros(1))


def bucketed(
    packed: Tensor,
    layout: RowLayout,
    scale: Tensor,
    zeros: Tensor,
    num_cols: int,
    axis: int = 0,
    shift: Tensor | None = None,
) -> Rows:
    return Rows(Bucketed(packed, layout, num_cols), Affine(scale, zeros, axis, shift))


def test_a_row_is_found_where_its_position_says() -> None:
    widths = [3, 1, 8, 3, 1, 3]
    codes = torch.tensor([[i % (1 << w)] * 5 for i, w in enumerate(widths)], dtype=torch.uint8)
    layout = RowLayout.of(torch.tensor(widths))
    packed = [pack(codes[i : i + 1], widths[i]).view(-1) for i in layout.order.tolist()]
    rows = bucketed(torch.cat(packed), layout, torch.ones(6), torch.zeros(8), 5)
    assert torch.equal(rows.codes(), codes)
    start = layout.counts[0] * row_bytes(5, 1) + int(layout.position[3]) * row_bytes(5, 3)
    packed_bytes = torch.cat(packed)
    assert torch.equal(packed_bytes[start : start + row_bytes(5, 3)], pack(codes[3:4], 3).view(-1))
    assert rows.nbytes == (2 * 1 + 3 * 2 + 1 * 5) + 3 + 4 * 6


def test_shifted_codes_stand_for_powers_of_two() -> None:
    widths, shift = torch.tensor([1, 2]), torch.tensor([3, 0], dtype=torch.uint8)
    layout = RowLayout.of(widths)
    codes = torch.tensor([[1, 0], [3, 2]], dtype=torch.uint8)
    packed = torch.cat([pack(codes[:1], 1).view(-1), pack(codes[1:], 2).view(-1)])
    zero = (2.0 ** torch.arange(1, 9) - 1) / 2
    rows = bucketed(packed, layout, torch.tensor([0.5, 2.0]), zero, 2, 1, shift)
    assert rows.dequantize().tolist() == [[2.0, -8.0], [0.75, 1.0]]
    assert rows.affine.row_zero_point(layout).view(-1).tolist() == [4.0, 1.5]
    assert rows.codes().tolist() == [[8, 0], [3, 2]]


def test_parts_of_several_widths_must_fit() -> None:
    layout = RowLayout.of(torch.tensor([1, 8]))
    data = torch.zeros(1 + 3, dtype=torch.uint8)
    one, zeros = torch.ones(1), torch.zeros(8)
    with pytest.raises(ShapeError, match="packed rows must be"):
        bucketed(data[1:], layout, torch.ones(2), zeros, 3)
    with pytest.raises(ShapeError, match="scale of rows has 3"):
        bucketed(data, layout, torch.ones(3), zeros, 3)
    with pytest.raises(ShapeError, match="zero_point of rows has 1"):
        bucketed(data, layout, one, torch.zeros(1), 3, -1)
    shift = torch.tensor([0, 1], dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"width \+ shift"):
        bucketed(data, layout, one, zeros, 3, -1, shift)
    with pytest.raises(ShapeError, match="shared scale"):
        bucketed(data, layout, torch.ones(2), zeros, 3, 0, shift)
