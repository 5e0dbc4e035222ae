"""How a fused operator goes on from its float rows: affine, activation, quantizers, results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.core.packing import row_bytes
from nodebits.core.places import check_places, check_shifts
from nodebits.ops import checks

Optionals = list[Tensor | None]

_OWN_PAGES = 4 << 20  # bytes
_WORTH_PAGES = 64  # edges of a row, or columns of a product / 4


class Finish(NamedTuple):
    """How a fused operator goes on; the last arguments of all of them."""

    relu: bool
    scale: list[Tensor]
    zero_point: list[Tensor]
    out_bits: list[int]
    row_factor: Optionals
    widths: Optionals
    position: Optionals
    shift: Optionals
    post_scale: Tensor | None = None
    post_shift: Tensor | None = None

    def tensors(self) -> Iterator[tuple[str, Tensor | None]]:
        """All tensors, for the check of their device."""
        for part in (self.scale, self.zero_point, self.row_factor, *self[5:8], self[8:]):
            yield from (("an argument", t) for t in part)


def check_finish(rows: int, cols: int, *given: Any) -> Finish:
    """Checks the last arguments of a fused operator against its result ``[rows, cols]``.

    Raises:
        ShapeError: If one does not fit; the message names it.
        BitwidthError: If a width is not 1 to 8.
    """
    finish = Finish(*given)
    n = len(finish.out_bits)
    # No entries stand for None in all.
    none: Optionals = [None] * n
    finish = finish._replace(
        widths=finish.widths or none, position=finish.position or none, shift=finish.shift or none
    )
    if any(len(part) != n for part in finish[1:8]):
        raise ShapeError(
            "scale, zero_point, out_bits and row_factor (and widths, position and shift, where "
            f"there are some) need one entry per result, got {[len(p) for p in finish[1:8]]}"
        )
    scales, zeros, factors = [], [], []
    widths, positions, shifts = [], [], []
    for s, z, bits, factor, width, position, shift in zip(*finish[1:8], strict=True):
        check_bits(bits, "out_bits")
        per_row = position is not None
        if (width is None and (per_row or shift is not None)) or (
            width is not None and per_row == (shift is not None)
        ):
            raise ShapeError("rows of several widths have widths and either a position or a shift")
        length = rows if per_row else 1 if s.numel() == 1 else cols
        zero_points = 8 if width is not None else length
        for name, t, least, most in (
            ("scale", s, length, length),
            ("zero_point", z, 8 if width is not None else 1, zero_points),
        ):
            dense = t.dtype == torch.float32 and t.layout == torch.strided
            if not dense or t.numel() not in (least, most):
                raise ShapeError(
                    f"{name} of a result must be float32 [{most}]"
                    f"{'' if least == most else ' or one value'}, got {t.dtype} {list(t.shape)}"
                )
        scales.append(_flat(s, length))
        zeros.append(_flat(z, zero_points))
        factors.append(of_rows(factor, "row_factor", torch.float32, rows))
        widths.append(of_rows(width, "widths", torch.uint8, rows))
        positions.append(of_rows(position, "position", torch.int32, rows))
        shifts.append(of_rows(shift, "shift", torch.uint8, rows))
        if widths[-1] is not None and positions[-1] is not None:
            check_places(widths[-1], positions[-1])
        if widths[-1] is not None and shifts[-1] is not None:
            check_shifts(widths[-1], shifts[-1])
    made = (scales, zeros, finish.out_bits, factors, widths, positions, shifts)
    return Finish(finish.relu, *made, *_affine(cols, finish.post_scale, finish.post_shift))


def _affine(
    cols: int, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    if scale is None and shift is None:
        return None, None
    if scale is None or shift is None:
        raise ShapeError("post_scale and post_shift come together")
    for name, t in (("post_scale", scale), ("post_shift", shift)):
        dense = t.dtype == torch.float32 and t.layout == torch.strided
        if not dense or tuple(t.shape) != (cols,):
            raise ShapeError(f"{name} must be float32 [{cols}], got {t.dtype} {list(t.shape)}")
    return _flat(scale, cols), _flat(shift, cols)


def _flat(t: Tensor, length: int) -> Tensor:
    """``t`` as ``[length]``; itself where nothing is to be done, which small graphs notice."""
    flat = t.dim() == 1 and t.numel() == length and t.is_contiguous()
    if flat and not t.requires_grad and not t.is_neg():
        return t
    return checks.plain(t.reshape(-1).expand(length))


def outputs(
    rows: int, cols: int, like: Tensor, finish: Finish, kernels: Any, work: float
) -> list[Tensor]:
    """Uninitialised results; ``work`` is what a row takes: its edges, or a fourth of its columns.

    Large ones that take long to compute lie on pages of their own, which leave the process with
    them: a heap would keep them, and a forward on a large graph would hold all it ever held. Where
    there is less to do, pages that the system clears anew in every call would be felt.
    """
    pages = work >= _WORTH_PAGES

    def fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        if pages and size >= _OWN_PAGES:
            memory = kernels.fresh_bytes(size)
            if memory is not None:
                return from_dlpack(memory).view(dtype).view(shape)
        return like.new_empty(shape, dtype=dtype)

    if not finish.out_bits:
        return [fresh((rows, cols), torch.float32)]
    out = []
    for bits, widths, position in zip(finish.out_bits, finish.widths, finish.position, strict=True):
        if widths is None:
            out.append(fresh((rows, row_bytes(cols, bits)), torch.uint8))
        elif position is None:
            out.append(fresh((rows, cols), torch.uint8))
        else:
            out.append(fresh((kernels.bucket_bytes(widths, cols),), torch.uint8))
    return out


def of_rows(t: Tensor | None, name: str, dtype: torch.dtype, rows: int) -> Tensor | None:
    """:func:`nodebits.ops.checks.of_rows` of what may be missing."""
    return None if t is None else checks.of_rows(t, name, dtype, rows)
