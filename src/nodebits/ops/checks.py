"""Checks at the operator border, shared by the compiled kernels and the reference.

Nothing reaches a kernel that was not compared with everything it is used with: types, layouts and
shapes at every call, indices with the rows they lead to once per tensor (``core/indices.py``), row
pointers by the kernels themselves. Memory that others write to behind torch's back (through numpy,
or ``.data``) between two calls is beyond this: a graph keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.indices import check_within
from nodebits.core.outcomes import noted
from nodebits.core.packing import row_bytes
from nodebits.core.places import check_order
from nodebits.core.row_layout import bucket_bytes

# Sizes are computed in 64 bits: beyond this many columns those of a row of bits could wrap.
MAX_COLUMNS = 1 << 48


def tensor(t: Tensor, name: str, dtype: torch.dtype, dim: int) -> Tensor:
    """Returns ``t`` contiguous and without its graph, if dtype and dimensions are as documented.

    Raises:
        ShapeError: Otherwise.
    """
    if t.dtype != dtype or t.dim() != dim or t.layout != torch.strided:
        layout = "" if t.layout == torch.strided else f" with layout {t.layout}"
        raise ShapeError(
            f"{name} must be a {dim}-dimensional {dtype} tensor, got {t.dtype} "
            f"{list(t.shape)}{layout}"
        )
    return plain(t)


def plain(t: Tensor) -> Tensor:
    """``t`` contiguous, without its graph and with its signs in its values."""
    if t.requires_grad:
        t = t.detach()
    if t.is_neg():  # a view of another tensor's negative
        t = t.resolve_neg()
    return t.contiguous()


def of_rows(t: Tensor, name: str, dtype: torch.dtype, rows: int) -> Tensor:
    """Checks a value per row, ``[rows]``.

    Raises:
        ShapeError: If dtype, dimensions or length are others.
    """
    t = tensor(t, name, dtype, 1)
    if t.numel() != rows:
        raise ShapeError(f"{name} has {t.numel()} values for {rows} rows")
    return t


def flat(t: Tensor, length: int) -> Tensor:
    """``t`` as ``[length]``; itself where nothing is to be done, which small graphs notice."""
    done = t.dim() == 1 and t.numel() == length and t.is_contiguous()
    if done and not t.requires_grad and not t.is_neg():
        return t
    return plain(t.reshape(-1).expand(length))


def ascending(t: Tensor, name: str) -> None:
    """Raises ShapeError unless the values of a vector do not decrease and none is NaN."""
    if noted(lambda: ~(t[:-1] <= t[1:]).all() | t[-1].isnan()):
        return
    values = t.cpu().numpy()
    if not ((values[:-1] <= values[1:]).all() and values[-1] == values[-1]):
        raise ShapeError(f"{name} must not decrease and hold no NaN")


def same_device(*named: tuple[str, Tensor | None]) -> None:
    """Raises ShapeError when tensors live on different devices."""
    first_name, first = named[0]
    assert first is not None
    for name, t in named[1:]:
        if t is not None and t.device != first.device:
            raise ShapeError(
                f"{name} is on {t.device} but {first_name} is on {first.device}: "
                "move both to one device"
            )


def packed_rows(t: Tensor, name: str, bits: int, num_cols: int) -> Tensor:
    """Checks uint8 ``[N, ceil(num_cols * bits / 8)]``.

    Raises:
        BitwidthError: If ``bits`` is not 1 to 8.
        ShapeError: If the shape does not fit.
    """
    check_bits(bits, f"bits of {name}")
    t = tensor(t, name, torch.uint8, 2)
    if not 0 <= num_cols <= MAX_COLUMNS or t.size(1) != row_bytes(num_cols, bits):
        raise ShapeError(
            f"{name} has rows of {t.size(1)} bytes, but {num_cols} columns of {bits} bits take "
            f"{row_bytes(num_cols, bits)}"
        )
    return t


def weight_rows(t: Tensor, bits: int, num_cols: int, midrise: bool) -> Tensor:
    """:func:`packed_rows` of a weight.

    Raises:
        BitwidthError: If midrise values would not fit int8.
    """
    if midrise and bits > 7:
        raise BitwidthError(
            f"w_bits is {bits}: midrise weights have at most 7 bits, since 2c + 1 must fit int8"
        )
    return packed_rows(t, "w_packed", bits, num_cols)


def buckets(order: Tensor, counts: Sequence[int]) -> Tensor:
    """Checks int32 ``order`` ``[N]`` against the rows per width 1 to 8.

    Raises:
        ShapeError: If they do not fit each other, or a row stands in ``order`` twice.
        NodeIndexError: If ``order`` leads outside of the rows.
    """
    order = tensor(order, "order", torch.int32, 1)
    if len(counts) != 8 or min(counts) < 0 or sum(counts) != order.numel():
        raise ShapeError(
            f"counts must hold the rows of each width 1 to 8, {order.numel()} in all, got "
            f"{list(counts)}"
        )
    check_order(order)
    return order


def bucketed(t: Tensor, counts: Sequence[int], num_cols: int) -> Tensor:
    """Checks packed rows of several widths, uint8 ``[bytes]``.

    Raises:
        ShapeError: If the size is not that of the buckets.
    """
    t = tensor(t, "packed", torch.uint8, 1)
    if not 0 <= num_cols <= MAX_COLUMNS or t.numel() != bucket_bytes(counts, num_cols):
        raise ShapeError(
            f"packed has {t.numel()} bytes, but rows of {num_cols} columns in buckets of "
            f"{list(counts)} take {bucket_bytes(counts, max(num_cols, 0))}"
        )
    return t


def parameter(t: Tensor, name: str, axis: int, x: Tensor, may_be_one: bool) -> Tensor:
    """Checks a scale or zero point of ``x`` and returns it flat, expanded to the axis' length.

    Raises:
        ShapeError: If the axis or the number of values is wrong.
    """
    if axis not in (-1, 0, 1):
        raise ShapeError(f"axis must be -1 (tensor), 0 (rows) or 1 (columns), got {axis}")
    if t.dtype != torch.float32 or t.layout != torch.strided:
        raise ShapeError(f"{name} must be float32, got {t.dtype} with layout {t.layout}")
    length = 1 if axis == -1 else x.size(axis)
    flat = t.detach().reshape(-1)
    if flat.numel() == 1 and may_be_one:
        flat = flat.expand(length)
    if flat.numel() != length:
        raise ShapeError(f"{name} has {flat.numel()} values, but axis {axis} of x needs {length}")
    return plain(flat)


def columns(t: Tensor | None, name: str, num_cols: int) -> Tensor | None:
    """Checks an optional float32 ``[num_cols]`` (or one value, expanded).

    Raises:
        ShapeError: If dtype or length is wrong.
    """
    if t is None:
        return None
    dense = t.dtype == torch.float32 and t.layout == torch.strided
    if not dense or t.dim() > 1 or t.numel() not in (1, num_cols):
        raise ShapeError(
            f"{name} must be float32 [{num_cols}] (or one value), got {t.dtype} {list(t.shape)}"
        )
    return _expanded(t, (num_cols,))


def _expanded(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``t`` in this shape; itself where nothing is to be done, which small graphs notice."""
    if t.shape == shape and t.is_contiguous() and not t.requires_grad and not t.is_neg():
        return t
    return plain(t.expand(shape))


