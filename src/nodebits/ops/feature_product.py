"""A product of raw features, which are packed a few rows at a time while they are multiplied."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, check_bits
from nodebits.core.own_scale import OwnScale
from nodebits.ops import checks
from nodebits.ops.backends.cpu.calls import allocate
from nodebits.ops.backends.cpu.kernels import kernels_for
from nodebits.ops.definitions.fused import finished, fused_gemm
from nodebits.ops.features import scan_features
from nodebits.ops.records import Epilogue, Product, Sink, Source, Weight, check_devices


class FeatureProduct(NamedTuple):
    """What :func:`fused_gemm_features` returns.

    Attributes:
        results: As of the fused operators; worth nothing where a flag speaks against them.
        finite: Whether all values are.
        negative: Whether a value is below zero, for which unsigned codes have other scales.
    """

    results: list[Tensor]
    finite: bool
    negative: bool


def fused_gemm_features(
    x: Tensor, own: OwnScale, weight: Weight, epilogue: Epilogue, sink: Sink
) -> FeatureProduct:
    """:func:`nodebits.ops.fused_gemm` of raw features.

    Every row has the scale of :func:`nodebits.ops.features.scan_features`. No operator, since what
    it returns depends on the values.

    Args:
        x: float32 ``[N, K]``.
        own: How rows become codes.
        weight: M rows of K columns.
        epilogue: Without row factors: the rows' scales are one.
        sink: What reads the result.
    """
    check_bits(own.bits, "bits of x")
    x = checks.tensor(x, "x", torch.float32, 2)
    rows, depth = x.shape
    weight = weight.checked(depth)
    cols = weight.w_packed.size(0)
    epilogue, sink = epilogue.checked(rows, cols), sink.checked(rows, cols)
    check_devices([x], weight, epilogue, sink)
    kernels = kernels_for(x)
    if kernels is None:
        scan = scan_features(x, own, 0.0)
        assert scan.packed is not None
        scaled = epilogue._replace(row_scale=scan.scale.view(-1, 1))
        product = Product(Source(scan.packed, own.bits, depth), weight, scaled)
        return FeatureProduct(fused_gemm([product], sink), scan.finite, scan.negative)
    out = [allocate(one, kernels) for one in finished(sink, rows, cols, depth / 4)]
    negative, finite = kernels.fused_gemm_features(
        x, *own, MIN_SCALE, x.new_empty(rows), weight, epilogue, sink, out,
        torch.get_num_threads(),
    )  # fmt: skip
    return FeatureProduct(out, finite, negative)
