"""Packed rows with their parameters: a plain container, not a tensor subclass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.core.packing import row_bytes, unpack


@dataclass(frozen=True)
class QTensor:
    """Rows of unsigned codes, packed low bits first.

    Attributes:
        packed: uint8 ``[N, ceil(num_cols * bits / 8)]``.
        scale: float32 ``[1]`` (per tensor), ``[num_cols]`` (per column, ``axis=1``) or ``[N]``
            (per row, ``axis=0``).
        zero_point: float32, ``[1]`` or shaped like ``scale``.
        bits: 1 to 8.
        num_cols: Columns before packing.
        axis: -1, 0 or 1: which axis ``scale`` runs along.
    """

    packed: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: int
    num_cols: int
    axis: int = -1

    def __post_init__(self) -> None:
        """Checks that the parts fit together.

        Raises:
            ShapeError: If a shape or dtype is not as documented.
        """
        check_bits(self.bits, "QTensor.bits")
        expected = row_bytes(self.num_cols, self.bits)
        if (
            self.packed.dtype != torch.uint8
            or self.packed.dim() != 2
            or self.packed.size(1) != expected
        ):
            raise ShapeError(
                f"QTensor.packed must be uint8 [N, {expected}] for {self.num_cols} columns of "
                f"{self.bits} bits, got {self.packed.dtype} {list(self.packed.shape)}"
            )
        length = {-1: 1, 0: self.packed.size(0), 1: self.num_cols}.get(self.axis)
        if length is None or self.scale.numel() != length:
            raise ShapeError(
                f"QTensor.scale has {self.scale.numel()} values but axis {self.axis} needs {length}"
            )
        if self.zero_point.numel() not in (1, length):
            raise ShapeError(
                f"QTensor.zero_point has {self.zero_point.numel()} values, expected 1 or {length}"
            )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.packed.size(0)

    @property
    def shape(self) -> tuple[int, int]:
        """``(num_rows, num_cols)`` of the unpacked matrix."""
        return self.num_rows, self.num_cols

    @property
    def nbytes(self) -> int:
        """Bytes of codes and parameters together."""
        return self.packed.numel() + 4 * (self.scale.numel() + self.zero_point.numel())

    def codes(self) -> Tensor:
        """Returns the uint8 ``[N, num_cols]`` codes."""
        return unpack(self.packed, self.bits, self.num_cols)

    def dequantize(self) -> Tensor:
        """Returns the float32 ``[N, num_cols]`` values ``(codes - zero_point) * scale``."""
        scale, zero_point = self.scale, self.zero_point
        if self.axis == 0:
            scale = scale.view(-1, 1)
            zero_point = zero_point.view(-1, 1)
        return (self.codes().float() - zero_point) * scale
