"""Frozen rows of several widths: products and sums on them, bytes, graphs they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nn.cases import NODES, edges
from nodebits import ops
from nodebits.core.affine import Codes
from nodebits.core.errors import ConfigError, GraphMismatchError
from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.by_width import extent_of, row_extent, scale_of, spread_order, zero_points
from nodebits.engine.formats.bucketed import Bucketed
from nodebits.engine.recording import recording
from nodebits.engine.rows import Rows
from nodebits.engine.sites import NearestRows, PerNodeRows, rows_from_config
from nodebits.graph import as_graph, graph_scope
from nodebits.nn.functional import aggregate, linear, quantize_rows
from nodebits.nn.quantizers import LearnedWeightQuantizer

COLS = 13


def simulated(x: Tensor, widths: Tensor, scale: Tensor, signed: bool) -> Codes:
    """The definition, in float: one width per row."""
    zero = zero_points(signed, x.device)[widths.long() - 1].view(-1, 1)
    top = torch.exp2(widths.float()).view(-1, 1) - 1
    codes = torch.round(x / scale.view(-1, 1) + zero).clamp_min(0).minimum(top)
    return Codes(codes, scale.view(-1, 1), zero, 8)


def made(signed: bool, **options: object) -> tuple[Tensor, Tensor, Tensor, PerNodeRows]:
    x = torch.randn(NODES, COLS)
    x = x if signed else x.relu()
    widths = torch.randint(1, 9, (NODES,))
    scale = scale_of(row_extent(x, signed), widths, signed)
    return x, widths, scale, PerNodeRows(widths, signed, scale=scale, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", (8, 4, 2))
@pytest.mark.parametrize("signed", (True, False))
def test_linear_equals_simulation(signed: bool, bits: int) -> None:
    x, widths, scale, rows = made(signed)
    weight, bias = torch.randn(7, COLS), torch.randn(7)
    quantizer = LearnedWeightQuantizer(bits, 7, midrise=bits <= 2).eval()
    expected = linear(simulated(x, widths, scale, signed), quantizer(weight), bias)
    packed = quantizer.freeze(weight)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            found = linear(quantize_rows(rows, x), packed, bias)
            assert torch.equal(found, expected), isa


@pytest.mark.parametrize("shifted", (True, False))
@pytest.mark.parametrize("signed", (True, False))
def test_sum_of_shifted_rows_is_an_integer_sum(signed: bool, shifted: bool) -> None:
    """Scales shared but for a power of two per row stay outside the sum."""
    x = torch.randn(NODES, COLS)
    layout = RowLayout.of(torch.randint(1, 6, (NODES,)))
    shift = torch.randint(0, 4, (NODES,)).to(torch.uint8) if shifted else None
    scale = torch.rand(COLS) * 0.02 + 0.01
    power = torch.exp2(torch.zeros(NODES) if shift is None else shift.float())
    packed = ops.quantize_pack_bucketed(
        x,
        scale,
        zero_points(signed, x.device),
        1,
        layout.widths,
        layout.position,
        1 / power,
    )
    affine = Affine(scale, zero_points(signed, x.device), 1, shift)
    rows = Rows(Bucketed(packed, layout, COLS), affine)
    graph = as_graph(edges(), NODES, NODES)
    by_row = power.view(-1, 1)
    zero = zero_points(signed, x.device)[layout.widths.long() - 1].view(-1, 1)
    top = torch.exp2(layout.widths.float()).view(-1, 1) - 1
    codes = torch.round(x / (scale * by_row) + zero).clamp_min(0).minimum(top)
    factor, bias = torch.rand(NODES), torch.randn(COLS)
    expected = aggregate(Codes(codes * by_row, scale, zero * by_row, 8), graph, None, factor, bias)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            assert torch.equal(aggregate(rows, graph, None, factor, bias), expected), isa
    # And both are the sum of the values that the codes stand for.
    values = rows.dequantize()
    slow = torch.zeros(NODES, COLS).index_add(0, graph.rows, values[graph.indices.long()])
    torch.testing.assert_close(expected, slow * factor.view(-1, 1) + bias)


def test_a_scale_per_row_cannot_be_summed() -> None:
    x, _, _, rows = made(True)
    with pytest.raises(ConfigError, match="power of two"):
        aggregate(quantize_rows(rows, x), as_graph(edges(), NODES, NODES))


def test_bytes_are_the_sum_of_the_widths() -> None:
    x, widths, _, rows = made(False)
    with recording() as records:
        packed = quantize_rows(rows, x)
    assert packed.data.name == "bucketed"
    expected = sum((COLS * int(bits) + 7) // 8 for bits in widths)
    assert packed.data.packed.numel() == packed.data.packed.untyped_storage().nbytes() == expected
    assert records[0].layout is not None and records[0].layout.bytes(COLS) == expected
    state = sum(t.numel() * t.element_size() for t in rows.state_dict().values())
    assert state == rows.scale_bytes(NODES) + 8  # the graph's fingerprint
    assert rows.scale_bytes(NODES) == (3 * NODES + 7) // 8 + 4 * NODES


@pytest.mark.parametrize("signed", (True, False))
def test_scales_from_a_table(signed: bool) -> None:
    x, widths, _, _ = made(signed)
    table, index = torch.exp2(torch.arange(-8.0, 8)), torch.randint(0, 16, (NODES,))
    options = {"scale_bits": 4, "scale_index": index, "scale_table": table}
    rows = PerNodeRows(widths, signed, **options)  # type: ignore[arg-type]
    plain = PerNodeRows(widths, signed, scale=table[index])
    assert torch.equal(rows.pack(x).data.packed, plain.pack(x).data.packed)
    again = rows_from_config(rows.config())
    again.load_state_dict(rows.state_dict())
    assert torch.equal(again.pack(x).data.packed, rows.pack(x).data.packed)
    assert rows.scale_bytes(NODES) == (3 * NODES + 7) // 8 + NODES // 2 + 64


def test_another_graph_is_refused_unless_allowed() -> None:
    index = edges()
    graph = as_graph(index, NODES, NODES)
    x, _, _, rows = made(False, fingerprint=graph.fingerprint)
    with graph_scope(graph=as_graph(index[:, torch.randperm(index.size(1))], NODES, NODES)):
        expected = rows.pack(x)  # the same edges in another order
    other = as_graph(index[:, 1:], NODES, NODES)
    with graph_scope(graph=other), pytest.raises(GraphMismatchError, match="other edges"):
        rows.pack(x)
    with pytest.raises(GraphMismatchError, match=r"24 nodes.*got a graph of 20 nodes"):
        rows.pack(x[:20])
    rows.fallback = True
    with graph_scope(graph=other):
        found = rows.pack(x)
    assert found.num_rows == NODES and not torch.equal(found.scale, torch.ones(NODES))
    assert rows.pack(x[:20]).num_rows == 20
    assert torch.equal(rows.pack(x).data.packed, expected.data.packed)


def test_nearest_rows_take_the_pair_of_nearest_range() -> None:
    scale, widths = torch.tensor([0.1, 1.0]), torch.tensor([2, 4])
    rows = NearestRows(scale, widths, False, extent_of(scale, widths, False))
    x = torch.tensor([[0.2, 0.0], [14.0, 1.0], [7.0, 7.0], [99.0, 0.0]])
    found = rows.pack(x)
    assert found.layout.widths.tolist() == [2, 4, 2, 4]  # ranges 0.3 and 15
    assert found.dequantize()[1].tolist() == [14.0, 1.0]
    again = rows_from_config(rows.config())
    again.load_state_dict(rows.state_dict())
    assert torch.equal(again.pack(x).data.packed, found.data.packed)


def test_groups_are_spread_over_the_ranges() -> None:
    limits = torch.rand(5000) + 0.1
    chosen = limits[spread_order(limits, 100)]
    assert chosen.numel() == 100 and torch.equal(chosen, chosen.sort().values)
    assert chosen[0] == limits.min() and chosen[-1] == limits.max()
