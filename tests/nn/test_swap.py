"""What was attached to a layer comes along; where it cannot, the layer stays and is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

import nodebits
from nodebits.core.errors import UnsupportedLayerWarning
from nodebits.nn.layer import QuantLayer
from nodebits.nn.propagate.layer import QuantMessagePassing

PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])


class Net(nn.Module):
    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = GCNConv(8, 8)
        self.head = nn.Linear(8, 2) if head is None else head

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.conv(x, edge_index).relu())


def calibrated(model: nn.Module, *args: Any) -> nn.Module:
    prepared = nodebits.prepare(model.eval(), PTQ)
    nodebits.calibrate(prepared, *(args or (X, EDGES)))
    return prepared


def all_forms(model: nn.Module, path: Path, *args: Any) -> list[Tensor]:
    """Results of the prepared, the packed and the loaded model."""
    args = args or (X, EDGES)
    prepared = calibrated(model, *args)
    packed = nodebits.convert(prepared)
    packed.save(path / "m.safetensors")
    loaded = nodebits.load(path / "m.safetensors", model=model)
    with torch.no_grad():
        return [prepared(*args), packed.predict(*args), loaded.predict(*args)]


# ---- hooks ----


def test_forward_hooks_fire_in_every_form(tmp_path: Path) -> None:
    model, seen = Net().eval(), []
    model.conv.register_forward_hook(lambda m, args, out: seen.append(("conv", out)))
    model.head.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
    model.head.register_forward_hook(
        lambda m, args, keywords, out: out + 1, with_kwargs=True, always_call=True
    )
    prepared, packed, loaded = all_forms(model, tmp_path)
    assert torch.equal(prepared, packed) and torch.equal(packed, loaded)
    with torch.no_grad():
        assert (model(X, EDGES) - packed).abs().max() < 0.05
    kept = [out for name, out in seen[-4:-1]]  # calibrated, prepared, packed, loaded, float
    assert torch.equal(kept[0], kept[1] + 0) and torch.equal(kept[1] + 0, kept[2] + 0)
    assert torch.equal(copy.deepcopy(kept[1]), kept[0]), "a kept result is its values"


def test_backward_and_state_hooks_move() -> None:
    model, seen = Net(), []
    model.head.register_full_backward_hook(lambda m, grads, out: seen.append("backward"))
    model.head.register_full_backward_pre_hook(lambda m, grads: seen.append("before"))
    model.conv.register_state_dict_post_hook(lambda m, state, prefix, meta: seen.append("state"))
    model.conv.register_load_state_dict_pre_hook(lambda *args: seen.append("load"))
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    prepared(X, EDGES).sum().backward()
    prepared.load_state_dict(prepared.state_dict())
    assert seen == ["before", "backward", "state", "load"]


def test_a_handle_still_removes_its_hook() -> None:
    model, seen = Net().eval(), []
    handle = model.conv.register_forward_hook(lambda *args: seen.append("conv"))
    prepared = nodebits.prepare(model, PTQ, inplace=True)
    nodebits.calibrate(prepared, X, EDGES)
    assert seen == ["conv"]
    handle.remove()
    nodebits.calibrate(prepared, X, EDGES)
    assert seen == ["conv"]


# ---- attributes ----


class Attached(nn.Module):
    """The layer carries things that only the model's forward knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(8, 8)
        self.conv.tag = "mine"
        self.conv.norm = nn.LayerNorm(8)
        self.conv.register_buffer("mask", torch.rand(8))
        self.conv.register_buffer("noise", torch.ones(8), persistent=False)
        self.conv.gate = nn.Parameter(torch.rand(1))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        conv = self.conv
        assert conv.tag == "mine"
        return conv.norm(conv(x, edge_index)) * conv.mask * conv.gate * conv.noise


def test_attributes_parameters_buffers_and_submodules_come_along(tmp_path: Path) -> None:
    model = Attached().eval()
    prepared, packed, loaded = all_forms(model, tmp_path)
    assert torch.equal(prepared, packed) and torch.equal(packed, loaded)
    assert (model(X, EDGES) - packed).abs().max() < 0.1
    layer = calibrated(model).conv
    assert isinstance(layer.gate, nn.Parameter) and layer.gate.requires_grad
    assert "conv.mask" in calibrated(model).state_dict()
    assert "conv.noise" not in calibrated(model).state_dict()


def test_the_mode_of_every_part_is_kept() -> None:
    model = Attached().train()
    model.conv.norm.eval()
    prepared = nodebits.prepare(model, PTQ)
    assert prepared.training and prepared.conv.training and prepared.conv.message.training
    assert not prepared.conv.norm.training


# ---- layers that stay ----


class Lora(nn.Linear):
    """A low-rank correction beside the weight."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside)
        self.down = nn.Parameter(torch.randn(2, inside))
        self.up = nn.Parameter(torch.randn(outside, 2))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input @ self.down.t() @ self.up.t()


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).t()


def patched(linear: nn.Linear) -> nn.Module:
    plain = linear.forward
    linear.forward = lambda x: 2 * plain(x)
    return linear


def reparametrized(linear: nn.Linear) -> nn.Module:
    parametrize.register_parametrization(linear, "weight", Symmetric())
    return linear


def unregistered(linear: nn.Linear) -> nn.Module:
    """A weight that a hook of the user's own computes."""
    linear.raw = nn.Parameter(linear.weight.detach().clone())
    del linear.weight
    linear.register_forward_pre_hook(lambda m, args: setattr(m, "weight", m.raw.tanh()))
    linear.weight = linear.raw.detach()
    return linear


