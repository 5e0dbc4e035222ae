"""What every format of rows does alike: rows are taken as they are packed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import ConfigError, NodeIndexError
from nodebits.core.own_scale import OwnScale
from nodebits.core.packing import pack
from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.encoding import Encoding
from nodebits.engine.formats import formats
from nodebits.engine.formats.aligned import Aligned
from nodebits.engine.formats.floats import PLAIN
from nodebits.engine.formats.raw import Raw
from nodebits.engine.formats.sparse import Sparse
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.rows import Rows
from nodebits.ops.features import scan_features

N, C = 30, 11
WIDTHS = torch.arange(N) * 7 % 8 + 1
ZEROS = torch.exp2(torch.arange(8.0))


def values() -> Tensor:
    return torch.randn(N, C, generator=torch.Generator().manual_seed(0))


def dense(bits: int, axis: int) -> Rows:
    length = {-1: 1, 0: N, 1: C}[axis]
    codes = torch.randint(0, 1 << bits, (N, C), dtype=torch.uint8)
    zero_point = torch.rand(length) if axis else torch.arange(float(N))
    return Rows.dense(pack(codes, bits), bits, C, torch.rand(length) + 0.1, zero_point, axis)


def bucketed(axis: int, shifted: bool) -> Rows:
    layout = RowLayout.of(WIDTHS)
    shift = ((8 - WIDTHS) // 2).to(torch.uint8) if shifted else None
    scale = torch.rand({0: N, 1: C}[axis]) + 0.1
    return Encoding(Affine(scale, ZEROS, axis, shift), ZEROS, 8, layout).pack(values(), None)


def sparse(binary: bool) -> Rows:
    x = values().clamp_min(0.8) - 0.8
    x = (x > 0).float() if binary else x
    x[3] = 0.0
    found = scan_features(x, OwnScale(4, False), 1.0)
    assert found.sparse is not None and (found.sparse.codes is None) == binary
    return Rows(Sparse.of(found.sparse, 4, C), Affine(found.scale, torch.zeros(1), 0))


CASES: dict[str, Callable[[], Rows]] = {
    "dense": lambda: dense(4, -1),
    "dense, 3 bits, a scale per row": lambda: dense(3, 0),
    "dense, 8 bits, a scale per column": lambda: dense(8, 1),
    "bucketed": lambda: bucketed(0, False),
    "bucketed, shifted": lambda: bucketed(1, True),
    "sparse": lambda: sparse(False),
    "sparse, one code per row": lambda: sparse(True),
    "float": lambda: Rows.of_floats(values()),
}
TRANSIENT = {
    "aligned": lambda: Aligned(torch.zeros(N, C, dtype=torch.uint8), RowLayout.of(WIDTHS)),
    "raw": lambda: Raw(
        values(), OwnScale(4, True), lambda x: (Aligned(x, RowLayout.of(WIDTHS)), PLAIN)
    ),
}


def test_all_formats_are_here() -> None:
    lasting = {name for name, format_ in formats().items() if not format_.transient}
    assert {name.partition(",")[0] for name in CASES} == lasting
    assert set(TRANSIENT) == set(formats()) - lasting


@pytest.mark.parametrize("level", ["reference", next(reversed(ops.available_isas()))])
@pytest.mark.parametrize("case", CASES)
def test_taken_rows_are_those_rows(case: str, level: str) -> None:
    rows = CASES[case]()
    with ops.force_isa(level):
        for index in (torch.tensor([5, 0, 29, 5, 3, 17]), torch.arange(N), torch.arange(0)):
            made = rows.selected(index)
            assert made.shape == (index.numel(), C) and type(made.data) is type(rows.data)
            assert torch.equal(made.codes(), rows.codes()[index])
            assert torch.equal(made.dequantize(), rows.dequantize()[index])
        with pytest.raises(NodeIndexError, match=r"index\[0\] is 30"):
            rows.selected(torch.tensor([30]))


@pytest.mark.parametrize("case", TRANSIENT)
def test_rows_inside_of_a_forward_are_not_taken(case: str) -> None:
    with pytest.raises(ConfigError, match="between two layers"):
        TRANSIENT[case]().selected(torch.tensor([0]))


def test_features_for_several_sites() -> None:
    given = PackedInput({"a": dense(4, -1), "b": dense(3, 0)}, (N, C))
    index = torch.tensor([7, 7, 2])
    made = given.selected(index)
    assert made.shape == (3, C) and made.graph is None
    for name, rows in given.rows.items():
        assert torch.equal(made.rows[name].dequantize(), rows.dequantize()[index])
