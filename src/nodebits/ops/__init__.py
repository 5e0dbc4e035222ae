"""Operators on packed rows: ``torch.ops.nodebits.*`` with typed entry points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebits.ops import fork as _fork  # noqa: F401  registers what a forked child does
from nodebits.ops import fused as _fused  # noqa: F401  implements the fused operators
from nodebits.ops import schema as _schema  # noqa: F401  defines the operators
from nodebits.ops.backend import (
    available_isas,
    current_isa,
    describe,
    force_isa,
    set_isa,
)
from nodebits.ops.blocks import edge_block_sizes, edge_blocks
from nodebits.ops.cpu import check_indices, validate_csr

__all__ = [
    "available_isas",
    "check_indices",
    "coo_to_csr",
    "current_isa",
    "describe",
    "edge_block_sizes",
    "edge_blocks",
    "edge_softmax",
    "fake_quantize",
    "fake_quantize_backward",
    "force_isa",
    "fused_gemm",
    "fused_gemm_bucketed",
    "fused_spmm",
    "gemm",
    "nearest_group",
    "pack",
    "propagate",
    "quantize_pack",
    "quantize_pack_bucketed",
    "rescale",
    "set_isa",
    "spmm",
    "spmm_weighted",
    "unpack",
    "unpack_bucketed",
    "validate_csr",
]


def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs uint8 codes ``[N, C]`` to ``[N, ceil(C * bits / 8)]``, low bits first."""
    out: Tensor = torch.ops.nodebits.pack.default(codes, bits)
    return out


def unpack(packed: Tensor, bits: int, num_cols: int) -> Tensor:
    """Unpacks ``[N, ceil(num_cols * bits / 8)]`` bytes to uint8 codes ``[N, num_cols]``."""
    out: Tensor = torch.ops.nodebits.unpack.default(packed, bits, num_cols)
    return out


def quantize_pack(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    row_factor: Tensor | None = None,
) -> Tensor:
    """Codes ``clamp(rne(x * row_factor / scale + zero_point), 0, 2^bits - 1)``, packed.

    Args:
        x: float32 ``[N, C]``; NaN becomes code 0.
        scale: float32, 1 value (``axis`` -1), N (0) or C (1).
        zero_point: float32, as many values or one.
        axis: Which axis the scale runs along.
        bits: 1 to 8.
        row_factor: float32 ``[N]``, multiplied first.

    Returns:
        uint8 ``[N, ceil(C * bits / 8)]``.
    """
    out: Tensor = torch.ops.nodebits.quantize_pack.default(
        x, scale, zero_point, axis, bits, row_factor
    )
    return out


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    """The codes of :func:`quantize_pack` (no row factor) as float32 ``[N, C]``."""
    out: Tensor = torch.ops.nodebits.fake_quantize.default(x, scale, zero_point, axis, bits)
    return out


