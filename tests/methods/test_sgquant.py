"""SGQuant: every combination of granularities packs to what was simulated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import AGNNConv, GATConv, GCNConv, GINConv, GraphConv, SAGEConv

import nodebits
from nn.cases import assert_converts, edges, features, quantized
from nodebits.core.errors import (
    BitwidthError,
    ConfigError,
    GraphError,
    NotCalibratedError,
)
from nodebits.core.observer import MeanRowObserver
from nodebits.graph import as_graph, graph_scope
from nodebits.methods import SGQuantConfig, UniformConfig, make_config
from nodebits.models import ModelSpec, build_model
from nodebits.nn.quantizers.degree_bucket import (
    DegreeBucketDynamicQuantizer,
    DegreeBucketQuantizer,
)
from nodebits.nn.quantizers.degree_bucket_message import DegreeBucketMessageQuantizer
from nodebits.nn.quantizers.floor import FloorQuantizer

SPLITS = (3, 4, 5)
TAQ = (8, 4, 2, 1)


def layers() -> dict[str, nn.Module]:
    return {
        "gcn": GCNConv(12, 5),
        "gcn_improved": GCNConv(12, 5, improved=True),
        "gat": GATConv(12, 3, heads=2),
        "gat_residual": GATConv(12, 3, heads=2, concat=False, residual=True),
        "agnn": AGNNConv(),
        "gin": GINConv(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))),
        "sage": SAGEConv(12, 5),
        "graph_conv": GraphConv(12, 5),
    }


CONFIGS: dict[str, SGQuantConfig] = {
    "uniform": SGQuantConfig(bits=4),
    "cwq": SGQuantConfig(bits=4, attention_bits=3, message_bits=2),
    "taq": SGQuantConfig(splits=SPLITS, degree_bits=TAQ),
    "taq_narrow": SGQuantConfig(splits=(4,), degree_bits=(2, 1)),
    "taq_equal": SGQuantConfig(splits=(4,), degree_bits=(4, 4), weight_bits=4),
    "taq_ptq": SGQuantConfig(splits=SPLITS, degree_bits=(1, 3, 5, 7), mode="ptq"),
    "taq_float_weights": SGQuantConfig(
        splits=SPLITS, degree_bits=TAQ, weight_bits=32, attention_bits=32
    ),
    "taq_messages": SGQuantConfig(bits=4, splits=SPLITS, overrides={"*message": [2, 3, 4, 5]}),
    "taq_float_attention": SGQuantConfig(splits=SPLITS, degree_bits=TAQ, attention_bits=32),
    "taq_output": SGQuantConfig(bits=4, splits=SPLITS, overrides={"*output": [2, 3, 4, 5]}),
    "published": SGQuantConfig(bits=4, preset="published"),
    "published_one_bit": SGQuantConfig(bits=1, preset="published"),
    "published_taq": SGQuantConfig(splits=SPLITS, degree_bits=TAQ, preset="published"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("name", layers())
def test_packed_is_the_simulation(name: str, config: SGQuantConfig) -> None:
    assert_converts(layers()[name], config, features(), edges())
    assert_converts(layers()[name], config, features().relu(), edges())


@pytest.mark.parametrize("name", ["gcn", "gat", "agnn"])
def test_models_from_their_file(name: str, tmp_path: Any) -> None:
    spec = ModelSpec(name, 12, 8, 3, heads=2)
    x, index = features(), edges()
    prepared = quantized(build_model(spec).eval(), CONFIGS["taq"], x, index)
    packed = nodebits.convert(prepared, spec)
    packed.save(tmp_path / "m.safetensors")
    loaded = nodebits.load(tmp_path / "m.safetensors")
    expected = prepared(x, index)
    assert torch.equal(loaded.predict(x, index), expected)
    ahead = loaded.pack_input(x, edge_index=index)
    assert all(rows.data.name == "bucketed" for rows in ahead.rows.values())
    assert torch.equal(loaded.predict(ahead, index), expected)
    # Nothing is stored per node: another graph runs, with its own buckets.
    assert loaded.predict(features(9), edges(9, 9, 20)).shape == (9, 3)


def test_wide_features_keep_a_scale_per_row() -> None:
    x, index = (torch.rand(24, 300) < 0.05).float(), edges()
    packed = assert_converts(GCNConv(300, 5), CONFIGS["taq"], x, index)
    ahead = packed.pack_input(x, edge_index=index)
    (rows,) = ahead.rows.values()
    assert rows.data.name == "bucketed" and torch.equal(rows.dequantize(), x)
    assert_converts(GCNConv(300, 5), CONFIGS["taq"], x - 0.5, index)


def test_widths_follow_the_degree() -> None:
    index = edges()
    graph = as_graph(index, 24, 24)
    quantizer = DegreeBucketQuantizer(SPLITS, TAQ)
    quantizer.calibrating = True
    x = features()
    with graph_scope(graph=graph):
        codes = quantizer(x)
        rows = quantizer.freeze().pack(x)
    assert rows.data.name == "bucketed"
    for node, degree in enumerate(graph.degree.tolist()):
        width = TAQ[sum(degree >= split for split in SPLITS)]
        assert rows.layout.widths[node] == width
        assert codes.codes[node].max() <= 2**width - 1
    assert torch.equal(rows.codes().float(), codes.codes)


def test_bucket_ranges_are_their_own() -> None:
    graph = as_graph(edges(), 24, 24)
    low = graph.degree < 4
    x = torch.where(low.view(-1, 1), features() * 100, features())
    quantizer = DegreeBucketQuantizer((4,), (4, 4))
    quantizer.calibrating = True
    with graph_scope(graph=graph):
        error = (quantizer(x).dequantize() - x)[~low].abs().max()
    assert quantizer.scale[0] > 20 * quantizer.scale[1] and error < 1


def test_message_powers_follow_the_ranges() -> None:
    graph = as_graph(edges(), 24, 24)
    low = graph.degree < 4
    x = torch.where(low.view(-1, 1), features(), features() * 16)
    quantizer = DegreeBucketMessageQuantizer((4,), (4, 4))
    quantizer.calibrating = True
    with graph_scope(graph=graph):
        quantizer(x)
    # One scale for all: the bucket of larger values takes the larger power.
    assert quantizer.shift[1] >= quantizer.shift[0]
    fine = DegreeBucketMessageQuantizer((4,), (8, 2))
    fine.calibrating = True
    with graph_scope(graph=graph):
        fine(x)
    assert fine.shift[0] == 0 and fine.shift[1] >= 4


def test_training_moves_scales_and_weights() -> None:
    x, index = features(), edges()
    for name in ("gcn", "gat", "agnn", "gin"):
        config = CONFIGS["taq"]
        prepared = quantized(layers()[name], config, x, index).train()
        out = prepared(x.requires_grad_(), index)
        (out * torch.randn_like(out)).sum().backward()
        for path, parameter in prepared.named_parameters():
            if path.endswith("scale"):
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, path


def test_published_quantizer_floors_between_mean_extremes() -> None:
    x = torch.tensor([[0.0, 1.0, 4.0], [2.0, 3.0, 8.0]])
    quantizer = FloorQuantizer(2, MeanRowObserver())
    quantizer.calibrating = True
    codes = quantizer(x)
    # lo = (0 + 2) / 2, hi = (4 + 8) / 2, s = 5 / 3
    expected = ((x - 1) / (5 / 3)).floor().clamp(0, 3)
    assert torch.equal(codes.codes, expected)
    torch.testing.assert_close(codes.dequantize(), expected * (5 / 3) + 1)


@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_a_constant_tensor_is_exact_in_the_published_quantizer(value: float) -> None:
    quantizer = FloorQuantizer(3, MeanRowObserver())
    quantizer.calibrating = True
    x = torch.full((4, 3), value)
    assert torch.equal(quantizer(x).dequantize(), x)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_binary_features_survive_the_published_quantizer(bits: int) -> None:
    x = (torch.rand(20, 30) < 0.2).float()
    x[:, 0], x[:, 1] = 0, 1
    quantizer = FloorQuantizer(bits, MeanRowObserver())
    quantizer.calibrating = True
    torch.testing.assert_close(quantizer(x).dequantize(), x)


def test_published_weights_stay_in_float() -> None:
    prepared = nodebits.prepare(GATConv(12, 3), CONFIGS["published"])
    packed = nodebits.convert(quantized(GATConv(12, 3), CONFIGS["published"], features(), edges()))
    assert packed.module.lin.quantized_weight.bits is None  # type: ignore[union-attr]
    assert packed.module.att_weight.bits is None  # type: ignore[union-attr]
    given = SGQuantConfig(bits=4, preset="published", weight_bits=8)
    packed = nodebits.convert(quantized(GATConv(12, 3), given, features(), edges()))
    assert packed.module.lin.quantized_weight.bits == 8  # type: ignore[union-attr]
    assert prepared.message.bits == 4  # type: ignore[union-attr]


def test_later_overrides_win() -> None:
    config = SGQuantConfig(
        bits=8,
        splits=(4,),
        overrides={"*": 4, "convs.0.message": [2, 3], "convs.0.lin.*": 3, "convs.0.lin.input": 5},
    )
    model = nodebits.prepare(build_model(ModelSpec("gcn", 12, 8, 3)), config)
    first, second = model.convs  # type: ignore[misc]
    assert isinstance(first.message, DegreeBucketMessageQuantizer)
    assert first.lin.input.bits == 5 and second.message.bits == 4


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"degree_bits": (4, 2)}, ConfigError, "2 widths for 4 degree buckets"),
        ({"splits": (8, 4)}, None, ""),
        ({"splits": (8, 4), "degree_bits": (4, 2, 1)}, ConfigError, "must rise"),
        ({"splits": (0, 4), "degree_bits": (4, 2, 1)}, ConfigError, "must rise"),
        ({"degree_bits": (9, 4, 2, 1)}, BitwidthError, "9"),
        ({"overrides": {"*": [4, 2]}}, ConfigError, "one width per bucket"),
        ({"overrides": {"*": 0}}, BitwidthError, "0"),
        ({"mode": "nqat"}, ConfigError, "mode"),
    ],
)
def test_bad_tables(options: dict[str, Any], error: type[Exception] | None, words: str) -> None:
    if error is None:
        SGQuantConfig(**options)
        return
    with pytest.raises(error, match=words):
        SGQuantConfig(**options)


def test_widths_per_bucket_are_for_rows_of_nodes() -> None:
    with pytest.raises(ConfigError, match="attention site"):
        nodebits.prepare(
            GATConv(12, 3), SGQuantConfig(splits=(4,), overrides={"attention": [4, 2]})
        )
    with pytest.raises(ConfigError, match="only method 'sgquant'"):
        UniformConfig(overrides={"*": [4, 2]})
    assert make_config("sgquant", 4, splits=[4], degree_bits=[4, 2]) == SGQuantConfig(
        bits=4, splits=(4,), degree_bits=(4, 2)
    )


def test_degrees_need_a_graph() -> None:
    prepared = nodebits.prepare(nn.Linear(12, 3), CONFIGS["taq"]).eval()
    with pytest.raises(ConfigError, match="graph_scope"):
        nodebits.calibrate(prepared, features())
    graph = as_graph(edges(), 24, 24)
    with graph_scope(graph=graph):
        nodebits.calibrate(prepared, features())
        packed = nodebits.convert(prepared)
        assert torch.equal(packed.module(features() * 0), prepared(features() * 0))


def test_degrees_need_a_square_graph() -> None:
    with pytest.raises(GraphError, match="square"):
        quantized(SAGEConv(12, 5), CONFIGS["taq"], (features(24), features(10)), edges(24, 10))


def test_uncalibrated_sites_are_named() -> None:
    prepared = nodebits.prepare(GCNConv(12, 5), CONFIGS["taq"]).eval()
    with pytest.raises(NotCalibratedError, match=r"lin\.input"):
        prepared(features(), edges())


def test_dynamic_codes_are_made_again_for_another_graph() -> None:
    x = (torch.rand(24, 300) < 0.3).float() * torch.rand(24, 300)
    quantizer = DegreeBucketDynamicQuantizer((4,), (8, 1))
    quantizer.calibrating = True
    first, second = as_graph(edges(), 24, 24), as_graph(edges(), 24, 24)
    with graph_scope(graph=first):
        one = quantizer(x)
        assert quantizer(x) is one
    with graph_scope(graph=second):
        assert not torch.equal(quantizer(x).codes, one.codes)
