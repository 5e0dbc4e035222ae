"""``nodebits partition``, and ``predict`` on its parts."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np


def test_one_process_on_one_part_predicts_the_same(run, finished, tmp_path):
    model, parts = finished / "model.safetensors", tmp_path / "parts"
    whole, out = tmp_path / "whole.csv", tmp_path / "parts.csv"
    assert run("predict", model, "--out", whole).code == 0
    told = run("partition", model, "--parts", "1", "--out", parts, "--json").json()
    assert told["parts"] == 1 and told["boundary"] == 0 and told["nodes"] == 1797
    result = run("predict", model, "--data", parts, "--out", out, "--json").json()
    assert result["count"] == 1797 and result["sent"] == [0] and result["resumed"] == 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in parts.iterdir()) == [
        "part-0.safetensors",
        "partition.json",
    ]


def test_what_does_not_fit(run, finished, tmp_path):
    model, parts, out = finished / "model.safetensors", tmp_path / "parts", tmp_path / "p.npy"
    assert run("partition", model, "--parts", "2", "--out", parts).code == 0
    again = run("partition", model, "--parts", "2", "--out", parts)
    assert again.code == 1 and "holds parts already" in again.err
    assert run("partition", model, "--parts", "3", "--out", parts, "--force").code == 0
    alone = run("predict", model, "--data", parts, "--out", out)
    assert alone.code == 2 and "torchrun --nproc-per-node 3" in alone.err and not out.exists()
    nodes = ("--nodes", "1", "--num-neighbors", "1")
    asked = run("predict", model, "--data", parts, "--out", out, *nodes)
    assert asked.code == 2 and "--nodes is not for parts" in asked.err
    assert run("partition", model, "--parts", "0", "--out", tmp_path / "x").code == 2
    many = run("partition", model, "--parts", "9999", "--out", tmp_path / "x")
    assert many.code == 2 and "1 to 1797" in many.err
    split = ("--split-hubs", "5", "--parts", "3", "--out", parts, "--force")
    told = run("partition", model, *split, "--json").json()
    assert told["split_hubs"] == 5 and 0 < told["hubs"] <= told["partial"]
    assert (
        f"{told['partial']} partial sums of {told['hubs']} hubs"
        in run("partition", model, *split).out
    )
    assert run("partition", model, "--split-hubs", "0", *split[2:]).code == 2
    about = json.loads((parts / "partition.json").read_text())
    (parts / "partition.json").write_text(json.dumps({**about, "parts": "3"}))
    damaged = run("predict", model, "--data", parts, "--out", out)
    assert damaged.code == 1 and "parts" in damaged.err
    assert not np.any([path.suffix == ".npy" for path in tmp_path.iterdir()])


def write_shop(folder: Path, weighted: bool) -> None:
    """Own data with labels: the same things and edges, with or without weights."""
    rng = random.Random(0)
    folder.mkdir()
    with open(folder / "nodes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "size", "price", "kind"])
        for row in range(40):
            writer.writerow([f"t{row}", rng.gauss(row % 3, 1), rng.random(), "xyz"[row % 3]])
    with open(folder / "edges.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "target"] + ["weight"] * weighted)
        for _ in range(150):
            ends, weight = [f"t{rng.randrange(40)}" for _ in "ab"], round(3 * rng.random(), 3)
            writer.writerow(ends + [weight] * weighted)


def test_weights_of_the_data_count_whatever_the_model_was_trained_on(run, tmp_path):
    write_shop(tmp_path / "plain", False)
    write_shop(tmp_path / "weighted", True)
    quick = ["--epochs", "2", "--latency-repeats", "1", "--no-progress", "--threads", "1"]
    trained = ["--target", "kind", "--model", "gcn", "--out", tmp_path / "q", *quick]
    assert run("quantize", "--data", tmp_path / "plain", *trained).code == 0
    model, found = tmp_path / "q" / "model.safetensors", {}
    for name in ("plain", "weighted"):
        data, parts = tmp_path / name, tmp_path / f"{name}-parts"
        out, whole = tmp_path / f"{name}.csv", tmp_path / f"{name}-whole.csv"
        assert run("predict", model, "--data", data, "--out", whole).code == 0
        assert run("partition", model, "--data", data, "--parts", "1", "--out", parts).code == 0
        assert run("predict", model, "--data", parts, "--out", out).code == 0
        found[name] = out.read_bytes()
        assert found[name] == whole.read_bytes()
    assert found["plain"] != found["weighted"]
