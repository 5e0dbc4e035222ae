"""Compiles, for cards that are not here, the kernels that the sample calls of all operators start.

Run as a program, since kernels that are interpreted cannot be compiled in the same process. Prints
JSON: by kernel, how many forms were compiled, and the instructions that round in another way than
the definitions do.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from typing import Any

import torch
import triton
from operator_calls import calls
from triton.backends.compiler import GPUTarget

from nodebits.ops.backends.triton import (
    attention,
    edges,
    gates,
    host,
    launch,
    mixed,
    pairs,
    products,
    reduce,
    rows,
    sums,
    training,
)
from nodebits.ops.backends.triton import calls as kernels

LAUNCHING = (
    attention, edges, gates, launch, mixed, pairs, products, reduce, rows, sums, training,
)  # fmt: skip

# Fused products and sums, and divisions that are not rounded to nearest.
_OTHER_ROUNDING = re.compile(r"\b(?:fma\.\w+(?:\.\w+)?\.f32|div\.(?:full|approx)\S*|\w+\.ftz\S*)")


class _Card:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def main() -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capability", type=int, help="such as 90")
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--fuse", action="store_true", help="as no kernel is started")
    asked = parser.parse_args()
    triton.runtime.driver.set_active(_Card(asked.capability))
    seen: dict[int, Any] = {}
    forms: Counter[str] = Counter()
    wrong: set[str] = set()

    def compiled(kernel: Any, grid: Any, like: Any, *args: Any, **sizes: Any) -> None:
        made = kernel.warmup(*args, grid=grid, **sizes, enable_fp_fusion=asked.fuse)
        if id(made) not in seen:
            seen[id(made)] = made
            forms[kernel.fn.__name__] += 1
            wrong.update(_OTHER_ROUNDING.findall(made.asm["ptx"]))

    for module in LAUNCHING:
        module.launch = compiled  # type: ignore[attr-defined]
    for op, args in calls():
        if asked.only not in (None, op.name):
            continue
        op.run(lambda checked, op=op: kernels.call(op, checked), *op.flat(args))
    if asked.only is None:  # no operator: rows in the host's memory, of bytes and of words
        for width in (3, 8):
            host.take_rows(torch.zeros(4, width, dtype=torch.uint8), torch.tensor([2, 0]))
    print(json.dumps({"forms": forms, "other rounding": sorted(wrong)}))


if __name__ == "__main__":
    main()
