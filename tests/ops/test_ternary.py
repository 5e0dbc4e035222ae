"""Ternary rows: two's complement fields of two bits, whose sums are those of -1, 0 and 1."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import DEGREES, assert_all_levels_agree, generator, graph
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import CodingError
from nodebits.core.registry import CODINGS
from nodebits.ops import Edges, Epilogue, Output, Own, Sink, Source

TERNARY = CODINGS.get("ternary")


def _packed(numbers: Tensor) -> Source:
    """Fields written out by hand: the lowest two bits of the numbers themselves."""
    fields = ops.pack((numbers & 0b11).to(torch.uint8), 2)
    return Source(fields, 2, numbers.size(1), TERNARY.number)


def test_fields_are_the_numbers_in_twos_complement() -> None:
    numbers = torch.tensor([[-1, 0, 1, 0, 1, -1, -1]])
    source = _packed(numbers)
    assert source.packed.tolist() == [[0b00_01_00_11, 0b00_11_11_01]]
    assert torch.equal(source.codes().long(), numbers + 1)
    plain = ops.pack((numbers + 1).to(torch.uint8), 2)
    assert torch.equal(TERNARY.encode(plain, 2, 7), source.packed)


@pytest.mark.parametrize("cols", [1, 31, 64, 100, 200])
def test_fused_spmm_sums_minus_one_zero_and_one(cols: int) -> None:
    g = generator(cols)
    numbers = torch.randint(-1, 2, (23, cols), generator=g)
    numbers[:4] = torch.tensor([-1, 1, 0, -1]).view(4, 1)
    indptr, indices = graph(DEGREES, 23, g)
    indices[indptr[-3] : indptr[-2]] = 0  # ten thousand times -1
    expected = torch.zeros(len(DEGREES), cols, dtype=torch.long)
    rows = torch.repeat_interleave(torch.arange(len(DEGREES)), indptr.diff())
    expected.index_add_(0, rows, numbers[indices.long()])
    # Zero point 1: code 0 stands for -1.
    one, degree = torch.ones(1), indptr.diff().float().view(-1, 1)
    args = Edges(indptr, indices), _packed(numbers), Own(), Epilogue(one, one, degree)
    sums = assert_all_levels_agree(ops.fused_spmm, *args, Sink())[0]
    assert torch.equal(sums.long(), expected)
    assert int(sums.min()) == -10_000
    packed = assert_all_levels_agree(
        ops.fused_spmm, *args, Sink(False, [Output(one, torch.tensor([128.0]), 8)])
    )[0]
    assert torch.equal(packed.long(), (expected + 128).clamp(0, 255))


def test_minus_two_is_no_code() -> None:
    numbers = torch.zeros(3, 10, dtype=torch.long)
    numbers[2, 9] = -2
    source = _packed(numbers)
    for isa in ops.available_isas():
        with ops.force_isa(isa), pytest.raises(CodingError, match=r"packed\[2\].*0b10 in column 9"):
            ops.spmm(Edges(*graph([1], 3, generator())), source)
    with pytest.raises(CodingError, match="'ternary', which exists in 2 bits"):
        TERNARY.encode(source.packed, 4, 5)
    with pytest.raises(CodingError, match=r"has the code 0b11 in column 0"):
        TERNARY.encode(torch.full((1, 1), 0b11, dtype=torch.uint8), 2, 1)
