"""Every kernel on buffers that end, or begin, at a page that may not be touched.

python tests/ops/guard_pages.py ISA          ends by a signal if a kernel leaves its buffers
python tests/ops/guard_pages.py ISA trespass does so on purpose
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import torch
from guard_cases import (
    BITS,
    bucketed_cases,
    edge_cases,
    packed_cases,
    pair_cases,
    row_cases,
    scan_cases,
    sum_cases,
)
from guard_chains import (
    feature_product_cases,
    fused_product_cases,
    fused_sum_cases,
    mixed_product_cases,
    outer_sum_cases,
    propagate_cases,
)
from guarded import PAGE, Case, Guarded, Size, Source
from operator_inputs import generator
from torch import Tensor

from nodebits import ops
from nodebits.ops.backends.cpu import kernels as backend

COLUMNS = (1, 3, 7, 17, 33, 64, 65, 129, 600)
# Rows enough for every kernel to share its work between threads.
SIZES = [*(Size(9, cols, 1 + cols % 2) for cols in COLUMNS), Size(2100, 33, 2), Size(600, 129, 2)]
NO_ARRAYS = {"isa_levels", "isa", "set_isa", "edge_blocks_plan", "edge_blocks_size"}
NO_ARRAYS |= {"bucket_bytes", "fresh_bytes"}


def cases(g: Guarded) -> Iterator[Case]:
    """Calls of every kernel."""
    r = generator()
    for threads in (1, 2):
        yield from edge_cases(Source(g, r), threads)
    for size in SIZES:
        s = Source(g, r)
        yield from row_cases(s, size)
        for bits in BITS:
            for kind in (
                packed_cases,
                bucketed_cases,
                mixed_product_cases,
                feature_product_cases,
                sum_cases,
                pair_cases,
                scan_cases,
                fused_sum_cases,
                outer_sum_cases,
                fused_product_cases,
                propagate_cases,
            ):
                yield from kind(s, size, bits)


def outline(argument: Any) -> Any:
    """The argument with shapes in the place of arrays."""
    if isinstance(argument, Tensor):
        return list(argument.shape)
    return [outline(a) for a in argument] if isinstance(argument, (list, tuple)) else argument


def main() -> None:
    """Runs all cases on one level."""
    isa, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    kernels = backend.compiled()
    with ops.force_isa(isa):
        for at_end in (True, False):
            guarded = Guarded(at_end)
            if rest:
                t = guarded.empty((PAGE,), torch.uint8)
                ctypes.string_at(t.data_ptr() + (PAGE if at_end else -1), 1)
            count = 0
            left = {name for name in dir(kernels) if name[0] != "_"} - NO_ARRAYS
            for name, args in cases(guarded):
                print(name, outline(args), flush=True)
                getattr(kernels, name)(*args)
                left.discard(name)
                count += 1
            if left:
                sys.exit(f"kernels without a case: {sorted(left)}")
    print(f"{count} cases stayed inside their buffers")


if __name__ == "__main__":
    main()
