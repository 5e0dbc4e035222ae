"""A file names the class of its model: PyG's own is made again, a user's only where allowed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.runtime import container

N, C = 20, 8
SOURCE = """
from pathlib import Path
from torch import nn
from torch_geometric.nn import GCNConv

Path("imported").touch()

class Net(nn.Module):
    def __init__(self, channels, classes=3, widths=(4,)):
        super().__init__()
        self.widths = widths
        self.first = GCNConv(channels, widths[0])
        self.last = nn.Linear(widths[0], classes)

    def forward(self, x, edge_index):
        return self.last(self.first(x, edge_index).relu())

def make(**arguments):
    Path("called").touch()
    return Net(8)
"""


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(N, C), torch.randint(N, (2, 80))


def packed_of(model: nn.Module, *args: Any) -> nodebits.PackedModel:
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, *args)
    return nodebits.convert(prepared, leave_unseen="float")


OWN: dict[str, Callable[[], nn.Module]] = {
    "GCN": lambda: pyg.GCN(C, 8, 3, 4, dropout=0.5, act="elu"),
    "GraphSAGE": lambda: pyg.GraphSAGE(C, 8, 2, 4, aggr="max", norm="BatchNorm", jk="cat"),
    "GAT": lambda: pyg.GAT(C, 8, 2, 4, heads=2),
    "GIN": lambda: pyg.GIN(C, 8, 2, 4),
    "GraphUNet": lambda: pyg.GraphUNet(C, 8, 4, 2),
    "SAGEConv": lambda: pyg.SAGEConv(C, 4, normalize=True),
    "TransformerConv": lambda: pyg.TransformerConv(C, 4, heads=2, concat=False),
}


@pytest.mark.parametrize("name", OWN)
def test_a_class_of_pyg_is_made_again(name: str, tmp_path: Path) -> None:
    packed, (x, edges) = packed_of(OWN[name](), *inputs()), inputs()
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded.predict(x, edges), packed.predict(x, edges))


def test_arguments_that_cannot_be_told_are_not_guessed(tmp_path: Path) -> None:
    packed = packed_of(pyg.GCN(C, 8, 2, 4, act=lambda x: x), *inputs())
    packed.save(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="not what makes it"):
        nodebits.load(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="'hidden_channels' is 6, not 8"):
        wrong = {"in_channels": C, "hidden_channels": 6, "num_layers": 2, "out_channels": 4}
        packed_of(pyg.GCN(C, 8, 2, 4), *inputs()).save(tmp_path / "other", arguments=wrong)
    with pytest.raises(ConfigError, match="act is a function"):
        packed.save(tmp_path / "other", arguments={"act": lambda x: x})
    assert not (tmp_path / "other").exists()


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a user's class, whose module was never imported as far as Python knows."""
    (tmp_path / "own_net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = importlib.import_module("own_net").Net
    packed = packed_of(kind(8, widths=(6, 2)), *inputs())
    packed.save("model.safetensors", arguments={"channels": 8, "widths": (6, 2)})
    del sys.modules["own_net"]
    Path("imported").unlink()
    yield tmp_path / "model.safetensors"
    sys.modules.pop("own_net", None)


def test_a_users_class_is_imported_only_where_allowed(users: Path) -> None:
    with pytest.raises(ConfigError, match=r"allow=\['own_net'\]"):
        nodebits.load(users)
    for other in ("own", "own_net.sub", "torch"):
        with pytest.raises(ConfigError, match="own_net"):
            nodebits.load(users, allow=[other])
    assert "own_net" not in sys.modules and not Path("imported").exists()
    with pytest.raises(ConfigError, match=r"allow=\['own_net'\]"):
        nodebits.load(users, allow="own_net")
    loaded = nodebits.load(users, allow=["own_net"])
    assert loaded.module.widths == (6, 2)
    module = sys.modules["own_net"]
    given = nodebits.load(users, model=module.Net(8, widths=(6, 2)))
    x, edges = inputs()
    assert torch.equal(loaded.predict(x, edges), given.predict(x, edges))


def rewritten(path: Path, **changes: Any) -> Path:
    header, tensors = container.read(path, container.MODEL)
    for key in ("format", "version", "checksums"):
        header.pop(key)
    header["class"] = {**header["class"], **changes}
    container.write(path, container.MODEL, header, tensors)
    return path


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "a function": ({"name": "make"}, "no class of modules"),
    "another module's class": ({"name": "nn.Linear"}, "no class of modules"),
    "no name": ({"name": "__import__('os')"}, "no class"),
    "nothing there": ({"name": "Nett"}, "there is no 'Nett'"),
    "a module that runs": ({"module": "antigravity"}, "allow="),
    "a module of torch": ({"module": "torch.nn", "name": "Linear"}, "allow="),
    "PyG's templates": (
        {"module": "torch_geometric.nn.sequential", "name": "Sequential"},
        "allow=",
    ),
    "no such argument": ({"arguments": {"more": 1}}, "is not made by"),
    "a loop without end": ({"arguments": {"channels": 2**40}}, "no size of its tensors"),
    "no data": ({"arguments": {"channels": {"code": "x"}}}, "no argument"),
    "a list": ({"arguments": []}, "an object"),
    "a number": ({"module": 3}, "a string"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_file_runs_what_it_likes(name: str, users: Path) -> None:
    changes, message = HOSTILE[name]
    with pytest.raises((ConfigError, FileFormatError), match=message):
        nodebits.load(rewritten(users, **changes), allow=["own_net"])
    assert not Path("called").exists() and "antigravity" not in sys.modules
