"""The scan of raw features: extents, signs, and the codes that a dense quantizer would make."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from operator_inputs import COMPILED, generator, misaligned

from nodebits import ops
from nodebits.core.affine import unsigned_qparams
from nodebits.core.own_scale import OwnScale
from nodebits.engine.affine import Affine
from nodebits.engine.formats.sparse import Sparse
from nodebits.engine.rows import Rows
from nodebits.ops.features import FeatureScan, sample_density, scan_features


def same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return bool(one == other)
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def on_every_level(x: torch.Tensor, own: OwnScale, share: float) -> FeatureScan:
    signed = own.signed
    with ops.force_isa("reference"):
        expected = scan_features(x, own, share)
    before = torch.get_num_threads()
    for isa in COMPILED:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with ops.force_isa(isa):
                made = scan_features(x, own, share)
            assert (made.finite, made.negative) == (expected.finite, expected.negative)
            assert (made.sparse is None) == (expected.sparse is None)
            if made.sparse is not None and expected.sparse is not None:
                for name, part in expected.sparse._asdict().items():
                    assert same(getattr(made.sparse, name), part), name
                assert same(made.scale, expected.scale)
            elif made.finite and (signed or not made.negative):
                assert same(made.packed, expected.packed) and same(made.scale, expected.scale)
    torch.set_num_threads(before)
    return expected


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signed", (True, False))
@pytest.mark.parametrize("trim", (True, False))
def test_dense_codes(bits: int, signed: bool, trim: bool) -> None:
    g, own = generator(bits), OwnScale(bits, signed, trim)
    for cols in (1, 7, 16, 33, 512, 1100):
        x = torch.randn(70, cols, generator=g)
        x = misaligned(x if signed else x.abs())
        x[3] = 0.0
        x[5] = x[5].square()  # few values are large
        found = on_every_level(x, own, 0.0)
        scale, zero_point = own.scale(x), torch.full((70,), own.zero_point)
        packed = ops.quantize_pack(x, scale, zero_point, 0, bits)
        assert found.packed is not None and torch.equal(found.packed, packed)
        assert torch.equal(found.scale, scale) and found.finite


def test_more_than_expected_takes_a_second_pass() -> None:
    x = (torch.rand(400, 900, generator=generator()) < 0.2).float()
    one, other = (
        scan_features(x, OwnScale(4, False), 0.3, density).sparse for density in (0.0, 0.2)
    )
    assert one is not None and other is not None and one.codes is None
    assert torch.equal(one.indices, other.indices) and torch.equal(one.indptr, other.indptr)
    assert abs(sample_density(x) - 0.2) < 0.02


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
        found = on_every_level(x, OwnScale(bits, False), 0.3)
        sparse = found.sparse
        assert sparse is not None and (values == "many" or sparse.codes is None)
        scale = unsigned_qparams(x.amax(1), bits)[0]
        dense = ops.fake_quantize(x, scale, torch.zeros(1), 0, bits)
        assert torch.equal(found.scale, scale)
        rows = Rows(Sparse.of(sparse, bits, cols), Affine(scale, torch.zeros(1), 0))
        assert torch.equal(rows.codes().float(), dense)
        assert torch.equal(rows.dequantize(), dense * scale.view(-1, 1))
        assert torch.equal(sparse.row_sum, dense.sum(1).int())
        assert rows.shape == tuple(x.shape)


def test_uneven_rows_and_dense_features() -> None:
    x = torch.zeros(640, 300)
    x[:3] = 1.0  # of a block of ten rows
    assert on_every_level(x, OwnScale(4, False), 0.1).sparse is not None
    assert on_every_level(torch.rand(640, 300), OwnScale(4, False), 0.1).sparse is None
    assert on_every_level(x, OwnScale(4, False), 0.0).sparse is None


def test_signs_extents_and_values_that_are_not_finite() -> None:
    x = torch.zeros(70, 40)
    x[5, 39], x[6, 0] = -2.0, 1.0
    found = on_every_level(x, OwnScale(4, False), 0.5)
    assert found.negative and found.sparse is None
    x[5, 39] = -0.0
    assert not on_every_level(x, OwnScale(4, False), 0.5).negative
    for bad in (math.inf, -math.inf, math.nan):
        x[69, 7] = bad
        assert not on_every_level(x, OwnScale(4, False), 0.5).finite
        assert not on_every_level(x, OwnScale(4, True), 0.0).finite
    tiny = torch.full((3, 5), 1e-44)
    assert on_every_level(tiny, OwnScale(4, False), 1.0).scale.tolist() == [1.0] * 3


@pytest.mark.parametrize("shape", ((0, 5), (5, 0), (0, 0)))
def test_empty(shape: tuple[int, int]) -> None:
    assert on_every_level(torch.zeros(shape), OwnScale(4, False), 0.1).scale.numel() == shape[0]
    assert on_every_level(torch.zeros(shape), OwnScale(4, True), 0.0).scale.numel() == shape[0]
