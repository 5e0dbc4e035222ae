"""The container refuses parts that do not fit, and reads back what was packed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.packing import pack
from nodebits.core.qtensor import QTensor


def qtensor(bits: int = 3, rows: int = 4, cols: int = 5, **changes: Any) -> QTensor:
    codes = torch.randint(0, 1 << bits, (rows, cols), dtype=torch.uint8)
    parts: dict[str, Any] = {
        "packed": pack(codes, bits),
        "scale": torch.ones(1),
        "zero_point": torch.zeros(1),
        "bits": bits,
        "num_cols": cols,
    }
    return QTensor(**{**parts, **changes})


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_dequantize_by_axis(bits: int, axis: int) -> None:
    length = {-1: 1, 0: 4, 1: 5}[axis]
    scale, zero_point = torch.rand(length) + 0.5, torch.arange(float(length))
    q = qtensor(bits, scale=scale, zero_point=zero_point, axis=axis)
    column = (-1, 1) if axis == 0 else (1, -1)
    expected = (q.codes().float() - zero_point.view(column)) * scale.view(column)
    assert torch.equal(q.dequantize(), expected)
    assert q.shape == (4, 5) and q.num_rows == 4
    assert q.nbytes == q.packed.numel() + 8 * length


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packed": torch.zeros(4, 3, dtype=torch.uint8)}, r"uint8 \[N, 2\].*\[4, 3\]"),
        ({"packed": torch.zeros(4, 2)}, "float32"),
        ({"packed": torch.zeros(8, dtype=torch.uint8)}, r"\[8\]"),
        ({"scale": torch.ones(2)}, "2 values but axis -1 needs 1"),
        ({"scale": torch.ones(4), "axis": 1}, "axis 1 needs 5"),
        ({"axis": 2}, "axis 2"),
        ({"zero_point": torch.zeros(3)}, "zero_point has 3 values"),
    ],
)
def test_parts_must_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        qtensor(**changes)


def test_bits_are_checked() -> None:
    with pytest.raises(BitwidthError, match=r"QTensor\.bits is 9"):
        QTensor(torch.zeros(1, 1, dtype=torch.uint8), torch.ones(1), torch.zeros(1), 9, 1)