def fake_quantize_backward(
    grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Straight-through gradients of :func:`fake_quantize` for x, scale and zero point.

    Args:
        grad: float32 ``[N, C]``, gradient of the codes.
        x: As in the forward; likewise ``scale``, ``zero_point``, ``axis`` and ``bits``.
        scale: See :func:`quantize_pack`.
        zero_point: See :func:`quantize_pack`.
        axis: See :func:`quantize_pack`.
        bits: See :func:`quantize_pack`.
        mode: 0 stops the gradient outside the range, 1 stops it for scale and zero point only, 2
            stops it at the two end codes as well.

    Returns:
        Gradients shaped like ``x``, ``scale`` and ``zero_point``.
    """
    out: tuple[Tensor, Tensor, Tensor] = torch.ops.nodebits.fake_quantize_backward.default(
        grad, x, scale, zero_point, axis, bits, mode
    )
    return out


def gemm(
    x_packed: Tensor,
    x_bits: int,
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool = False,
) -> Tensor:
    """Integer product of unsigned rows and signed weight rows.

    Args:
        x_packed: uint8 ``[N, ceil(K * x_bits / 8)]``, unsigned fields.
        x_bits: 1 to 8.
        num_cols: K.
        w_packed: uint8 ``[M, ceil(K * w_bits / 8)]``, two's complement fields c.
        w_bits: 1 to 8.
        midrise: The weight is ``2c + 1`` instead of ``c`` (``w_bits`` up to 7).

    Returns:
        int32 ``[N, M]``; exact while it fits int32.
    """
    out: Tensor = torch.ops.nodebits.gemm.default(
        x_packed, x_bits, num_cols, w_packed, w_bits, midrise
    )
    return out


def quantize_pack_bucketed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    widths: Tensor,
    position: Tensor,
    row_factor: Tensor | None = None,
) -> Tensor:
    """:func:`quantize_pack` at a width per row; the layout is :mod:`nodebits.core.bucketed`'s.

    Args:
        x: float32 ``[N, C]``.
        scale: float32, 1 value (``axis`` -1), N (0) or C (1).
        zero_point: float32 ``[8]``, one per width.
        axis: Which axis the scale runs along.
        widths: uint8 ``[N]``, 1 to 8.
        position: int32 ``[N]``, place of every row in the bucket of its width.
        row_factor: float32 ``[N]``, multiplied first.

    Returns:
        uint8 ``[bytes]``: the buckets of widths 1 to 8, one after another.
    """
    out: Tensor = torch.ops.nodebits.quantize_pack_bucketed.default(
        x, scale, zero_point, axis, widths, position, row_factor
    )
    return out


def unpack_bucketed(
    packed: Tensor, order: Tensor, counts: Sequence[int], num_cols: int, shift: Tensor | None = None
) -> Tensor:
    """Codes in node order, uint8 ``[N, num_cols]``, shifted left by ``shift`` uint8 ``[N]``."""
    out: Tensor = torch.ops.nodebits.unpack_bucketed.default(
        packed, order, list(counts), num_cols, shift
    )
    return out


def nearest_group(extent: Tensor, limits: Tensor) -> Tensor:
    """Nearest group of every row, by binary search (A2Q's Nearest Neighbour Strategy).

    Args:
        extent: float32 ``[N]``, finite.
        limits: float32 ``[m]``, ascending, at least one.

    Returns:
        int32 ``[N]``: the position of the nearest limit, the smaller of two as near.
    """
    out: Tensor = torch.ops.nodebits.nearest_group.default(extent, limits)
    return out


def spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    blocks: Tensor | None = None,
) -> Tensor:
    """Sums the codes of each row's neighbours.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``, rows of ``packed``; looked at once per tensor.
        packed: uint8 ``[S, ceil(num_cols * bits / 8)]``.
        bits: 1 to 8.
        num_cols: C.
        blocks: The same edges as :func:`edge_blocks` regrouped them, or None.

    Returns:
        int32 ``[R, C]``.
    """
    out: Tensor = torch.ops.nodebits.spmm.default(indptr, indices, packed, bits, num_cols, blocks)
    return out


def spmm_weighted(
    indptr: Tensor, indices: Tensor, packed: Tensor, bits: int, num_cols: int, weight: Tensor
) -> Tensor:
    """:func:`spmm` with ``weight`` uint8 ``[E, H]``: head h weighs columns ``h * C / H ..``."""
    out: Tensor = torch.ops.nodebits.spmm_weighted.default(
        indptr, indices, packed, bits, num_cols, weight
    )
    return out


def rescale(
    acc: Tensor,
    col_scale: Tensor,
    col_offset: Tensor | None = None,
    row_offset: Tensor | None = None,
    row_scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """``((float(acc) - row_offset * col_offset) * col_scale) * row_scale + bias`` in float32.

    Args:
        acc: int32 ``[N, C]``.
        col_scale: float32 ``[C]``, or one value.
        col_offset: float32 ``[C]`` or one value; None subtracts nothing.
        row_offset: float32 ``[N, H]``, H groups of columns; None stands for 1.
        row_scale: float32 ``[N, H]`` or None.
        bias: float32 ``[C]``, one value or None.

    Returns:
        float32 ``[N, C]``.
    """
    out: Tensor = torch.ops.nodebits.rescale.default(
        acc, col_scale, col_offset, row_offset, row_scale, bias
    )
    return out


def propagate(
    indptr: Tensor,
    indices: Tensor,
    x: Tensor,
    factor: Tensor | None,
    scale: Tensor,
    zero_point: Tensor,
    made_with: Tensor,
    bits: Sequence[int],
    coefficients: Sequence[float],
    laplacian: bool = False,
    teleport: float = 0.1,
    blocks: Tensor | None = None,
) -> Tensor:
    """K steps of APPNP, or of its constrained form, on packed codes.

    A step is ``F_bar = A Q(F) (1 - teleport) + teleport x``; where its coefficient c is not 0,
    ``D = F_bar - F`` and ``F' = F_bar + c A Q(D)``, or ``F_bar + c (D - A Q(D))`` with
    ``laplacian``; else ``F' = F_bar``. ``A`` is the adjacency between two diagonal factors.
    Equal, bit for bit, to the operators called one after another.

    Args:
        indptr: int64 ``[N + 1]`` of a square adjacency.
        indices: int32 ``[E]``.
        x: float32 ``[N, C]``, the first state and the teleport.
        factor: float32 ``[N]`` on both sides of the adjacency, or None.
        scale: float32 ``[S, C]``, one row per neighbour sum, in their order.
        zero_point: float32 ``[S, C]``, for reading codes.
        made_with: float32 ``[S, C]``, the zero point for making them.
        bits: S widths.
        coefficients: K numbers; ``S = K +`` how many of them are not 0.
        laplacian: Which correction.
        teleport: alpha.
        blocks: The same edges as :func:`edge_blocks` regrouped them, or None.

    Returns:
        float32 ``[N, C]``.
    """
    out: Tensor = torch.ops.nodebits.propagate.default(
        indptr,
        indices,
        x,
        factor,
        scale,
        zero_point,
        made_with,
        bits,
        coefficients,
        laplacian,
        teleport,
        blocks,
    )
    return out


def edge_softmax(
    indptr: Tensor,
    indices: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    bits: int,
) -> tuple[Tensor, Tensor]:
    """Integer softmax numerators of every edge and their row sums.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``, trusted.
        score_src: float32 ``[S, H]``.
        score_dst: float32 ``[R, H]``.
        negative_slope: Of the leaky ReLU on ``score_src[j] + score_dst[i]``.
        bits: Width of the codes, 1 to 8.

    Returns:
        Codes uint8 ``[E, H]`` and row sums int32 ``[R, H]``.
    """
    out: tuple[Tensor, Tensor] = torch.ops.nodebits.edge_softmax.default(
        indptr, indices, score_src, score_dst, negative_slope, bits
    )
    return out


def coo_to_csr(row: Tensor, col: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts edges by row, keeping the order within a row.

    Args:
        row: int64 ``[E]`` in ``[0, num_rows)``.
        col: int64 ``[E]``, not negative, below ``2^31 - 1``.
        num_rows: R.

    Returns:
        indptr int64 ``[R + 1]``, indices int32 ``[E]`` and perm int64 ``[E]``, with
        ``indices = col[perm]``.

    Raises:
        NodeIndexError: If an index is out of range; names the edge and the value.
    """
    out: tuple[Tensor, Tensor, Tensor] = torch.ops.nodebits.coo_to_csr.default(row, col, num_rows)
    return out


def fused_spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    blocks: Tensor | None,
    acc_scale: Tensor | None,
    acc_offset: Tensor | None,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    own: Tensor | None,
    own_factor: Tensor | None,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    widths: Sequence[Tensor | None] = (),
    position: Sequence[Tensor | None] = (),
    shift: Sequence[Tensor | None] = (),
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    """A neighbour sum, its epilogue, an optional ReLU, and the quantizers that read the result.

    ``acc = spmm(...) * acc_scale + acc_offset`` in int32, ``y = rescale(acc, ...)``,
    ``y = y + own_factor * ((own_codes - col_offset) * col_scale)``, then one
    ``quantize_pack(y, ...)`` per quantizer. No matrix but the results exists.

    With ``widths`` a quantizer makes rows of several widths: with ``position`` those of
    :func:`quantize_pack_bucketed`, with ``shift`` bytes ``code << shift`` of values over
    ``scale * 2^shift``, which :func:`spmm` sums.

    Args:
        indptr: As in :func:`spmm`; likewise ``indices``, ``packed``, ``bits`` and ``num_cols``.
        indices: See :func:`spmm`.
        packed: See :func:`spmm`.
        bits: See :func:`spmm`.
        num_cols: See :func:`spmm`.
        weight: As in :func:`spmm_weighted`, or None for unit weights.
        blocks: As in :func:`spmm`; not with ``weight``.
        acc_scale: int32 ``[R]`` or None for 1.
        acc_offset: int32 ``[R]`` or None for 0.
        col_scale: As in :func:`rescale`; likewise the next four.
        col_offset: See :func:`rescale`.
        row_offset: See :func:`rescale`.
        row_scale: See :func:`rescale`.
        bias: See :func:`rescale`.
        own: Packed rows ``[R]`` like ``packed``, or None.
        own_factor: float32 ``[1]``, given with ``own``.
        relu: Whether negative values become 0.
        scale: Per quantizer float32 ``[1]`` or ``[C]``; with ``position`` ``[R]``.
        zero_point: Per quantizer, as many values or one; with ``widths`` one per width, ``[8]``.
        out_bits: Per quantizer 1 to 8; not read with ``widths``.
        row_factor: Per quantizer float32 ``[R]``, multiplied first, or None.
        widths: Per quantizer uint8 ``[R]``, 1 to 8, or None; no entries for None in all, likewise
            the next two.
        position: Per quantizer int32 ``[R]``, place of every row in the bucket of its width, or
            None.
        shift: Per quantizer uint8 ``[R]``, ``width + shift <= 8``, or None.
        post_scale: float32 ``[C]`` or None: ``y * post_scale + post_shift``, rounded twice, goes
            to the ReLU (an evaluated batch norm).
        post_shift: float32 ``[C]``, given with ``post_scale``.

    Returns:
        Packed rows per quantizer; the float32 rows ``[R, C]`` alone where there is none.
    """
    out: list[Tensor] = torch.ops.nodebits.fused_spmm.default(
        indptr, indices, packed, bits, num_cols, weight, blocks, acc_scale, acc_offset, col_scale,
        col_offset, row_offset, row_scale, bias, own, own_factor, relu, scale, zero_point, out_bits,
        row_factor, list(widths), list(position), list(shift), post_scale, post_shift,
    )  # fmt: skip
    return out


def fused_gemm(
    x_packed: list[Tensor],
    x_bits: list[int],
    num_cols: list[int],
    w_packed: list[Tensor],
    w_bits: list[int],
    midrise: list[bool],
    col_scale: list[Tensor],
    col_offset: list[Tensor | None],
    row_scale: list[Tensor | None],
    bias: list[Tensor | None],
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    widths: Sequence[Tensor | None] = (),
    position: Sequence[Tensor | None] = (),
    shift: Sequence[Tensor | None] = (),
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    """A sum of products, each with its epilogue, then as :func:`fused_spmm` goes on.

    Args:
        x_packed: Per product, as in :func:`gemm`; likewise the next five.
        x_bits: See :func:`gemm`.
        num_cols: See :func:`gemm`.
        w_packed: See :func:`gemm`.
        w_bits: See :func:`gemm`.
        midrise: See :func:`gemm`.
        col_scale: Per product, as in :func:`rescale`; likewise the next three.
        col_offset: See :func:`rescale`.
        row_scale: float32 ``[N, 1]`` or None.
        bias: See :func:`rescale`.
        relu: See :func:`fused_spmm`; likewise all that follow.
        scale: See :func:`fused_spmm`.
        zero_point: See :func:`fused_spmm`.
        out_bits: See :func:`fused_spmm`.
        row_factor: See :func:`fused_spmm`.
        widths: See :func:`fused_spmm`.
        position: See :func:`fused_spmm`.
        shift: See :func:`fused_spmm`.
        post_scale: See :func:`fused_spmm`.
        post_shift: See :func:`fused_spmm`.

    Returns:
        As :func:`fused_spmm`.
    """
    out: list[Tensor] = torch.ops.nodebits.fused_gemm.default(
        x_packed, x_bits, num_cols, w_packed, w_bits, midrise, col_scale, col_offset, row_scale,
        bias, relu, scale, zero_point, out_bits, row_factor, list(widths), list(position),
        list(shift), post_scale, post_shift,
    )  # fmt: skip
    return out


def fused_gemm_bucketed(
    packed: Tensor,
    order: Tensor,
    counts: Sequence[int],
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    widths: Sequence[Tensor | None] = (),
    position: Sequence[Tensor | None] = (),
    shift: Sequence[Tensor | None] = (),
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    """A product of rows of several widths, then as :func:`fused_spmm` goes on, in node order.

    Args:
        packed: As made by :func:`quantize_pack_bucketed`.
        order: int32 ``[N]``, rows sorted by width and position.
        counts: Rows of each width 1 to 8.
        num_cols: As in :func:`gemm`; likewise the next three.
        w_packed: See :func:`gemm`.
        w_bits: See :func:`gemm`.
        midrise: See :func:`gemm`.
        col_scale: As in :func:`rescale`; likewise the next four.
        col_offset: See :func:`rescale`.
        row_offset: float32 ``[N, 1]`` or None.
        row_scale: float32 ``[N, 1]`` or None.
        bias: See :func:`rescale`.
        relu: See :func:`fused_spmm`; likewise all that follow.
        scale: See :func:`fused_spmm`.
        zero_point: See :func:`fused_spmm`.
        out_bits: See :func:`fused_spmm`.
        row_factor: See :func:`fused_spmm`.
        widths: See :func:`fused_spmm`.
        position: See :func:`fused_spmm`.
        shift: See :func:`fused_spmm`.
        post_scale: See :func:`fused_spmm`.
        post_shift: See :func:`fused_spmm`.

    Returns:
        As :func:`fused_spmm`.
    """
    out: list[Tensor] = torch.ops.nodebits.fused_gemm_bucketed.default(
        packed, order, list(counts), num_cols, w_packed, w_bits, midrise, col_scale, col_offset,
        row_offset, row_scale, bias, relu, scale, zero_point, out_bits, row_factor, list(widths),
        list(position), list(shift), post_scale, post_shift,
    )  # fmt: skip
    return out
