"""Raw features to codes with one scale per row, in one pass; sparse where most values are zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, check_bits, unsigned_qparams
from nodebits.core.own_scale import OwnScale
from nodebits.core.packing import row_bytes
from nodebits.core.row_layout import RowLayout
from nodebits.ops import checks
from nodebits.ops.backends.cpu.kernels import kernels_for
from nodebits.ops.definitions.mixed import QuantizePackBucketed, quantize_pack_bucketed
from nodebits.ops.definitions.rows import fake_quantize, quantize_pack

# Room for the values that a sample of rows lets expect, times this.
_ROOM = 1.5


class SparseCodes(NamedTuple):
    """The unsigned codes that are not zero.

    Attributes:
        indptr: int64 ``[N + 1]``.
        indices: int32 ``[nnz]``, columns in ascending order within a row.
        codes: uint8 ``[nnz]``, or None where each row has but one code.
        row_code: int32 ``[N]``, that code; the first of the row where ``codes`` is given.
        row_sum: int32 ``[N]``, sum of the row's codes.
    """

    indptr: Tensor
    indices: Tensor
    codes: Tensor | None
    row_code: Tensor
    row_sum: Tensor


@dataclass(frozen=True)
class FeatureScan:
    """What a scan found.

    Attributes:
        finite: Whether all values are.
        negative: Whether a value is below zero.
        scale: float32 ``[N]``, of every row's codes, from its largest magnitude.
        packed: uint8 ``[N, ceil(K * bits / 8)]``, unsigned codes, or symmetric ones where asked
            for; None where the result is sparse.
        sparse: The rows as sparse unsigned codes; None where more values are not zero than were
            asked for, or one is negative or not finite.
    """

    finite: bool
    negative: bool
    scale: Tensor
    packed: Tensor | None
    sparse: SparseCodes | None


def sample_density(x: Tensor) -> float:
    """Share of values other than zero, in some of the rows of ``x`` ``[N, K]``.

    So few that torch counts them on one thread: its pool would go on spinning beside the kernels.
    """
    rows = max(1, min(32, 30_000 // max(1, x.size(1))))
    sample = x[:: max(1, x.size(0) // rows)][:rows]
    return int(sample.count_nonzero()) / max(1, sample.numel())


def scan_features(x: Tensor, own: OwnScale, share: float, density: float = 1.0) -> FeatureScan:
    """Packs a feature matrix with one scale per row, and checks it, in one pass.

    Args:
        x: float32 ``[N, K]``.
        own: How rows become codes. Unsigned ones make negative values 0, with a scale that is
            theirs: see ``negative``.
        share: Largest share of values that may be other than zero in sparse rows; 0 asks for dense
            ones.
        density: What share to expect (:func:`sample_density`): more takes a second pass.
    """
    check_bits(own.bits)
    x = checks.tensor(x, "x", torch.float32, 2)
    if share > 0 and not own.signed:
        most = int(share * x.numel())
        expected = min(most, int(_ROOM * density * x.numel()) + 32 * x.size(1))
        for wanted in sorted({expected, most}):
            scan = _scan(x, own, wanted)
            if scan.sparse is not None or scan.negative or not scan.finite:
                return scan
    return _scan(x, own, None)


def pack_checked(x: Tensor, scale: Tensor, zero_point: Tensor, layout: RowLayout) -> Tensor | None:
    """:func:`nodebits.ops.quantize_pack_bucketed` with one scale per row; None if not all finite.

    Args:
        x: float32 ``[N, K]``.
        scale: float32 ``[N]``.
        zero_point: float32 ``[8]``.
        layout: Of N rows.
    """
    given = QuantizePackBucketed(x, scale, zero_point, 0, layout.widths, layout.position)
    checked = given.checked()
    x = checked.x
    kernels = kernels_for(x)
    if kernels is None:
        return quantize_pack_bucketed(*checked) if bool(x.isfinite().all()) else None
    out = x.new_empty((kernels.bucket_bytes(layout.widths, x.size(1)),), dtype=torch.uint8)
    finite = kernels.quantize_pack_checked(*checked, out, torch.get_num_threads())
    return out if finite else None


def _scan(x: Tensor, own: OwnScale, wanted: int | None) -> FeatureScan:
    """Sparse rows of at most ``wanted`` values, dense ones where it is None."""
    kernels = kernels_for(x)
    if kernels is None:
        return _reference(x, own, wanted)
    rows, cols = x.shape
    # Blocks of rows fill equal shares: twice the room, so that uneven rows are no reason to stop.
    room = 0 if wanted is None else 2 * wanted + 64 * cols
    extent, scale = x.new_empty(rows), x.new_empty(rows)
    counts = x.new_empty(rows, dtype=torch.int64)
    first, sums = (x.new_empty(rows, dtype=torch.int32) for _ in range(2))
    indices, codes = x.new_empty(room, dtype=torch.int32), x.new_empty(room, dtype=torch.uint8)
    packed = (
        x.new_empty(rows, row_bytes(cols, own.bits), dtype=torch.uint8) if wanted is None else None
    )
    found, negative, mixed, finite = kernels.scan(
        x, own.bits, MIN_SCALE, extent, counts, first, sums, indices, codes, packed, scale,
        own.signed, own.trim, torch.get_num_threads(),
    )  # fmt: skip
    if wanted is None or not finite or negative or not 0 <= found <= wanted:
        return FeatureScan(finite, negative, scale, packed, None)
    indptr = x.new_zeros(rows + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=indptr[1:])
    if found < room // 16:  # otherwise a copy costs more than the room
        indices, codes = indices[:found].clone(), codes[:found].clone()
    kept = codes[:found] if mixed else None
    scale = unsigned_qparams(extent, own.bits)[0]
    sparse = SparseCodes(indptr, indices[:found], kept, first, sums)
    return FeatureScan(finite, negative, scale, None, sparse)


def _reference(x: Tensor, own: OwnScale, wanted: int | None) -> FeatureScan:
    bits, finite, negative = own.bits, bool(x.isfinite().all()), bool((x < 0).any())
    scale = own.scale(x.abs())  # as the kernels: negative values have no unsigned codes
    zero_point = torch.full_like(scale, own.zero_point)
    present = x != 0
    if wanted is None:
        packed = quantize_pack(x, scale, zero_point, 0, bits)
        return FeatureScan(finite, negative, scale, packed, None)
    if not finite or negative or int(present.sum()) > wanted:
        return FeatureScan(finite, negative, scale, None, None)
    dense = fake_quantize(x, scale, zero_point, 0, bits).to(torch.int32)
    rows, cols = present.nonzero(as_tuple=True)
    codes = dense[rows, cols]
    indptr = torch.cat([rows.new_zeros(1), present.sum(1).cumsum(0)])
    first = torch.zeros(x.size(0), dtype=torch.int32, device=x.device)
    filled = indptr.diff() > 0
    first[filled] = codes[indptr[:-1][filled]]
    mixed = bool((codes != first[rows]).any())
    sums = dense.sum(1, dtype=torch.int32)
    kept = codes.to(torch.uint8) if mixed else None
    sparse = SparseCodes(indptr, cols.int(), kept, first, sums)
    return FeatureScan(finite, negative, scale, None, sparse)