STAY: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "spectral_norm": (
        lambda: torch.nn.utils.spectral_norm(nn.Linear(8, 8)),
        r"remove_spectral_norm\(layer, 'weight'\)",
    ),
    "weight_norm": (
        lambda: torch.nn.utils.weight_norm(nn.Linear(8, 8)),
        r"remove_weight_norm\(layer, 'weight'\)",
    ),
    "parametrized spectral_norm": (
        lambda: parametrizations.spectral_norm(nn.Linear(8, 8)),
        r"remove_parametrizations\(layer, 'weight'\)",
    ),
    "parametrized": (lambda: reparametrized(nn.Linear(8, 8)), "weight is parametrized"),
    "pruned": (
        lambda: prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5),
        r"prune\.remove\(layer, 'weight'\)",
    ),
    "pruned bias": (
        lambda: prune.random_unstructured(nn.Linear(8, 8), "bias", 0.5),
        r"prune\.remove\(layer, 'bias'\)",
    ),
    "own hook": (lambda: unregistered(nn.Linear(8, 8)), "make it a parameter"),
    "lora": (lambda: Lora(8, 8), "subclass of Linear may compute otherwise"),
    "patched": (lambda: patched(nn.Linear(8, 8)), r"forward\(\) was replaced"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("name", STAY)
def test_layers_that_a_swap_would_change_stay(name: str, tmp_path: Path) -> None:
    make, reason = STAY[name]
    torch.manual_seed(0)
    model = Net(make())
    for _ in range(20):  # power iterations, where there are some
        model.train()(X, EDGES)
    with pytest.warns(UnsupportedLayerWarning, match=rf"layer 'head'.*stays in float.*{reason}"):
        prepared = nodebits.prepare(model, PTQ)
    assert not isinstance(prepared.head, QuantLayer) and isinstance(prepared.conv, GCNConv)
    prepared.train()(X, EDGES).sum().backward()
    if name != "patched":  # a function is not copied: it trains the layer that it was made for
        assert all(p.grad is not None for p in prepared.head.parameters() if p.requires_grad)
    with pytest.warns(UnsupportedLayerWarning):
        simulated, packed, loaded = all_forms(model, tmp_path)
    assert torch.equal(simulated, packed) and torch.equal(packed, loaded)
    with torch.no_grad():
        assert (model.eval()(X, EDGES) - packed).abs().max() < 0.05


@pytest.mark.parametrize("name", ("lora", "parametrized spectral_norm", "pruned"))
def test_a_linear_inside_a_convolution_may_stay(name: str, tmp_path: Path) -> None:
    model = SAGEConv(8, 8)
    model.lin_l = STAY[name][0]()
    with pytest.warns(UnsupportedLayerWarning, match="layer 'lin_l'"):
        simulated, packed, loaded = all_forms(model, tmp_path)
    assert torch.equal(simulated, packed) and torch.equal(packed, loaded)
    with torch.no_grad():
        assert (model.eval()(X, EDGES) - packed).abs().max() < 0.1


def test_parameters_of_convolutions_are_looked_at_too() -> None:
    conv = prune.random_unstructured(GATConv(8, 8), "att_src", 0.5)
    with pytest.warns(UnsupportedLayerWarning, match=r"GATConv.*att_src.*prune\.remove"):
        prepared = nodebits.prepare(conv, PTQ)
    assert not isinstance(prepared, QuantLayer)


def test_hooks_on_messages_see_messages_made_from_codes() -> None:
    conv, seen = GCNConv(8, 8).eval(), []
    conv.register_message_forward_hook(lambda *args: seen.append(args[2]))
    prepared = calibrated(conv)
    assert isinstance(prepared, QuantMessagePassing) and len(seen) == 1
    packed = nodebits.convert(prepared)
    packed.predict(X, EDGES)
    assert len(seen) == 2 and torch.allclose(seen[0], seen[1])


# ---- torch's own shortcuts ----


class Transformer(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.conv = GCNConv(8, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers) if layers else layer

    def forward(self, x: Tensor, edge_index: Tensor, mask: Tensor | None = None) -> Tensor:
        rows = self.conv(x, edge_index).relu()
        return self.encoder(rows.view(1, 6, 8), src_key_padding_mask=mask)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("layers", (0, 2))
def test_transformers_run_their_quantized_linears(
    layers: int, masked: bool, tmp_path: Path
) -> None:
    model = Transformer(layers)
    mask = torch.tensor([[False] * 5 + [True]]) if masked else None
    simulated, packed, loaded = all_forms(model, tmp_path, X, EDGES, mask)
    assert torch.equal(simulated, packed) and torch.equal(packed, loaded)
    shown = slice(0, 5) if masked else slice(None)
    difference = (model.eval()(X, EDGES, mask) - packed)[:, shown].abs().max()
    assert 0 < difference < 0.2
