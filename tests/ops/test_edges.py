"""edge_softmax, coo_to_csr and the index checks."""

from __future__ import annotations

import math

import pytest
import torch
from operator_inputs import (
    DEGREES,
    assert_all_levels_agree,
    generator,
    graph,
    misaligned,
    same,
)

from nodebits import ops
from nodebits.core.errors import GraphError, NodeIndexError
from nodebits.ops.definitions.edges import exp_nonpositive


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 8, 65, 130])
def test_softmax_levels_agree(heads: int) -> None:
    g = generator(heads)
    degrees = DEGREES if heads < 4 else [0, 1, 2, 17, 300, 0, 5]
    indptr, indices = graph(degrees, 19, g)
    src = misaligned(torch.randn(19, heads, generator=g) * 6)
    dst = torch.randn(len(degrees), heads, generator=g) * 6
    src[0, 0], src[1, 0], src[2, 0] = math.nan, math.inf, -math.inf
    for bits in (1, 4, 8):
        for slope in (0.2, 0.0, 1.0):
            codes, total = assert_all_levels_agree(
                ops.edge_softmax, indptr, indices, src, dst, slope, bits
            )
            assert int(codes.max()) == (1 << bits) - 1 and not total[0].any()


def test_softmax_is_a_softmax() -> None:
    g = generator()
    indptr, indices = graph([40, 7], 60, g)
    src, dst = torch.randn(60, 1, generator=g), torch.randn(2, 1, generator=g)
    codes, total = ops.edge_softmax(indptr, indices, src, dst, 0.2, 8)
    for row, part in enumerate((slice(0, 40), slice(40, 47))):
        e = torch.nn.functional.leaky_relu(src[indices[part].long()] + dst[row], 0.2)
        share = codes[part].float() / total[row]
        torch.testing.assert_close(share, torch.softmax(e, 0), atol=4e-3, rtol=0.0)


def test_exp_is_accurate() -> None:
    t = torch.linspace(-87, 0, 200_001)
    exact = torch.exp(t.double())
    assert ((exp_nonpositive(t).double() - exact) / exact).abs().max() < 1e-6
    assert exp_nonpositive(torch.zeros(1)).item() == 1.0
    assert exp_nonpositive(torch.tensor([math.nan, -math.inf])).max() < 1e-37


def test_softmax_no_edges() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    codes, total = assert_all_levels_agree(
        ops.edge_softmax,
        torch.zeros(4, dtype=torch.int64),
        none,
        torch.zeros(0, 2),
        torch.zeros(3, 2),
        0.2,
        8,
    )
    assert codes.shape == (0, 2) and not total.any()


def test_coo_to_csr() -> None:
    g = generator()
    for edges, rows in ((0, 0), (0, 4), (1, 1), (5000, 77), (5000, 9000)):
        row = torch.randint(0, max(rows, 1), (edges,), generator=g)
        col = torch.randint(0, 99, (edges,), generator=g)
        indptr, indices, perm = assert_all_levels_agree(ops.coo_to_csr, row, col, rows)
        assert torch.equal(indices.long(), col[perm])
        assert torch.equal(row[perm], row.sort(stable=True).values)
        assert indptr[-1] == edges


def test_coo_to_csr_in_parts() -> None:
    g = generator()
    before = torch.get_num_threads()
    for rows in (1, 300):
        row = torch.randint(0, rows, (200_000,), generator=g)
        col = torch.randint(0, 99, (200_000,), generator=g)
        for edges in (row, row.sort().values, torch.cat([row[:9], row[9:].sort().values])):
            with ops.force_isa("reference"):
                expected = ops.coo_to_csr(edges, col, rows)
            try:
                for threads in (1, 2, 3, 8):
                    torch.set_num_threads(threads)
                    assert same(ops.coo_to_csr(edges, col, rows), expected), threads
            finally:
                torch.set_num_threads(before)


@pytest.mark.parametrize("isa", ops.available_isas())
def test_bad_indices_are_named(isa: str) -> None:
    row, col = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 5, 6, 7])
    with ops.force_isa(isa):
        with pytest.raises(NodeIndexError, match=r"row\[2\] is 2, outside \[0, 2\)"):
            ops.coo_to_csr(row, col, 2)
        with pytest.raises(IndexError, match=r"col\[3\] is -1"):
            ops.coo_to_csr(row, torch.tensor([0, 1, 2, -1]), 3)
        with pytest.raises(IndexError, match=rf"col\[0\] is {2**33}"):
            ops.coo_to_csr(row, torch.tensor([2**33, 1, 2, 3]), 3)
        indptr, indices, _ = ops.coo_to_csr(row, col, 3)
        ops.validate_csr(indptr, indices, 8)
        with pytest.raises(IndexError, match=r"indices\[3\] is 6|indices\[2\] is 7"):
            ops.validate_csr(indptr, indices, 6)
        with pytest.raises(GraphError, match="indptr"):
            ops.validate_csr(indptr[:-1], indices, 8)
        far = torch.zeros(200_000, dtype=torch.int64)
        far[150_000] = far[199_999] = -5
        with pytest.raises(IndexError, match=r"row\[150000\] is -5"):
            ops.coo_to_csr(far, far.abs(), 3)
