"""Packing of b-bit codes into bytes, in torch: the definition that every compiled kernel equals.

A row of ``C`` codes of ``b`` bits is one little-endian bit string: code ``j`` takes bits ``j * b``
to ``j * b + b - 1``, bit ``i`` of the string is bit ``i % 8`` of byte ``i // 8``. A row starts on a
byte boundary and takes ``ceil(C * b / 8)`` bytes; the padding bits are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError


def row_bytes(num_cols: int, bits: int) -> int:
    """Bytes of one packed row of ``num_cols`` codes of ``bits`` bits."""
    return (num_cols * bits + 7) // 8


def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs codes, low bits first.

    Args:
        codes: uint8 ``[N, C]``; bits above the lowest ``bits`` of a code are dropped.
        bits: 1 to 8.

    Returns:
        uint8 ``[N, ceil(C * bits / 8)]``.
    """
    num_rows, num_cols = codes.shape
    if bits == 8:
        return codes.clone(memory_format=torch.contiguous_format)
    # Eight codes fill exactly `bits` bytes: work on groups of eight columns, zero-padded.
    width = row_bytes(num_cols, bits)
    groups = (num_cols + 7) // 8
    padded = codes.new_zeros((num_rows, groups * 8))
    padded[:, :num_cols] = codes
    shifts = torch.arange(bits, device=codes.device, dtype=torch.uint8)
    stream = (padded.unsqueeze(-1) >> shifts) & 1
    places = torch.arange(8, device=codes.device, dtype=torch.uint8)
    packed = (stream.view(num_rows, groups * bits, 8) << places).sum(dim=-1, dtype=torch.uint8)
    return packed[:, :width].contiguous()


def unpack(packed: Tensor, bits: int, num_cols: int) -> Tensor:
    """Unpacks rows of packed codes.

    Args:
        packed: uint8 ``[N, ceil(num_cols * bits / 8)]``.
        bits: 1 to 8.
        num_cols: Codes per row.

    Returns:
        uint8 ``[N, num_cols]``.

    Raises:
        ShapeError: If ``packed`` has not as many bytes per row, before anything is allocated.
    """
    if packed.dim() != 2 or packed.size(1) != row_bytes(num_cols, bits):
        raise ShapeError(
            f"packed has shape {list(packed.shape)}, but rows of {num_cols} columns of {bits} bits "
            f"take {row_bytes(num_cols, bits)} bytes"
        )
    num_rows = packed.size(0)
    if bits == 8:
        return packed.clone(memory_format=torch.contiguous_format)
    groups = (num_cols + 7) // 8
    padded = packed.new_zeros((num_rows, groups * bits))
    padded[:, : packed.size(1)] = packed
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    stream = ((padded.unsqueeze(-1) >> places) & 1).view(num_rows, groups * 8, bits)
    shifts = torch.arange(bits, device=packed.device, dtype=torch.uint8)
    codes = (stream << shifts).sum(dim=-1, dtype=torch.uint8)
    return codes[:, :num_cols].contiguous()
