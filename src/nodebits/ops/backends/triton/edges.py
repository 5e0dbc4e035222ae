"""Values per edge."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.ops.backends.triton.kernels import edges
from nodebits.ops.backends.triton.launch import launch, power_of_two
from nodebits.ops.definitions.edges import EdgeSoftmax
from nodebits.ops.definitions.products import check_indptr


def edge_softmax(given: EdgeSoftmax) -> tuple[Tensor, Tensor]:
    """See the definition. A target's edges are read by one program, however many they are."""
    indptr, indices, score_src, score_dst, negative_slope, bits = given
    check_indptr(indptr, indices.numel())
    num_rows, heads = score_dst.shape
    codes = score_src.new_empty((indices.numel(), heads), dtype=torch.uint8)
    row_sum = score_src.new_empty((num_rows, heads), dtype=torch.int32)
    block = power_of_two(1, heads, 16)
    launch(
        edges.softmax, (num_rows, -(-heads // block)), score_src, indptr, indices, score_src,
        score_dst, codes, row_sum, heads, float(negative_slope), float((1 << bits) - 1),
        EDGES=power_of_two(8, 256 // block, 256), HEADS=block, num_warps=1,
    )  # fmt: skip
    return codes, row_sum
