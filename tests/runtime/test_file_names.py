"""Layers and tensors under several names: what is saved is loaded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch_geometric.nn import GATv2Conv, GCNConv, SAGEConv, to_hetero

import nodebits
from nodebits.core.errors import ConfigError

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
PTQ = nodebits.UniformConfig(bits=8, mode="ptq")


class Stack(nn.Module):
    """Convolutions in a list, as many different ones as given."""

    def __init__(self, convs: list[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return x


class Siamese(nn.Module):
    """One block under two names, one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.right = self.left
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.first.weight
        self.conv = GCNConv(8, 8)
        self.conv.lin.twin = self.last

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.left(x) + self.right(x * 2) + self.first(x)
        return self.last(self.conv(x, edge_index))


class Block(nn.Module):
    """A layer and the block around it are both reached twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Stack([GCNConv(8, 8)])
        self.outer = nn.ModuleDict({"a": self.inner, "b": self.inner.convs[0]})

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.outer["b"](self.outer["a"](x, edge_index), edge_index)


def parametrized() -> nn.Module:
    model = Stack([GCNConv(8, 8), GCNConv(8, 8)])
    parametrizations.weight_norm(model.convs[0].lin)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "three times": lambda: Stack([GCNConv(8, 8)] * 3),
    "first and last": lambda: Stack([one := SAGEConv(8, 8), GCNConv(8, 8), one]),
    "shared inside": lambda: Stack([GATv2Conv(8, 8, share_weights=True)] * 2),
    "siamese": Siamese,
    "nested": Block,
    "parametrized": parametrized,
}


@pytest.mark.filterwarnings("ignore::nodebits.core.errors.UnsupportedLayerWarning")
@pytest.mark.parametrize("name", MODELS)
def test_every_name_is_loaded(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    prepared = nodebits.prepare(model, PTQ)
    nodebits.calibrate(prepared, X, EDGES)
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        assert torch.equal(packed.predict(X, EDGES), prepared(X, EDGES))
        assert (packed.predict(X, EDGES) - model(X, EDGES)).abs().max() < 0.1
    packed.save(tmp_path / "m.safetensors")
    loaded = nodebits.load(tmp_path / "m.safetensors", model=MODELS[name]())
    assert torch.equal(loaded.predict(X, EDGES), packed.predict(X, EDGES))
    assert loaded.layer_paths() == packed.layer_paths()
    loaded.save(tmp_path / "again.safetensors")
    again = (tmp_path / "again.safetensors").read_bytes()
    assert again == (tmp_path / "m.safetensors").read_bytes()


def saved(convs: list[nn.Module], path: Path) -> Path:
    prepared = nodebits.prepare(Stack(convs).eval(), PTQ)
    nodebits.calibrate(prepared, X, EDGES)
    nodebits.convert(prepared).save(path)
    return path


def test_two_layers_do_not_fit_one_and_one_not_two(tmp_path: Path) -> None:
    one, two = GCNConv(8, 8), GCNConv(8, 8)
    path = saved([one, two], tmp_path / "two.safetensors")
    with pytest.raises(ConfigError, match=r"'convs\.\d.*under another name.*two layers"):
        nodebits.load(path, model=Stack([one, one]))
    path = saved([one, one], tmp_path / "one.safetensors")
    with pytest.raises(ConfigError, match="does not fit the module"):
        nodebits.load(path, model=Stack([one, two]))


class Stateful(Stack):
    """Keeps something beside tensors in its state."""

    def get_extra_state(self) -> Any:
        return {"version": 1}


class Renames(Stack):
    """Writes its state under names that it does not read."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}scale"] = destination.pop(f"{prefix}gain")

    def __init__(self, convs: list[nn.Module]) -> None:
        super().__init__(convs)
        self.gain = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Stateful, "'_extra_state'.*dict"), (Renames, "not saved.*Missing key.*gain")],
)
def test_what_could_not_be_loaded_is_not_saved(
    kind: type[Stack], reason: str, tmp_path: Path
) -> None:
    path = saved([GCNConv(8, 8)], tmp_path / "m.safetensors")
    before = path.read_bytes()
    prepared = nodebits.prepare(kind([GCNConv(8, 8)]).eval(), PTQ)
    nodebits.calibrate(prepared, X, EDGES)
    packed = nodebits.convert(prepared)
    with pytest.raises(ConfigError, match=f"(?s){reason}"):
        packed.save(path)
    assert path.read_bytes() == before


def test_node_types_add_up_in_one_order(tmp_path: Path) -> None:
    """``to_hetero`` adds the results of layers: packed, prepared and loaded agree bit for bit."""
    torch.manual_seed(0)
    types = (["a", "b"], [("a", "to", "b"), ("b", "of", "a"), ("a", "near", "a")])
    from torch_geometric.nn import GraphSAGE

    model = to_hetero(GraphSAGE(8, 16, 2, 3), types).eval()
    x = {"a": torch.randn(30, 8), "b": torch.randn(20, 8)}
    sizes = {"a": 30, "b": 20}
    edges = {
        kind: torch.stack([torch.randint(sizes[kind[i]], (90,)) for i in (0, 2)])
        for kind in types[1]
    }
    prepared = nodebits.prepare(model, PTQ)
    nodebits.calibrate(prepared, x, edges)
    packed = nodebits.convert(prepared)
    packed.save(tmp_path / "m.safetensors")
    loaded = nodebits.load(tmp_path / "m.safetensors", model=model)
    with torch.no_grad():
        simulated = prepared(x, edges)
    for _ in range(2):  # a second forward may compute what the first one deferred
        for found in (packed.predict(x, edges), loaded.predict(x, edges)):
            assert all(torch.equal(found[kind], simulated[kind]) for kind in x)
