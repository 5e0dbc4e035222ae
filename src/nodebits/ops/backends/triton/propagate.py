"""K steps at once: the definition's, with fused sums."""

from __future__ import annotations

from torch import Tensor

from nodebits.ops.backends.triton.rows import quantize_pack
from nodebits.ops.backends.triton.sums import fused_spmm
from nodebits.ops.definitions.fused import FusedSpmm
from nodebits.ops.definitions.propagate import Propagate, run_steps
from nodebits.ops.definitions.rows import QuantizePack
from nodebits.ops.records import Own, Sink, Source


def propagate(given: Propagate) -> Tensor:
    """See the definition."""
    edges, x, factor, rounds, steps = given

    def fused(values: Tensor, i: int) -> Tensor:
        affine = rounds.scale[i], rounds.made_with[i]
        packed = quantize_pack(QuantizePack(values, *affine, 1, rounds.bits[i], factor))
        source = Source(packed, rounds.bits[i], x.size(1))
        epilogue = rounds.epilogue(i, edges, factor)
        return fused_spmm(FusedSpmm(edges, source, Own(), epilogue, Sink()))[0]

    return run_steps(fused, x, steps)
