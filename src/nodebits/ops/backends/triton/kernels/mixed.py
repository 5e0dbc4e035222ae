"""Which width rows get."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def nearest_group(extent, limits, out, num_rows, count, halvings, ROWS: tl.constexpr):
    """Positions of the nearest of ``count`` ascending limits, the smaller of two as near."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    mask = rows < num_rows
    value = tl.load(extent + rows, mask=mask, other=0.0)
    # The first limit that is not below the value lies in [at, end]; of NaN that is the first.
    at = tl.zeros([ROWS], tl.int64)
    end = at + count
    for _ in range(halvings):
        middle = (at + end) // 2
        limit = tl.load(limits + middle, mask=mask & (at < end), other=0.0)
        above = (at < end) & (limit < value)
        end = tl.where(above, end, middle)
        at = tl.where(above, middle + 1, at)
    low = tl.load(limits + tl.maximum(at - 1, 0), mask=mask, other=0.0)
    high = tl.load(limits + tl.minimum(at, count - 1), mask=mask, other=0.0)
    below = (at == count) | ((at > 0) & (value - low <= high - value))
    tl.store(out + rows, (at - below.to(tl.int64)).to(tl.int32), mask=mask)
