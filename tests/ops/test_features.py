"""The scan of raw features: extents, signs, and the codes that a dense quantizer would make."""

from __future__ import annotations

import math

import pytest
import torch
from operator_inputs import COMPILED, generator, misaligned

from nodebits import ops
from nodebits.core.affine import unsigned_qparams
from nodebits.ops.features import FeatureScan, scan_features


def on_every_level(x: torch.Tensor, bits: int, share: float) -> FeatureScan:
    with ops.force_isa("reference"):
        expected = scan_features(x, bits, share)
    before = torch.get_num_threads()
    for isa in COMPILED:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with ops.force_isa(isa):
                made = scan_features(x, bits, share)
            assert torch.equal(made.extent.nan_to_num(), expected.extent.nan_to_num())
            assert made.finite == expected.finite and made.negative == expected.negative
            assert (made.sparse is None) == (expected.sparse is None)
            if made.sparse is not None and expected.sparse is not None:
                for name in ("indptr", "indices", "codes", "row_code", "row_sum", "scale"):
                    one, other = getattr(made.sparse, name), getattr(expected.sparse, name)
                    assert (one is None) == (other is None), name
                    assert one is None or torch.equal(one, other), name
    torch.set_num_threads(before)
    return expected


@pytest.mark.parametrize("bits", (1, 3, 8))
@pytest.mark.parametrize("cols", (1, 7, 16, 17, 100, 1433))
def test_sparse_codes_are_the_dense_ones(bits: int, cols: int) -> None:
    g = generator(cols)
    for values in ("binary", "shares", "many"):
        x = (torch.rand(150, cols, generator=g) < 0.05).float()
        if values == "shares":
            x = x / x.sum(1, keepdim=True).clamp_min(1)
        elif values == "many":
            x = x * torch.rand(150, cols, generator=g)
        x[3] = -0.0
        x[x == 0] = 0.0
        x = misaligned(x)
        sparse = on_every_level(x, bits, 0.3).sparse
        assert sparse is not None and (values == "many" or sparse.codes is None)
        scale = unsigned_qparams(x.amax(1), bits)[0]
        dense = ops.fake_quantize(x, scale, torch.zeros(1), 0, bits)
        assert torch.equal(sparse.dense_codes().float(), dense)
        assert torch.equal(sparse.dequantize(), dense * scale.view(-1, 1))
        assert torch.equal(sparse.row_sum, dense.sum(1).int())
        assert sparse.shape == x.shape


def test_uneven_rows_and_dense_features() -> None:
    x = torch.zeros(640, 300)
    x[:3] = 1.0  # of a block of ten rows
    assert on_every_level(x, 4, 0.1).sparse is not None
    assert on_every_level(torch.rand(640, 300), 4, 0.1).sparse is None
    assert on_every_level(x, 4, 0.0).sparse is None


def test_signs_extents_and_values_that_are_not_finite() -> None:
    x = torch.zeros(70, 40)
    x[5, 39], x[6, 0] = -2.0, 1.0
    found = on_every_level(x, 4, 0.5)
    assert found.negative and found.sparse is None and found.extent[5:7].tolist() == [2.0, 1.0]
    x[5, 39] = -0.0
    assert not on_every_level(x, 4, 0.5).negative
    for bad in (math.inf, -math.inf, math.nan):
        x[69, 7] = bad
        found = on_every_level(x, 4, 0.5)
        assert not found.finite and not found.extent[69].isfinite()
    tiny = torch.full((3, 5), 1e-44)
    assert on_every_level(tiny, 4, 1.0).extent.min() > 0


@pytest.mark.parametrize("shape", ((0, 5), (5, 0), (0, 0)))
def test_empty(shape: tuple[int, int]) -> None:
    assert on_every_level(torch.zeros(shape), 4, 0.1).extent.numel() == shape[0]
