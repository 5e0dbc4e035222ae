"""Values per edge."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.ops.backends.triton.kernels import edges
from nodebits.ops.backends.triton.launch import launch, sizes_of
from nodebits.ops.definitions.edges import EdgeSoftmax
from nodebits.ops.definitions.products import check_indptr


def edge_softmax(given: EdgeSoftmax) -> tuple[Tensor, Tensor]:
    """See the definition. A target's edges are read by one program, however many they are."""
    indptr, indices, score_src, score_dst, negative_slope, bits = given
    check_indptr(indptr, indices.numel())
    num_rows, heads = score_dst.shape
    codes = score_src.new_empty((indices.numel(), heads), dtype=torch.uint8)
    row_sum = score_src.new_empty((num_rows, heads), dtype=torch.int32)
    sizes = sizes_of("softmax", heads)
    launch(
        edges.softmax, (num_rows, -(-heads // sizes["HEADS"])), score_src, indptr, indices,
        score_src, score_dst, codes, row_sum, heads, float(negative_slope), float((1 << bits) - 1),
        **sizes,
    )  # fmt: skip
    return codes, row_sum
