from __future__ import annotations

import json

import pytest

SMALL = ["--threads", "1", "--repeats", "1"]


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    """A gibibyte takes seconds on a busy machine, and figures are not looked at."""
    from nodebits.bench.speed import stream

    monkeypatch.setattr(stream, "_BYTES", 1 << 22)


def test_aggregate_prints_a_table_and_writes_rows(run, tmp_path):
    rows, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    arguments = ["--graph", "random:60:500", "--columns", "8", "--bits", "4,1"]
    arguments += ["--cache", tmp_path / "cache", "--json", rows, "--plot", picture]
    result = run("bench", "aggregate", *arguments, *SMALL)
    assert result.code == 0, result.err
    assert "nodebits u4" in result.out and "stream" in result.out
    document = json.loads(rows.read_text())
    assert {"nodebits u1", "embedding_bag float32"} <= {r["impl"] for r in document["rows"]}
    assert str(tmp_path) not in rows.read_text() and "--columns 8" in document["command"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_model_train_dense_and_growth(run, tmp_path):
    cache = ["--cache", tmp_path]
    result = run(
        "bench", "model", "--graph", "digits", "--models", "gcn", "--bits", "4", *SMALL, *cache
    )
    assert result.code == 0 and "packed input" in result.out, result.err
    result = run("bench", "train", "--graph", "random:50:300", "--hidden", "8", *SMALL, *cache)
    assert result.code == 0 and "Degree-Quant" in result.out, result.err
    result = run("bench", "dense", "--shape", "30x20x10", "--bits", "2", *SMALL)
    assert result.code == 0 and "u2 x s2" in result.out, result.err
    limits = ["--from", "1000", "--to", "3000"]
    result = run("bench", "growth", *limits, "--bits", "4", "--columns", "8", *SMALL, *cache)
    assert result.code == 0 and "log-log slope" in result.out, result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["aggregate", "--bits", "4,nine"], ["--bits", "4,nine"]),
        (["aggregate", "--bits", "9"], ["9", "1 to 8"]),
        (["aggregate", "--graph", "redit-like"], ["redit-like", "reddit-like"]),
        (["aggregate", "--threads", "0"], ["threads", "0"]),
        (["aggregate", "--plot", "picture.doc"], ["picture.doc", "png"]),
        (["dense", "--shape", "3x4"], ["3x4", "NxKxM"]),
        (["model", "--models", "gcm"], ["gcm", "gcn"]),
        (["growth", "--from", "5"], ["5", "1000"]),
        (["nothing"], ["nothing"]),
    ],
)
def test_bad_usage(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = run("bench", *arguments)
    assert result.code == 2, result.err
    lines = result.err.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), result.err
    assert not list(tmp_path.iterdir())


def test_a_graph_that_does_not_fit(run, tmp_path, monkeypatch):
    from nodebits.bench.speed import memory

    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 20)
    result = run("bench", "aggregate", "--cache", tmp_path, *SMALL)
    assert result.code == 1 and "MiB are available" in result.err
