"""Operators on rows of every coding: they compute on the codes, on every level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import (
    COMPILED,
    DEGREES,
    assert_all_levels_agree,
    generator,
    graph,
    misaligned,
    same,
)
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import CodingError
from nodebits.core.registry import CODINGS
from nodebits.ops import Edges, Epilogue, Output, Own, Product, Sink, Source, Weight

ALL = [(name, bits) for name in CODINGS.names() for bits in CODINGS.get(name).widths]
every_coding = pytest.mark.parametrize(("name", "bits"), ALL)


def _rows(name: str, bits: int, rows: int, cols: int, seed: int) -> tuple[Source, Source]:
    """Random rows in a coding, and the same codes as unsigned fields."""
    coding = CODINGS.get(name)
    codes = torch.randint(
        0, coding.top(bits) + 1, (rows, cols), generator=generator(seed), dtype=torch.uint8
    )
    plain = ops.pack(codes, bits)
    packed = misaligned(coding.encode(plain, bits, cols), seed % 7)
    return Source(packed, bits, cols, coding.number), Source(plain, bits, cols)


def _agree(op: object, args: tuple[object, ...], plain: tuple[object, ...]) -> None:
    """All levels give what the reference gives for the same codes as unsigned fields."""
    with ops.force_isa("reference"):
        expected = op(*plain)  # type: ignore[operator]
    assert same(assert_all_levels_agree(op, *args), expected)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ALL),
    st.integers(0, 300),
    st.lists(st.integers(0, 40), max_size=12),
    st.integers(0, 2**20),
)
def test_spmm_any_shape(coding: tuple[str, int], cols: int, degrees: list[int], seed: int) -> None:
    coded, plain = _rows(*coding, 7, cols, seed)
    edges = Edges(*graph(degrees, 7, generator(seed)))
    _agree(ops.spmm, (edges, coded), (edges, plain))


@every_coding
def test_spmm_of_many_edges(name: str, bits: int) -> None:
    """Past the ends of narrow lanes, of unit weights, in blocks, and of weighted edges."""
    g = generator(bits)
    indptr, indices = graph([*DEGREES, 40_000], 23, g)
    for cols in (33, 100):
        coded, plain = _rows(name, bits, 23, cols, cols)
        coded.packed[3:9], plain.packed[3:9] = coded.packed[3].clone(), plain.packed[3].clone()
        _agree(ops.spmm, (Edges(indptr, indices), coded), (Edges(indptr, indices), plain))
    blocks = ops.edge_blocks(indptr, indices, 23, (5, 7)) if COMPILED else None
    weight = torch.randint(0, 256, (indices.numel(), 4), generator=g, dtype=torch.uint8)
    for edges in (Edges(indptr, indices, None, blocks), Edges(indptr, indices, weight)):
        _agree(ops.spmm, (edges, coded), (edges, plain))


@every_coding
@pytest.mark.parametrize("cols", [40, 129])
def test_fused_spmm_with_own_rows(name: str, bits: int, cols: int) -> None:
    coded, plain = _rows(name, bits, 19, cols, cols)
    edges = Edges(*graph([0, 3, 1, 17, 0, 255, 4, 30], 19, generator()))
    rows, g = edges.num_rows, generator(1)
    epilogue = Epilogue(
        torch.rand(cols, generator=g), torch.ones(1), edges.indptr.diff().float().view(-1, 1)
    )
    sink = Sink(True, [Output(torch.tensor([0.3]), torch.tensor([1.0]), b) for b in (2, 8)])

    def args(source: Source, to: Sink) -> tuple[object, ...]:
        own = Own(own=source.packed[:rows].contiguous(), own_factor=torch.tensor([1.5]))
        return edges, source, own, epilogue, to

    for to in (Sink(), sink):
        _agree(ops.fused_spmm, args(coded, to), args(plain, to))


@every_coding
def test_products(name: str, bits: int) -> None:
    coded, plain = _rows(name, bits, 70, 45, 3)
    weight = Weight(ops.pack(torch.full((9, 45), 5, dtype=torch.uint8), 4), 4, True)
    _agree(ops.gemm, (coded, weight), (plain, weight))
    epilogue = Epilogue(torch.linspace(0.1, 1.0, 9))

    def products(*sources: Source) -> list[Product]:
        return [Product(source, weight, epilogue) for source in sources]

    both = (products(coded, plain), Sink()), (products(plain, plain), Sink())
    _agree(ops.fused_gemm, *both)


def _calls(source: Source) -> list[tuple[object, tuple[object, ...]]]:
    """Every operator that takes rows of one width."""
    packed, bits = source.packed, source.bits
    edges = Edges(*graph([2, 0, 3], packed.size(0), generator()))
    weight = Weight(torch.zeros(3, packed.size(1), dtype=torch.uint8), bits)
    one, three = Epilogue(torch.ones(1)), Epilogue(torch.ones(3))
    return [
        (ops.spmm, (edges, source)),
        (ops.fused_spmm, (edges, source, Own(), one, Sink())),
        (ops.gemm, (source, weight)),
        (ops.fused_gemm, ([Product(source, weight, three)], Sink())),
    ]


def _refused(source: Source, match: str) -> None:
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            for op, args in _calls(source):
                with pytest.raises(CodingError, match=match):
                    op(*args)  # type: ignore[operator]


@pytest.mark.parametrize("number", [-1, 100, 2**40])
def test_unknown_codings_are_refused(number: int) -> None:
    packed = torch.zeros(5, 4, dtype=torch.uint8)
    _refused(Source(packed, 8, 4, number), rf"coding is {number}: .*0 \(unsigned\)")


@every_coding
def test_fields_and_widths_that_a_coding_has_not_are_refused(name: str, bits: int) -> None:
    coding = CODINGS.get(name)
    for other in set(range(1, 9)) - set(coding.widths):
        rows = torch.zeros(5, other, dtype=torch.uint8)
        _refused(Source(rows, other, 8, coding.number), f"{other} bits in coding '{name}'")
    known = {coding.field(code, bits) for code in range(coding.top(bits) + 1)}
    for field in set(range(1 << bits)) - known:
        codes = torch.zeros(5, 11, dtype=torch.uint8)
        codes[3, 10] = field
        rows = ops.pack(codes, bits)
        _refused(Source(rows, bits, 11, coding.number), r"packed\[3\].*column 10")
        good = ops.pack(torch.zeros(5, 11, dtype=torch.uint8), bits)
        edges = Edges(*graph([1] * 5, 5, generator()))
        own = Own(own=rows, own_factor=torch.ones(1))
        with pytest.raises(CodingError, match=r"own\[3\].*column 10"):
            ops.fused_spmm(
                edges, Source(good, bits, 11, coding.number), own, Epilogue(torch.ones(1)), Sink()
            )


def test_a_coding_without_a_header_runs_on_the_reference_alone() -> None:
    """As one of another package, which the extension was not built with."""

    class Late(type(CODINGS.get("unsigned"))):  # type: ignore[misc]
        """Found by its number, unknown to the kernels."""

        name, number = "late", 90

    CODINGS.add("late", Late())
    try:
        source = Source(torch.ones(5, 4, dtype=torch.uint8), 8, 4, 90)
        for isa in COMPILED:
            with ops.force_isa(isa):
                for op, args in _calls(source):
                    with pytest.raises(CodingError, match="coding 90 in 8 bits has no header"):
                        op(*args)  # type: ignore[operator]
        with ops.force_isa("reference"):
            made: Tensor = ops.spmm(Edges(*graph([2], 5, generator())), source)
            assert made.eq(2).all()
    finally:
        del CODINGS._values["late"]
