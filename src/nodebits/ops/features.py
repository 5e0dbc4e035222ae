"""One pass over raw features: extents, signs, and sparse codes where most values are zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, check_bits, unsigned_qparams
from nodebits.core.sparse_rows import SparseRows
from nodebits.ops import checks, reference
from nodebits.ops.backend import compiled


@dataclass(frozen=True)
class FeatureScan:
    """What a scan found.

    Attributes:
        extent: float32 ``[N]``, largest magnitude per row.
        finite: Whether all values are.
        negative: Whether a value is below zero.
        sparse: The rows as sparse codes with the scale ``extent / (2^bits - 1)``; None where more
            values are not zero than were asked for, or one is negative or not finite.
    """

    extent: Tensor
    finite: bool
    negative: bool
    sparse: SparseRows | None


def scan_features(x: Tensor, bits: int, share: float) -> FeatureScan:
    """Reads a feature matrix once.

    Args:
        x: float32 ``[N, K]``.
        bits: Width of the codes, 1 to 8.
        share: Largest share of values that may be other than zero; 0 asks for no sparse rows.

    Returns:
        Extents, signs, and sparse rows.
    """
    check_bits(bits)
    x = checks.tensor(x, "x", torch.float32, 2)
    kernels = compiled() if x.device.type == "cpu" else None
    if kernels is None:
        return _reference(x, bits, share)
    rows = x.size(0)
    # Blocks of rows fill equal shares: twice the room, so that uneven rows are no reason to stop.
    room = int(2 * share * x.numel()) + 64 * x.size(1) if share > 0 else 0
    extent = x.new_empty(rows)
    counts = torch.empty(rows, dtype=torch.int64)
    first, sums = (torch.empty(rows, dtype=torch.int32) for _ in range(2))
    indices, codes = torch.empty(room, dtype=torch.int32), torch.empty(room, dtype=torch.uint8)
    found, negative, mixed = kernels.scan(
        x, bits, MIN_SCALE, extent, counts, first, sums, indices, codes, torch.get_num_threads()
    )
    finite = bool(extent.isfinite().all())
    if not finite or negative or found < 0 or share <= 0 or found > share * x.numel():
        return FeatureScan(extent, finite, negative, None)
    indptr = torch.zeros(rows + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=indptr[1:])
    kept = codes[:found].clone() if mixed else None
    scale = unsigned_qparams(extent, bits)[0]
    sparse = SparseRows(indptr, indices[:found].clone(), kept, first, sums, scale, bits, x.size(1))
    return FeatureScan(extent, finite, negative, sparse)


def _reference(x: Tensor, bits: int, share: float) -> FeatureScan:
    extent = x.abs().amax(1) if x.size(1) else x.new_zeros(x.size(0))
    negative = bool((x < 0).any())
    present = x != 0
    finite = bool(extent.isfinite().all())
    if not finite or negative or share <= 0 or int(present.sum()) > share * x.numel():
        return FeatureScan(extent, finite, negative, None)
    scale = unsigned_qparams(extent, bits)[0]
    zero = torch.zeros_like(scale)
    dense = reference.fake_quantize(x, scale, zero, 0, bits).to(torch.int32)
    rows, cols = present.nonzero(as_tuple=True)
    codes = dense[rows, cols]
    indptr = torch.cat([rows.new_zeros(1), present.sum(1).cumsum(0)])
    first = torch.zeros(x.size(0), dtype=torch.int32, device=x.device)
    filled = indptr.diff() > 0
    first[filled] = codes[indptr[:-1][filled]]
    mixed = bool((codes != first[rows]).any())
    sums = dense.sum(1, dtype=torch.int32)
    kept = codes.to(torch.uint8) if mixed else None
    sparse = SparseRows(indptr, cols.int(), kept, first, sums, scale, bits, x.size(1))
    return FeatureScan(extent, finite, negative, sparse)