def epilogue_columns(
    col_scale: Tensor, col_offset: Tensor | None, bias: Tensor | None, num_cols: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Checks the column factors of ``rescale``.

    Raises:
        ShapeError: If dtype or length of one is wrong.
    """
    scale = columns(col_scale, "col_scale", num_cols)
    assert scale is not None
    return scale, columns(col_offset, "col_offset", num_cols), columns(bias, "bias", num_cols)


def row_factors(
    shape: tuple[int, int], row_offset: Tensor | None, row_scale: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Checks ``[N, H]`` row factors of ``rescale`` and brings both to the same H.

    Raises:
        ShapeError: If a shape does not fit, or H does not divide the columns.
    """
    rows, cols = shape
    heads = 1
    for name, t in (("row_offset", row_offset), ("row_scale", row_scale)):
        if t is None:
            continue
        dense = t.dtype == torch.float32 and t.layout == torch.strided
        if not dense or t.dim() != 2 or t.size(0) != rows or t.size(1) < 1:
            raise ShapeError(f"{name} must be float32 [{rows}, H], got {t.dtype} {list(t.shape)}")
        if t.size(1) != 1:
            if cols % t.size(1) or heads not in (1, t.size(1)):
                raise ShapeError(
                    f"{name} has {t.size(1)} groups, which do not fit {cols} columns"
                    f"{'' if heads == 1 else f' and {heads} groups of row_offset'}"
                )
            heads = t.size(1)
    wide = (rows, heads)
    return (
        None if row_offset is None else _expanded(row_offset, wide),
        None if row_scale is None else _expanded(row_scale, wide),
    )


def csr(indptr: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Checks dtypes and dimensions of a CSR structure.

    Raises:
        ShapeError: If one is wrong.
    """
    indptr = tensor(indptr, "indptr", torch.int64, 1)
    indices = tensor(indices, "indices", torch.int32, 1)
    if indptr.numel() == 0:
        raise ShapeError("indptr is empty: it has one entry more than there are rows")
    same_device(("indptr", indptr), ("indices", indices))
    return indptr, indices


def has_rows(indices: Tensor, table: Tensor, name: str) -> None:
    """Checks that every edge leads to a row of ``table``.

    Raises:
        NodeIndexError: If one does not; the message names it.
    """
    check_within(indices, table.size(0), "indices", name)
