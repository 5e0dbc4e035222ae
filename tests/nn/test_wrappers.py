"""Wrappers are looked through, and models that deepcopy refuses are copied."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch_geometric.nn import GCNConv, Sequential

import nodebits
from nodebits.core.errors import UnsupportedLayerError
from nodebits.nn.wrappers import copy_module, unwrap, unwrap_children

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
PTQ = nodebits.UniformConfig(bits=8, mode="ptq")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(8, 8)
        self.second = GCNConv(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": compiled,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "both": lambda model: nn.DataParallel(compiled(model)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_models_are_prepared_converted_and_loaded(name: str, tmp_path: Path) -> None:
    wrap, plain = WRAPPERS[name], Net().eval()
    prepared = nodebits.prepare(wrap(plain), PTQ)
    assert type(prepared) is Net
    nodebits.calibrate(prepared, X, EDGES)
    packed = nodebits.convert(wrap(prepared))
    packed.save(tmp_path / "m.safetensors")
    assert packed.layer_paths()[0] == "first"
    for model in (plain, wrap(plain)):
        loaded = nodebits.load(tmp_path / "m.safetensors", model=model)
        assert torch.equal(loaded.predict(X, EDGES), packed.predict(X, EDGES))


def test_wrapped_parts_are_looked_through(tmp_path: Path) -> None:
    model = Net().eval()
    model.second = compiled(model.second)
    prepared = nodebits.prepare(model, PTQ)
    assert unwrap(model.second) is not model.second, "the model that was given is not changed"
    nodebits.calibrate(prepared, X, EDGES)
    packed = nodebits.convert(prepared)
    packed.save(tmp_path / "m.safetensors")
    loaded = nodebits.load(tmp_path / "m.safetensors", model=Net())
    assert torch.equal(loaded.predict(X, EDGES), packed.predict(X, EDGES))
    unwrap_children(model)
    assert type(model.second) is GCNConv


def test_an_average_that_began_before_the_first_step_converts() -> None:
    prepared = nodebits.prepare(Net(), nodebits.UniformConfig(bits=4))
    average = AveragedModel(prepared)
    for _ in range(2):
        prepared.train()(X, EDGES).sum().backward()
        average.update_parameters(prepared)
    with torch.no_grad():
        simulated = average.module.eval()(X, EDGES)
    assert torch.equal(nodebits.convert(average).predict(X, EDGES), simulated)


class Keeps(Net):
    """Keeps a result of its last forward, and what nobody can copy."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.state = {"lock": threading.RLock(), "count": 0}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        with self.lock:
            self.hidden = self.first(x, edge_index)
            self.all = [self.hidden, {"x": self.hidden.relu()}]
            return self.second(self.hidden.relu(), edge_index)


def test_models_that_keep_results_and_locks(tmp_path: Path) -> None:
    model = Keeps()
    model(X, EDGES)
    model.eval()
    prepared = nodebits.prepare(model, PTQ)
    assert prepared.state is not model.state, "only what cannot be copied is shared"
    assert prepared.lock is model.lock and not prepared.hidden.requires_grad
    nodebits.calibrate(prepared, X, EDGES)
    with torch.enable_grad():
        simulated = prepared(X, EDGES)
    packed = nodebits.convert(prepared)
    assert torch.equal(packed.predict(X, EDGES), simulated)
    packed.save(tmp_path / "m.safetensors")  # after a forward, with a waiting result kept
    loaded = nodebits.load(tmp_path / "m.safetensors", model=model)
    assert torch.equal(loaded.predict(X, EDGES), simulated)


class Refuses(nn.Module):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("one of a kind")


def test_what_cannot_be_copied_at_all_is_said() -> None:
    model = Net()
    model.extra = Refuses()
    with pytest.raises(UnsupportedLayerError, match=r"Net .*one of a kind.*inplace=True"):
        nodebits.prepare(model, PTQ)
    assert nodebits.prepare(model, PTQ, inplace=True) is model


def test_shared_objects_stay_shared() -> None:
    model = Net()
    weight = model.first.lin.weight
    copied = copy_module(model, {id(weight): weight})
    assert copied.first.lin.weight is weight
    assert copied.second.lin.weight is not model.second.lin.weight


def test_copies_of_sequences_keep_their_forward_under_repeated_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # PyG writes a forward only where the file that made the model can be imported by its name.
    monkeypatch.setitem(sys.modules, Path(__file__).stem, sys.modules[__name__])
    first = Sequential("x, edge_index", [(GCNConv(8, 4), "x, edge_index -> x"), nn.ReLU()])
    both = [(GCNConv(8, 8), "x, edge_index -> x"), (GCNConv(8, 4), "x, edge_index -> x")]
    second = Sequential("x, edge_index", both)
    random.seed(5)
    copy_module(first)
    random.seed(5)
    assert torch.equal(copy_module(second)(X, EDGES), second(X, EDGES))
