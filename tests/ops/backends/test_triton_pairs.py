"""Pairs of codes that meet at an edge, on the kernels in Triton's language."""

from __future__ import annotations

import pytest
import torch
from on_triton import assert_kernels_agree, needs_triton
from operator_inputs import codes, generator, graph, misaligned
from torch import Tensor

from nodebits import ops
from nodebits.ops import Edges, Joined, Other, Source, Value
from nodebits.ops.definitions.pairs import GATES, MOST_FLOOR, SOFTMAX_WEIGHTS

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]

DEGREES, SOURCES = [0, 1, 17, 0, 22, 3], 23
# Rows of more than as many edges are summed in parts.
forms = pytest.mark.parametrize("bits, cols, longest", ((1, 33, 2048), (3, 9, 7), (8, 130, 2048)))


def shorten(monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    from nodebits.ops.backends.triton import sums

    monkeypatch.setattr(sums, "LONG_ROW", longest)


def rows(count: int, cols: int, bits: int) -> Source:
    packed = ops.pack(codes(count, cols, bits, generator(cols + bits)), bits)
    return Source(misaligned(packed), bits, cols)


def joined_to(edges: Edges, cols: int, bits: int) -> list[Joined]:
    """Rows of edges of two widths: as the edges come, and in another order."""
    count = edges.indices.numel()
    order = torch.randperm(count, generator=generator())
    return [
        Joined(*rows(count, cols, bits)),
        Joined(*rows(count + 2, cols, 9 - bits), order),
    ]


def ints(cols: int, low: int, high: int) -> Tensor:
    return torch.randint(low, high + 1, (cols,), generator=generator(1), dtype=torch.int32)


def table(size: int) -> Tensor:
    return torch.randint(1, 256, (size,), generator=generator(2), dtype=torch.uint8)


def affine(cols: int) -> tuple[Tensor, Tensor]:
    g = generator(cols)
    return torch.rand(cols, generator=g) * 3, torch.rand(cols, generator=g) / 9


@pytest.mark.parametrize("bits, cols, heads", ((1, 24, 3), (3, 130, 10), (8, 65, 1), (4, 16, 2)))
def test_scores_and_their_softmax(bits: int, cols: int, heads: int) -> None:
    edges = Edges(*graph(DEGREES, SOURCES, generator()))
    ends = edges, rows(SOURCES, cols, bits), Other(*rows(len(DEGREES), cols, 9 - bits))
    factors = [torch.rand(heads, generator=generator(i)) / 300 for i in (2, 3)]
    joined = joined_to(edges, cols, bits)
    for more in ((ints(cols, -255, 255), ints(cols, 0, 300)), (None, None)):
        for some in ([], joined[:1], joined[1:]):
            assert_kernels_agree(ops.pair_scores, *ends, some, *more, *factors)
        assert_kernels_agree(ops.attention_codes, *ends, joined[1:], *more, *factors, bits)


@forms
def test_rectified(bits: int, cols: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, longest)
    edges = Edges(*graph(DEGREES, SOURCES, generator()))
    source, joined = rows(SOURCES, cols, bits), joined_to(edges, cols, bits)
    floor, weights = ints(cols, 0, MOST_FLOOR), table(SOFTMAX_WEIGHTS)
    for some in ([], joined[:1], joined[1:]):
        ends = edges, source, some, floor // (1 if some else 2)
        assert_kernels_agree(ops.rectified_sum, *ends, *affine(cols))
    for falling, lower in ((False, floor // 20), (True, floor)):
        given = edges, source, joined[1:], lower, weights, falling
        found = assert_kernels_agree(ops.rectified_softmax, *given, *affine(cols))
        assert not found[0].any()


@forms
def test_gated(bits: int, cols: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, longest)
    edges = Edges(*graph(DEGREES, SOURCES, generator()))
    source, value = rows(SOURCES, cols, bits), Value(*rows(SOURCES, cols, 9 - bits))
    other = Other(*rows(len(DEGREES), cols, bits))
    for some in ([], joined_to(edges, cols, bits)):
        given = edges, source, other, value, some, table(GATES), 128 if some else 0
        assert_kernels_agree(ops.gated_sum, *given, *affine(cols))


def test_no_rows_and_no_edges() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    for count in (0, 3):
        edges = Edges(torch.zeros(count + 1, dtype=torch.int64), none)
        source, one = rows(4, 8, 4), torch.ones(1)
        other, value = Other(*rows(count, 8, 4)), Value(*source)
        assert_kernels_agree(ops.attention_codes, edges, source, other, [], None, None, one, one, 4)
        floor = torch.zeros(8, dtype=torch.int32)
        assert_kernels_agree(ops.rectified_sum, edges, source, [], floor, one, one)
        weights = table(SOFTMAX_WEIGHTS)
        assert_kernels_agree(
            ops.rectified_softmax, edges, source, [], floor, weights, True, one, one
        )
        assert_kernels_agree(
            ops.gated_sum, edges, source, other, value, [], table(GATES), 1, one, one
        )


@pytest.mark.parametrize("bits, cols", ((1, 33), (3, 9), (8, 130)))
def test_functions_of_codes(bits: int, cols: int) -> None:
    edges = Edges(*graph(DEGREES, SOURCES, generator()))
    count, num_edges = len(DEGREES), edges.indices.numel()
    ends = [rows(SOURCES, cols, bits), rows(count, cols, 9 - bits)]
    g = generator(bits)
    film, factor = torch.randn(count, 2 * cols, generator=g), torch.rand(count, generator=g)
    zero, scale = affine(cols)
    for more in (factor, None):
        assert_kernels_agree(ops.modulated_sum, edges, ends[0], film, scale, zero, more)
    tables = table(GATES), table(GATES)
    order = torch.randperm(num_edges, generator=g)
    of_edges = [rows(num_edges, cols, b) for b in (bits, 9 - bits)]
    for some, places in (([], None), (of_edges, None), (of_edges, order)):
        given = edges, [*ends, *ends, *some], places, *tables, torch.tensor([0.01])
        for largest in (False, True):
            assert_kernels_agree(ops.gated_product, *given, largest)
