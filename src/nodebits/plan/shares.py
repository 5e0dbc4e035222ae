"""Sums over neighbours of some of a row's edges, and what all of these make together.

Integers are added, and codes compared, in any order: a row whose edges lie apart has the bits of
one whose edges lie together.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from nodebits.ops import fused_extremum, fused_spmm, quantize_pack, rescale, spmm
from nodebits.ops.definitions.fused import FusedSpmm, complete, finish
from nodebits.ops.definitions.reduce import FusedExtremum
from nodebits.ops.records import Edges, Epilogue, Sink, Source

# Steps that are made of shares.
MERGED = ("fused_spmm", "spmm", "fused_extremum")
# Places of their arguments: codes of edges, the source's width, columns and coding.
WEIGHT, _SOURCE = 2, slice(5, 8)
# What they read of edges and of neighbours, which an epilogue does not.
_READ = range(5)


def share(step: dict[str, Any], edges: Edges, packed: Tensor) -> Tensor:
    """What some of the edges make of each row.

    Args:
        step: Of a plan, one of ``MERGED``.
        edges: These edges, with their codes where the step reads such.
        packed: The rows that they lead to.

    Returns:
        int32 ``[R, C]`` sums, or uint8 ``[R, C]`` codes of an extremum.
    """
    source = Source(packed, *step["args"][_SOURCE])
    if step["op"] != "fused_extremum":
        return spmm(edges, source)
    # The kernel gives rows after an epilogue: of one that changes nothing, these are the codes.
    same = Epilogue(torch.ones(1, device=packed.device))
    (codes,) = fused_extremum(edges, source, step["args"][8], same, Sink())
    out: Tensor = codes.to(torch.uint8)
    if step["args"][8]:
        return out.masked_fill_((edges.indptr.diff() == 0).view(-1, 1), 255)
    return out


def merge(step: dict[str, Any], into: Tensor, rows: Tensor, other: Tensor) -> None:
    """Adds another share of some rows to what there is of all.

    Args:
        step: Of a plan.
        into: ``[R, C]``, changed.
        rows: int64 ``[r]``, each once.
        other: ``[r, C]``.
    """
    held = into[rows]
    if step["op"] != "fused_extremum":
        into[rows] = held + other
    elif step["args"][8]:
        into[rows] = torch.minimum(held, other)
    else:
        into[rows] = torch.maximum(held, other)


def completed(op: str, args: list[Any], acc: Tensor) -> list[Tensor]:
    """The results of a step, of what all edges make together.

    Args:
        op: Of the step.
        args: Its arguments for these rows; what it reads of edges and neighbours is not looked at.
        acc: From :func:`share` and :func:`merge`.
    """
    if op == "spmm":
        return [acc]
    args = [None if place in _READ else arg for place, arg in enumerate(args)]
    if op == "fused_extremum":
        _, _, _, epilogue, sink = cast(FusedExtremum, fused_extremum.record(*args))
        return finish(rescale(acc.to(torch.int32), epilogue), sink, quantize_pack)
    _, source, own, epilogue, sink = cast(FusedSpmm, fused_spmm.record(*args))
    return complete(acc, source, own, epilogue, sink, rescale, quantize_pack)
