"""What stayed in float is counted: values, inputs and messages of layers without sites."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn.utils import prune
from torch_geometric.nn import GatedGraphConv, GATv2Conv, GCNConv, GINConv

from nodebits.core.errors import ConfigError, UnsupportedLayerWarning
from nodebits.engine.recording import recording
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.runtime import PackedModel, convert
from nodebits.runtime.float_layers import float_layers, float_values, recording_float_inputs
from packed_models import CLASSES, FEATURES, NODES, UserModel, small_graph


def pack(model: nn.Module, bits: int = 2) -> tuple[PackedModel, Tensor, Tensor]:
    x, edge_index = small_graph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsupportedLayerWarning)
        prepared = prepare(model.eval(), UniformConfig(bits=bits, mode="ptq"))
    calibrate(prepared, x, edge_index)
    return convert(prepared), x, edge_index


class OwnGated(GatedGraphConv):
    """Its messages are its own affair, so that it stays in float."""

    def propagate(self, *args: Any, **keywords: Any) -> Tensor:
        return super().propagate(*args, **keywords)


class OwnGATv2(GATv2Conv):
    def propagate(self, *args: Any, **keywords: Any) -> Tensor:
        return super().propagate(*args, **keywords)


class Gated(nn.Module):
    """A layer that is quantized, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, 16)
        self.gated = OwnGated(16, 1)
        self.head = GCNConv(16, CLASSES)

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        x = self.first(x, edge_index).relu()
        return self.head(self.gated(x, edge_index), edge_index)


def test_a_convolution_without_quantized_form_by_hand() -> None:
    model = Gated()
    packed, x, edge_index = pack(model)
    account = packed.account(x, edge_index)
    assert account.float_layers == {"gated": "OwnGated", "gated.rnn": "GRUCell"}
    floats = [(s.layer, s.site, s.num_cols) for s in account.sites if not s.at_site]
    assert sorted(floats) == [
        ("gated", "input", 16),
        ("gated", "message", 16),
        ("gated.rnn", "input", 16),  # what arrives
        ("gated.rnn", "input", 16),  # and the state
    ]
    assert all(s.granularity == "float" and s.bits == 32 for s in account.sites if not s.at_site)
    quantized = FEATURES + 16 + 16 + CLASSES
    assert account.average_site_bits == pytest.approx(2.0)
    expected = (2 * quantized + 32 * 4 * 16) / (quantized + 4 * 16)
    assert account.average_bits == pytest.approx(expected)
    assert account.float_weight_bytes == sum(p.nbytes for p in model.parameters())
    gated = sum(p.nbytes for p in model.gated.parameters())
    assert account.weight_bytes - account.quantized_weight_bytes == gated + 4 * (16 + CLASSES)
    assert sum(w.bytes for w in account.weights if w.layer.startswith("gated")) == gated


def test_totals_are_the_sums_of_the_entries() -> None:
    packed, x, edge_index = pack(Gated())
    account = packed.account(x, edge_index)
    assert account.activation_bytes == sum(s.bytes + s.scale_bytes for s in account.sites)
    assert account.weight_bytes == sum(w.bytes + w.scale_bytes for w in account.weights)
    assert account.average_bits > account.average_site_bits


def test_a_norm_counts_where_it_computes_and_not_where_it_is_scale_and_shift() -> None:
    model = UserModel()
    model.norm = nn.BatchNorm1d(16, track_running_stats=False)
    packed, x, edge_index = pack(model)
    account = packed.account(x, edge_index)
    assert account.float_layers == {"norm": "BatchNorm1d"}
    assert [(s.layer, s.num_rows, s.num_cols) for s in account.sites if not s.at_site] == [
        ("norm", NODES, 16)
    ]
    packed, x, edge_index = pack(UserModel())
    account = packed.account(x, edge_index)
    assert packed.folded and float_layers(packed.module) == {}
    assert all(s.at_site for s in account.sites)
    assert sum(w.bytes for w in account.weights if w.layer == "norm") == 2 * 4 * 16


def test_a_norm_inside_of_a_quantized_layer_counts() -> None:
    mlp = nn.Sequential(nn.Linear(FEATURES, 8), nn.LayerNorm(8), nn.Linear(8, CLASSES))
    packed, x, edge_index = pack(GINConv(mlp))
    account = packed.account(x, edge_index)
    assert list(account.float_layers.values()) == ["LayerNorm"]
    assert [s.num_cols for s in account.sites if not s.at_site] == [8]


def test_the_attention_of_a_float_convolution_counts_by_edge() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = OwnGATv2(FEATURES, 4, heads=2)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: Any, edge_index: Any) -> Tensor:
            return self.head(self.conv(x, edge_index))

    packed, x, edge_index = pack(Net())
    account = packed.account(x, edge_index)
    messages = [s for s in account.sites if s.layer == "conv" and s.site == "message"]
    assert {s.num_cols for s in messages} == {2, 8}
    assert next(s for s in messages if s.num_cols == 2).num_rows > edge_index.size(1)


def test_a_value_under_two_names_counts_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.LayerNorm(4)
            self.two = nn.LayerNorm(4)
            self.two.weight = self.one.weight

    names = [(value.layer, value.name) for value in float_values(Tied())]
    assert names == [("one", "weight"), ("one", "bias"), ("two", "bias")]


def test_hooks_are_gone_afterwards_and_other_threads_are_not_counted() -> None:
    packed, x, edge_index = pack(Gated())
    expected = packed.account(x, edge_index)
    with recording(), recording_float_inputs(packed.module) as found:
        thread = threading.Thread(target=packed.predict, args=(x, edge_index))
        thread.start()
        thread.join()
        assert found == []
        packed.predict(x, edge_index)
    assert len(found) == sum(not site.at_site for site in expected.sites)
    assert not any(m._forward_pre_hooks for m in packed.modules())
    assert packed.account(x, edge_index) == expected


def test_a_file_that_could_not_be_loaded_says_how_to_make_it_one(tmp_path: Path) -> None:
    """PyG's linear stores a pruned weight as any other, which a pruned model does not take."""
    model = UserModel()
    prune.l1_unstructured(model.first.lin, "weight", 0.5)
    packed, _, _ = pack(model, bits=8)
    with pytest.raises(ConfigError, match=r"Layer 'first\.lin': its weight .*prune\.remove"):
        packed.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
