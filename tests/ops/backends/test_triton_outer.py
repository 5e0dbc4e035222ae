"""Sums of outer products on the kernels in Triton's language."""

from __future__ import annotations

import pytest
import torch
from on_triton import assert_kernels_agree, epilogue, needs_triton, outputs
from operator_inputs import codes, generator
from outer_inputs import DEGREES, called, given

from nodebits import ops
from nodebits.core.registry import CODINGS
from nodebits.ops import Edges, Epilogue, Other, Output, Sink, Source

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width(bits: int) -> None:
    for i, (cols, heads) in enumerate(((1, 1), (7, 3), (16, 5), (33, 2))):
        named = given(cols, heads, bits, placed=i % 2 == 0, plain=i % 3 != 0)
        assert_kernels_agree(ops.fused_outer_sum, *called(named, Sink()))


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("plain", (False, True))
def test_what_follows_and_long_rows_in_parts(plain: bool) -> None:
    named, g = given(9, 7, 8, placed=True, plain=plain), generator()
    rows, cols = len(DEGREES), 9 * (7 + plain)
    named["epilogue"] = epilogue(rows, cols, 1, g)
    post = torch.randn(cols, generator=g), torch.randn(cols, generator=g)
    for sink in (Sink(True, outputs(rows, cols, g)), Sink(False, [], *post)):
        assert_kernels_agree(ops.fused_outer_sum, *called(named, sink))


@pytest.mark.parametrize("name", CODINGS.names())
def test_fields_of_other_codings(name: str) -> None:
    coding = CODINGS.get(name)
    bits, named = coding.widths[0], given(8, 3, 8, placed=False, plain=True)
    for what, cols in (("source", 8), ("factors", 3)):
        count = named[what][0].size(0)
        plain = ops.pack(codes(count, cols, bits, generator()).clamp(max=2), bits)
        rows = coding.encode(plain, bits, cols), bits, cols, coding.number
        named[what] = Source(*rows) if what == "source" else Other(*rows)
    assert_kernels_agree(ops.fused_outer_sum, *called(named, Sink()))


def test_nothing_to_sum() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    for rows, cols in ((0, 5), (3, 5), (3, 0), (0, 0)):
        edges = Edges(torch.zeros(rows + 1, dtype=torch.int64), none)
        source = Source(torch.zeros(0, cols, dtype=torch.uint8), 8, cols)
        factors = Other(torch.zeros(0, 2, dtype=torch.uint8), 8, 2)
        zeros = torch.zeros(cols, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
        for sink in (Sink(), Sink(True, [Output(torch.ones(1), torch.zeros(1), 4)])):
            args = edges, source, factors, None, *zeros, True, Epilogue(torch.ones(3 * cols)), sink
            assert_kernels_agree(ops.fused_outer_sum, *args)
