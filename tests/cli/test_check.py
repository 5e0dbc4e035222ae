"""``nodebits check`` imports a model, reads a graph as plain data, and says what would run how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

SOURCE = """
from torch import nn
from torch_geometric.nn import GCNConv

class Net(GCNConv):
    def __init__(self):
        super().__init__(4, 3)

def fitting(in_channels, out_channels, heads=1):
    return GCNConv(in_channels, out_channels * heads)

def wide(channels):
    return GCNConv(channels, 3)

number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = Data(x=torch.randn(6, 4), edge_index=torch.randint(6, (2, 20)))
    torch.save(data, tmp_path / "graph.pt")
    torch.save({"x": data.x}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no graph")
    return tmp_path


def test_widths_follow_from_the_data_and_the_rest_is_given(
    folder: Path, run: Callable[..., Any]
) -> None:
    job = ["check", "--model", "own_models:fitting", "--data", folder / "graph.pt"]
    assert "GCNConv" in run(*job).out
    assert "GCNConv" in run(*job, "--model-args", '{"heads": 2}').out
    refused = run(*job, "--model-args", '{"head": 2}')
    assert refused.code == 2 and "head" in refused.err and "--model-args" in refused.err


def test_a_model_of_ones_own(folder: Path, run: Callable[..., Any]) -> None:
    args = ["check", "--model", "own_models:Net", "--data", "graph.pt"]
    result = run(*args)
    assert result.code == 0, result.err
    assert "integer sum" in result.out and "integer product" in result.out
    found = run(*args, "--json").json()
    assert {layer["runs"] for layer in found["layers"]} == {"integer sum", "integer product"}


def test_tables_and_roles_of_columns_as_elsewhere(folder: Path, run: Callable[..., Any]) -> None:
    shop = folder / "shop"
    shop.mkdir()
    rows = [f"{i},{i % 5},{i * 3 % 7},{i * i % 11},{i % 4},{i % 3}" for i in range(60)]
    (shop / "nodes.csv").write_text("\n".join(["id,a,b,c,d,price", *rows]))
    links = [f"{i},{(i * 7 + 3) % 60}" for i in range(60)]
    (shop / "edges.csv").write_text("\n".join(["source,target", *links]))
    args = ["check", "--model", "own_models:fitting", "--data", "shop", "--target", "price"]
    args += ["--task", "node", "--json"]
    result = run(*args)
    assert result.code == 0, result.err
    assert "GCNConv" in str(run(*args[:-1]).out)
    refused = run("check", "--model", "own_models:fitting", "--data", "shop", "--target", "cost")
    assert refused.code and "cost" in refused.err
    # Three columns are left: the model that maps four does not fit.
    fewer = run(*args, "--model", "own_models:Net", "--ignore", "d")
    assert fewer.code and "4" in fewer.err


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("own_models", "graph.pt", "must be MODULE:NAME"),
        ("own_models:Nett", "graph.pt", "Nett"),
        ("no_such_module:Net", "graph.pt", "no_such_module"),
        ("own_models:wide", "graph.pt", "without arguments"),
        ("own_models:number", "graph.pt", "without arguments"),
    ],
)
def test_what_cannot_be_checked_is_named(
    folder: Path, run: Callable[..., Any], model: str, data: str, message: str
) -> None:
    result = run("check", "--model", model, "--data", data)
    assert result.code == 2
    assert message in " ".join(result.err.split())


@pytest.mark.parametrize(
    ("data", "message"),
    [("other.pt", "holds a dict"), ("text.pt", "no graph written by torch.save")],
)
def test_data_that_are_no_graph_are_named(
    folder: Path, run: Callable[..., Any], data: str, message: str
) -> None:
    result = run("check", "--model", "own_models:Net", "--data", data)
    assert result.code == 1
    assert message in " ".join(result.err.split())
