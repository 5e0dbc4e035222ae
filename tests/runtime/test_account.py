"""Bits and bytes, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from packed_models import CLASSES, FEATURES, NODES, make_case, threads


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


def row_bytes(columns: int, bits: int) -> int:
    return -(-columns * bits // 8)


def test_two_layer_gcn_by_hand() -> None:
    """Widths: 8, 4 | 2, 3 over 12, 16 | 16, 3 columns; weights 4 and 2 bits."""
    widths = {
        "convs.0.lin.input": 8,
        "convs.0.message": 4,
        "convs.1.lin.input": 2,
        "convs.1.message": 3,
        "convs.0.lin.weight": 4,
        "convs.1.lin.weight": 2,
    }
    case = make_case("gcn", overrides=widths)
    account = case.packed.account(case.x, case.edge_index)
    found = {(s.layer, s.site): (s.bits, s.num_rows, s.num_cols) for s in account.sites}
    assert found == {
        ("convs.0.lin", "input"): (8, NODES, 12),
        ("convs.0", "message"): (4, NODES, 16),
        ("convs.1.lin", "input"): (2, NODES, 16),
        ("convs.1", "message"): (3, NODES, 3),
    }
    columns = 12 + 16 + 16 + 3
    bits = 8 * 12 + 4 * 16 + 2 * 16 + 3 * 3
    assert account.average_bits == pytest.approx(bits / columns)
    # One scale per tensor at inputs, one per column at messages.
    scales = 1 + 16 + 1 + 3
    with_scales = (NODES * bits + 32 * scales) / (NODES * columns)
    assert account.average_bits_with_scales == pytest.approx(with_scales)
    codes = NODES * (row_bytes(12, 8) + row_bytes(16, 4) + row_bytes(16, 2) + row_bytes(3, 3))
    assert account.activation_bytes == codes + 4 * scales
    assert account.float_activation_bytes == 4 * NODES * columns
    weights = 16 * row_bytes(12, 4) + 4 * 16 + 3 * row_bytes(16, 2) + 4 * 3
    assert account.quantized_weight_bytes == weights
    assert account.weight_bytes == weights + 4 * (16 + 3)  # biases are float
    assert account.float_weight_bytes == 4 * (12 * 16 + 16 * 3 + 16 + 3)
    assert [(w.layer, w.site, w.bits, w.at_site) for w in account.weights] == [
        ("convs.0.lin", "quantized_weight", 4, True),
        ("convs.1.lin", "quantized_weight", 2, True),
        ("convs.0", "bias", 32, False),
        ("convs.1", "bias", 32, False),
    ]
    assert account.float_layers == {}
    assert account.average_site_bits == account.average_bits


def test_float_sites_count_32_bits() -> None:
    case = make_case("gcn", bits=4, input_bits=32)
    account = case.packed.account(case.x, case.edge_index)
    columns = 12 + 16 + 16 + 3
    assert account.average_bits == pytest.approx((32 * 28 + 4 * 19) / columns)
    assert {s.granularity for s in account.sites if s.site == "input"} == {"float"}


def test_float_weights_count_32_bits() -> None:
    case = make_case("gcn", bits=4, weight_bits=32)
    account = case.packed.account(case.x, case.edge_index)
    assert {w.bits for w in account.weights} == {32}
    assert {w.granularity for w in account.weights} == {"float"}
    assert account.weight_bytes >= account.float_weight_bytes


@pytest.mark.parametrize("bits", (8, 5, 1))
@pytest.mark.parametrize("name", ("gcn", "gin", "gat", "sage"))
def test_weight_bytes_are_the_bytes_of_the_buffers(name: str, bits: int) -> None:
    case = make_case(name, bits=bits)
    account = case.packed.account(case.x, case.edge_index)
    buffers = [m for m in case.packed.modules() if isinstance(m, PackedWeight)]
    held = sum(m.packed.nbytes + m.scale.nbytes for m in buffers)
    packed = [w for w in account.weights if w.at_site]
    assert len(packed) == len(buffers)
    assert account.quantized_weight_bytes == held
    assert sum(w.bytes for w in packed) == sum(m.packed.nbytes for m in buffers)
    at_sites = [m for m in case.packed.modules() if isinstance(m, PackedWeight | RowQuantizer)]
    ours = {id(b) for m in at_sites for b in m.state_dict(keep_vars=True).values()}
    others = case.packed.module.state_dict(keep_vars=True).values()
    assert account.weight_bytes == held + sum(v.nbytes for v in others if id(v) not in ours)


def test_activation_bytes_are_those_of_the_packed_rows() -> None:
    case = make_case("sage", bits=3)
    account = case.packed.account(case.x, case.edge_index)
    rows = case.packed.pack_input(case.x).rows
    for path, packed in rows.items():
        layer, _, site = path.rpartition(".")
        (entry,) = [s for s in account.sites if (s.layer, s.site) == (layer, site)]
        assert entry.bytes == packed.data.nbytes
        assert entry.scale_bytes == packed.scale.nbytes


def test_attention_counts_edges_with_loops() -> None:
    case = make_case("gat", bits=4, attention_bits=8)
    account = case.packed.account(case.x, case.edge_index)
    loops = case.edge_index[0] == case.edge_index[1]
    edges = int((~loops).sum()) + NODES
    attention = [s for s in account.sites if s.site == "attention"]
    assert [(s.bits, s.num_rows, s.num_cols) for s in attention] == [(8, edges, 4), (8, edges, 1)]


def test_a_scale_per_row_of_raw_features() -> None:
    case = make_case("gcn", bits=4, features=300)
    account = case.packed.account(case.x, case.edge_index)
    (entry,) = [s for s in account.sites if s.layer == "convs.0.lin"]
    assert (entry.granularity, entry.scale_bytes) == ("row", 4 * NODES)
    assert entry.sparse and 0 < entry.bytes < NODES * 150  # 0/1 features: the ones alone
    dense = case.packed.account(torch.rand(NODES, 300), case.edge_index).sites[0]
    assert not dense.sparse and dense.bytes == NODES * 150


def test_packed_input_is_accounted_alike() -> None:
    case = make_case("gin")
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    plain = case.packed.account(case.x, case.edge_index)
    assert case.packed.account(case.packed.pack_input(case.x), graph) == plain


def test_average_is_the_width_where_all_are_alike() -> None:
    for name in ("gcn", "gin", "sage"):
        for bits in (1, 4, 8):
            case = make_case(name, bits=bits, sum_bits=bits)
            account = case.packed.account(case.x, case.edge_index)
            assert account.average_bits == pytest.approx(bits)
            assert account.average_bits_with_scales > bits


def test_an_empty_graph() -> None:
    case = make_case("gcn")
    account = case.packed.account(torch.zeros(0, FEATURES), torch.zeros(2, 0).long())
    assert account.average_bits == 0
    assert account.activation_bytes == sum(s.scale_bytes for s in account.sites)
    assert [w for w in account.weights if w.at_site][-1].num_rows == CLASSES
