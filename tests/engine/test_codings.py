"""Rows of every coding: packed, summed, multiplied and stored as the same codes without it are."""

from __future__ import annotations

import pytest
import torch

from nn.cases import NODES, edges
from nodebits import ops
from nodebits.core.registry import CODINGS
from nodebits.engine.formats import formats
from nodebits.engine.rows import Rows
from nodebits.engine.sites import CodedRows, StaticRows, rows_from_config
from nodebits.engine.weight import PackedWeight
from nodebits.graph.adjacency import as_graph
from nodebits.nn.functional import aggregate, linear, quantize_rows
from nodebits.nn.quantizers.weight import LearnedWeightQuantizer

COLS = 37
CASES = [(n, b) for n in CODINGS.names() for b in CODINGS.get(n).widths]


def plain(rows: Rows) -> Rows:
    """The same codes in unsigned fields."""
    bits = int(rows.bits or 0)
    return Rows.dense(ops.pack(rows.codes(), bits), bits, COLS, rows.scale, rows.zero_point)


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_codes_are_those_of_the_coding(name: str, bits: int) -> None:
    x = torch.randn(NODES, COLS)
    coding = CODINGS.get(name)
    middle = torch.tensor([coding.top(bits) / 2]).floor()
    site = CodedRows(torch.tensor([0.4]), middle, bits, name)
    rows = site.pack(x)
    expected = torch.round(x / 0.4 + middle).clamp(0, coding.top(bits))
    assert torch.equal(rows.codes().float(), expected)
    assert torch.equal(rows.dequantize(), (expected - middle) * 0.4)
    assert site.made(rows)
    again = rows_from_config(site.to_json())
    again.load_state_dict(site.state_dict())
    assert torch.equal(again.pack(x).codes(), rows.codes())


@pytest.mark.parametrize("isa", ops.available_isas())
@pytest.mark.parametrize(("name", "bits"), CASES)
def test_sums_and_products_are_those_of_the_codes(name: str, bits: int, isa: str) -> None:
    site = CodedRows(torch.tensor([0.4]), torch.tensor([1.0]), bits, name)
    rows = quantize_rows(site, torch.randn(NODES, COLS))
    assert isinstance(rows, Rows)
    graph, bias = as_graph(edges(), NODES, NODES), torch.randn(COLS)
    weight = LearnedWeightQuantizer(4, 8).freeze(torch.randn(8, COLS))
    assert isinstance(weight, PackedWeight)
    with ops.force_isa(isa):
        for factor in (None, torch.tensor([1.5])):
            own = None if factor is None else rows
            mine = None if factor is None else plain(rows)
            found = aggregate(rows, graph, None, torch.rand(NODES) * 0 + 2, bias,
                              own=own, own_factor=factor)  # fmt: skip
            assert torch.equal(
                found,
                aggregate(plain(rows), graph, None, torch.rand(NODES) * 0 + 2, bias,
                          own=mine, own_factor=factor),
            )  # fmt: skip
        index = torch.randint(NODES, (50,), dtype=torch.int32)
        taken = rows.data.taken(rows.affine, index, 3, 40)
        assert taken is not None
        assert torch.equal(taken, rows.dequantize()[index[3:40].long()])
        assert torch.equal(linear(rows, weight, None), linear(plain(rows), weight, None))


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_files_name_the_coding(name: str, bits: int) -> None:
    rows = CodedRows(torch.ones(1), torch.ones(1), bits, name).pack(torch.randn(NODES, COLS))
    about, parts = rows.data.parts(rows.affine)
    again = Rows(*formats()[rows.data.name].read(about, parts))
    assert torch.equal(again.codes(), rows.codes())
    assert ("coding" in about) == (name != "unsigned")


def test_unsigned_rows_are_those_of_the_static_kind() -> None:
    x, scale = torch.randn(NODES, COLS), torch.rand(COLS) + 0.1
    static = StaticRows(scale, torch.zeros(COLS), 3).pack(x)
    coded = CodedRows(scale, torch.zeros(COLS), 3, "unsigned").pack(x)
    assert torch.equal(static.codes(), coded.codes())
