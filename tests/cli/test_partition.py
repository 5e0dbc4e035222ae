"""``nodebits partition``, and ``predict`` on its parts."""

from __future__ import annotations

import json

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
    about = json.loads((parts / "partition.json").read_text())
    (parts / "partition.json").write_text(json.dumps({**about, "parts": "3"}))
    damaged = run("predict", model, "--data", parts, "--out", out)
    assert damaged.code == 1 and "parts" in damaged.err
    assert not np.any([path.suffix == ".npy" for path in tmp_path.iterdir()])
