"""Sums of outer products: the same bits on every level, and what they mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_inputs import assert_all_levels_agree, generator
from outer_inputs import DEGREES, called, given
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.ops import Epilogue, Output, Sink


def meant(named: dict[str, Any]) -> Tensor:
    edges, order = named["edges"], named["order"]
    row = torch.repeat_interleave(torch.arange(edges.num_rows), edges.indptr.diff())
    x = (named["u"].long() - named["zero"])[edges.indices]
    f = named["f"].long() - named["factor_zero"]
    f = f if order is None else f[order]
    if named["plain"]:
        f = torch.cat([f, torch.ones_like(f[:, :1])], 1)
    products = (f.unsqueeze(2) * x.unsqueeze(1)).flatten(1)
    return (
        torch.zeros(edges.num_rows, products.size(1)).double().index_add(0, row, products.double())
    )


@pytest.mark.parametrize("bits", range(1, 9))
def test_sums_are_those_of_products(bits: int) -> None:
    # Heads around blocks of 4 and 8, and more than a tile has; columns around those of a block.
    for i, (cols, heads) in enumerate(
        ((1, 1), (7, 3), (8, 4), (16, 5), (17, 9), (33, 2), (64, 12), (3, 131), (260, 67))
    ):
        named = given(cols, heads, bits, placed=i % 2 == 0, plain=i % 3 != 0)
        (out,) = assert_all_levels_agree(ops.fused_outer_sum, *called(named, Sink()))
        expected = meant(named).float() * named["epilogue"].col_scale
        assert torch.equal(out, expected)


def test_results_go_on_to_quantizers() -> None:
    named = given(24, 7, 8, placed=True, plain=True)
    rows = len(DEGREES)
    factor = torch.rand(rows, 1, generator=generator(1))
    named["epilogue"] = named["epilogue"]._replace(row_scale=factor, bias=torch.ones(8 * 24))
    one = torch.full((1,), 300.0)
    sink = Sink(True, [Output(one, torch.full((1,), 3.0), 4), Output(one, torch.ones(1), 8)])
    packed = assert_all_levels_agree(ops.fused_outer_sum, *called(named, sink))
    (floats,) = ops.fused_outer_sum(*called(named, Sink(True)))
    for made, output in zip(packed, sink.outputs, strict=True):
        wanted = ops.quantize_pack(floats, output.scale, output.zero_point, -1, output.out_bits)
        assert torch.equal(made, wanted)


def test_what_does_not_fit_is_refused() -> None:
    named = given(8, 3, 8, placed=False, plain=False)
    few = named["factors"]._replace(other=named["factors"].other[1:])
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"factors": few}, ShapeError, "rows for"),
        ({"order": torch.full_like(named["edges"].indices, 10**6).long()}, NodeIndexError, "order"),
        ({"zero": torch.full((8,), 256, dtype=torch.int32)}, ShapeError, "zero"),
        ({"factor_zero": torch.full((3,), -1, dtype=torch.int32)}, ShapeError, "factor_zero"),
        ({"plain": True}, ShapeError, "24"),
        ({"epilogue": Epilogue(torch.ones(24), None, None, torch.ones(9, 3))}, ShapeError, "row"),
        ({"edges": named["edges"]._replace(weight=torch.ones(1, 1))}, ShapeError, "weights"),
    ]
    for change, error, words in wrong:
        with pytest.raises(error, match=words):
            ops.fused_outer_sum(*called(named | change, Sink()))
