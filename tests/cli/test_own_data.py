"""Data and models of the user's own from the command line, as a user types it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

QUICK = ["--epochs", "4", "--latency-repeats", "1", "--no-progress", "--threads", "1"]
NET = """
from torch import nn
from torch_geometric.nn import GCNConv


class Net(nn.Module):
    def __init__(self, in_channels, out_channels, hidden=4):
        super().__init__()
        self.first, self.last = GCNConv(in_channels, hidden), GCNConv(hidden, out_channels)

    def forward(self, x, edge_index):
        return self.last(self.first(x, edge_index).relu(), edge_index)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with ``shop``: 60 things with ids, colours, sizes and prices."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shop", 60, 100, priced=True)
    write(tmp_path / "new", 7, 900, priced=False)
    return tmp_path


def write(folder: Path, count: int, first: int, priced: bool) -> None:
    random = np.random.default_rng(first)
    folder.mkdir()
    with open(folder / "nodes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "colour", "size", "kind"] + ["price"] * priced)
        for row in range(count):
            size = random.normal()
            cells = [f"t{first + 3 * row}", ["red", "blue"][row % 2], f"{size:.3f}"]
            cells += [["big", "small"][int(size < 0)]] + [f"{size + row % 2:.3f}"] * priced
            writer.writerow(cells)
    with open(folder / "edges.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "target"])
        for row in range(count):
            writer.writerow([f"t{first + 3 * row}", f"t{first + 3 * ((row + 2) % count)}"])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_classes_of_texts_and_ids_come_back(run: Any, shop: Path) -> None:
    job = ["quantize", "--data", "shop", "--target", "kind", "--ignore", "price", *QUICK]
    done = run(*job, "--split", "0.6/0.2/0.2", "--seed", "3", "--hidden", "8", "--out", "out")
    assert done.code == 0, done.err
    assert "classes big, small" in done.out and "colour one-hot in 2" in done.out
    model = "out/model.safetensors"
    figures = run("evaluate", model, "--data", "shop", "--json").json()
    report = json.loads((shop / "out/report.json").read_text())
    assert figures["test"]["accuracy"] == report["accuracy"]["packed"]["mean"]
    assert figures["test"]["count"] == 12
    other = run("evaluate", model, "--data", "shop", "--metric", "f1_macro", "--json").json()
    assert "f1_macro" in other["test"]
    # The new things have no price and no kind that is looked at; columns may stand in any order.
    things = shop / "new/nodes.csv"
    things.write_text(things.read_text().replace("blue", "mauve", 1))
    done = run("predict", model, "--data", "new", "--out", "p.csv")
    assert done.code == 0, done.err
    assert "colour that the model does not know, such as 'mauve'" in done.out
    told = run("predict", model, "--data", "new", "--out", "p.csv", "--force", "--json").json()
    assert "such as 'mauve'" in told["notes"]
    found = rows(shop / "p.csv")
    assert [row["node"] for row in found] == [f"t{900 + 3 * n}" for n in range(7)]
    assert {row["class"] for row in found} <= {"big", "small"}
    assert float(found[0]["logit_0"]) == pytest.approx(float(found[0]["logit_0"]))
    refused = run("predict", model, "--data", "new", "--out", "p.txt")
    assert refused.code == 2 and ".parquet" in refused.err


def test_a_model_of_ones_own(run: Any, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "own_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(str(shop))
    job = ["quantize", "--data", "shop", "--target", "price", "--ignore", "kind", *QUICK]
    own = ["--model", "own_nets:Net", "--model-args", '{"hidden": 6}', "--metric", "rmse"]
    done = run(*job, *own, "--out", "out")
    assert done.code == 0, done.err
    model = "out/model.safetensors"
    refused = run("evaluate", model, "--data", "shop")
    assert refused.code == 2 and "own_nets" in refused.err and "allow" in refused.err
    found = run("evaluate", model, "--data", "shop", "--allow", "own_nets", "--json").json()
    assert (
        found["test"]["rmse"]
        == json.loads((shop / "out/report.json").read_text())["rmse"]["packed"]["mean"]
    )
    done = run("predict", model, "--data", "new", "--allow", "own_nets", "--out", "p.csv")
    assert done.code == 0 and len(rows(shop / "p.csv")) == 7
    for more, words in (
        (["--model-args", "{hidden"], "not JSON"),
        (["--model-args", '{"width": 3}'], "cannot be made with"),
        (["--hidden", "8"], "given by model_args"),
    ):
        refused = run(*job, "--model", "own_nets:Net", *more, "--out", "bad")
        assert refused.code == 2 and words in refused.err, refused.err
    refused = run(*job, "--model", "own_nets:Nett", "--out", "bad")
    assert refused.code == 2 and "Nett" in refused.err
    sys.modules.pop("own_nets", None)


def test_settings_are_written_and_read(run: Any, shop: Path) -> None:
    done = run("init", "--data", "shop", "--target", "price", "--ignore", "kind")
    assert done.code == 0, done.err
    assert "target price" in done.out and "nodebits.toml" in done.out
    text = (shop / "nodebits.toml").read_text()
    assert 'task = "node-regression"' in text and 'metric = "mae"' in text
    done = run("quantize", "--config", "nodebits.toml", *QUICK, "--out", "out")
    assert done.code == 0, done.err
    again = run("init", "--data", "shop", "--target", "price")
    assert again.code == 1 and "--force" in again.err


def test_links_of_tables_and_the_pairs_that_are_asked_for(run: Any, shop: Path) -> None:
    with open(shop / "shop/edges.csv", "a", newline="") as file:
        file.writelines(f"t{100 + 3 * n},t{100 + 3 * ((n + 5) % 60)}\n" for n in range(60))
    job = ["quantize", "--data", "shop", "--task", "link", "--ignore", "kind,price", *QUICK]
    done = run(*job, "--hidden", "8", "--out", "out")
    assert done.code == 0, done.err
    model = "out/model.safetensors"
    found = run("evaluate", model, "--data", "shop", "--metric", "hits@10", "--json").json()
    assert 0 <= found["test"]["hits@10"] <= 1
    (shop / "shop/pairs.csv").write_text("source,target\nt100,t103\nt109,t100\n")
    done = run("predict", model, "--data", "shop", "--out", "p.csv")
    assert done.code == 0, done.err
    found = rows(shop / "p.csv")
    assert [(row["source"], row["target"]) for row in found] == [("t100", "t103"), ("t109", "t100")]
    assert 0 < float(found[0]["probability"]) < 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "shop", "--dataset", "Cora"], "give one"),
        (["--data", "nowhere"], "no file or folder nowhere"),
        (["--dataset", "digits", "--target", "price"], "target is for data of your own"),
        (["--data", "shop", "--target", "prize"], "no table has the target prize"),
        (["--data", "shop", "--target", "price", "--metric", "accuracy"], "metric of task"),
        (["--data", "shop", "--target", "kind", "--class-weight", "heavy"], "class_weight"),
        (["--data", "shop", "--target", "kind", "--split", "time"], "split is 'time'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    run: Any, shop: Path, arguments: list[str], words: str
) -> None:
    refused = run("quantize", *arguments, *QUICK, "--out", "out")
    assert refused.code in (1, 2) and words in refused.err, refused.err
    assert len(refused.err.strip().splitlines()) == 1
