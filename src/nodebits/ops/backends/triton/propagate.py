"""K steps at once: the definition's, with fused sums."""

from __future__ import annotations

from torch import Tensor

from nodebits.ops.backends.triton.rows import quantize_pack
from nodebits.ops.backends.triton.sums import fused_spmm
from nodebits.ops.definitions.propagate import Rounds, Steps, run_steps
from nodebits.ops.records import Edges, Own, Sink, Source


def propagate(
    edges: Edges, x: Tensor, factor: Tensor | None, rounds: Rounds, steps: Steps
) -> Tensor:
    """See the definition."""

    def fused(values: Tensor, i: int) -> Tensor:
        affine = rounds.scale[i], rounds.made_with[i]
        packed = quantize_pack(values, *affine, 1, rounds.bits[i], factor)
        source = Source(packed, rounds.bits[i], x.size(1))
        return fused_spmm(edges, source, Own(), rounds.epilogue(i, edges, factor), Sink())[0]

    return run_steps(fused, x, steps)
