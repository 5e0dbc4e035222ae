from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

import simulate
from accelerator import DEFAULTS

from .conftest import QUICK


def test_job_leaves_three_files_and_nothing_else(finished):
    assert sorted(os.listdir(finished)) == ["model.safetensors", "report.html", "report.json"]


def test_report_has_the_promised_keys(finished):
    report = json.loads((finished / "report.json").read_text())
    for name in ("float", "simulated", "packed"):
        figures = report["accuracy"][name]
        assert len(figures["values"]) == 2
        assert figures["mean"] == pytest.approx(sum(figures["values"]) / 2)
        assert figures["std"] >= 0
    assert report["accuracy"]["packed"]["mean"] > 0.8
    assert report["agreement"] >= 0.999
    assert report["bits"]["average"] == 4.0
    assert report["bits"]["average_with_scales"] >= 4.0
    sizes = report["bytes"]
    assert sizes["file"] == (finished / "model.safetensors").stat().st_size
    assert sizes["activations"] < sizes["float_activations"] / 7
    assert sizes["float_file"] > 0
    for name in ("float", "packed"):
        assert report["latency_ms"][name]["median"] > 0
    ratio = report["latency_ms"]["float"]["median"] / report["latency_ms"]["packed"]["median"]
    assert report["speedup"] == pytest.approx(ratio)
    assert report["train_seconds"] > 0
    assert report["versions"]["torch"]
    assert report["isa"] and report["command"].startswith("nodebits ")
    assert report["interrupted"] is False
    assert {site["site"] for site in report["sites"]} >= {"input", "message", "weight"}


def test_best_run_is_chosen_on_validation(finished):
    report = json.loads((finished / "report.json").read_text())
    scores = [run["validation"] for run in report["runs"]]
    assert scores[report["best_run"]] == max(scores)


def test_page_is_self_contained(finished):
    page = (finished / "report.html").read_text()
    assert "<script" not in page and "http" not in page and "src=" not in page
    assert "GCN on digits, 4 bits" in page and page.count('<svg class="chart"') == 4


def test_evaluate_repeats_the_report(run, finished):
    report = json.loads((finished / "report.json").read_text())
    model = finished / "model.safetensors"
    result = run("evaluate", model, "--dataset", "digits", "--json").json()
    best = report["runs"][report["best_run"]]
    assert result["test"]["accuracy"] == best["packed"]
    assert result["val"]["accuracy"] == best["validation"]
    assert "cross entropy" in run("evaluate", model).out


def test_predict_writes_a_class_for_every_node(run, finished, tmp_path):
    out = tmp_path / "pred.npy"
    model = finished / "model.safetensors"
    assert run("predict", model, "--dataset", "digits", "--out", out).code == 0
    classes = np.load(out, allow_pickle=False)
    assert classes.dtype == np.int64 and classes.shape == (1797,)
    assert set(classes) <= set(range(10))
    assert os.listdir(tmp_path) == ["pred.npy"]


def test_packed_features_in_a_file(run, finished, tmp_path):
    model, x, out = finished / "model.safetensors", tmp_path / "x.safetensors", tmp_path / "p.npy"
    result = run("pack", model, "--out", x, "--json").json()
    assert result["bytes"] == x.stat().st_size < result["float_bytes"] / 4
    assert run("predict", model, "--features", x, "--out", out).code == 0
    assert run("predict", model, "--out", tmp_path / "q.npy").code == 0
    assert out.read_bytes() == (tmp_path / "q.npy").read_bytes()
    missing = run("predict", model, "--features", tmp_path / "none", "--out", out)
    assert missing.code == 2 and "does not exist" in missing.err
    refused = run("pack", model, "--dataset", "digits-graphs", "--out", tmp_path / "y.safetensors")
    assert refused.code == 2 and "digits-graphs (graph level task)" in refused.err


def test_predictions_for_some_nodes(run, finished, tmp_path):
    model, whole, some = finished / "model.safetensors", tmp_path / "q.npy", tmp_path / "p.npy"
    x, rows = tmp_path / "x.safetensors", tmp_path / "p.csv"
    assert run("predict", model, "--out", whole).code == 0
    every = ("--nodes", "5,0,1796,5", "--num-neighbors", "-1,-1,-1")
    assert run("predict", model, *every, "--out", some).code == 0
    assert np.array_equal(np.load(some), np.load(whole)[[5, 0, 1796, 5]])
    assert run("pack", model, "--out", x).code == 0
    few = ("--nodes", "7,3", "--num-neighbors", "2,2", "--seed", "1", "--features", x)
    found = [run("predict", model, *few, "--out", rows, "--force", "--json") for _ in range(2)]
    assert found[0].json() == found[1].json() and found[0].json()["count"] == 2
    lines = rows.read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["node", "7", "3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nodes", "1"), "--nodes and --num-neighbors go together"),
        (("--num-neighbors", "1"), "--nodes and --num-neighbors go together"),
        (("--seed", "1"), "--seed is of the sample for --nodes"),
        (("--nodes", "1,a", "--num-neighbors", "1"), "--nodes takes whole numbers"),
        (("--nodes", "1797", "--num-neighbors", "1"), "node_ids[0] is 1797, outside [0, 1797)"),
        (("--nodes", "1", "--num-neighbors", "-2"), "num_neighbors[0] is -2"),
    ],
)
def test_nodes_that_are_not_sampled(run, finished, tmp_path, options, message):
    refused = run("predict", finished / "model.safetensors", *options, "--out", tmp_path / "p.npy")
    assert refused.code in (1, 2) and message in " ".join(refused.err.split())
    assert os.listdir(tmp_path) == []


def test_predictions_layer_by_layer(run, finished, tmp_path):
    model, whole, some = finished / "model.safetensors", tmp_path / "q.npy", tmp_path / "p.npy"
    assert run("predict", model, "--out", whole).code == 0
    assert run("predict", model, "--memory", "64GiB", "--out", some).code == 0
    assert np.array_equal(np.load(some), np.load(whole))
    assert sorted(os.listdir(tmp_path)) == ["p.npy", "q.npy"]
    for memory, words in (("2 gib", "expected such as '2GiB'"), ("1MiB", "allow at least")):
        refused = run("predict", model, "--memory", memory, "--out", some, "--force")
        assert refused.code in (1, 2) and words in " ".join(refused.err.split())
    few = ("--nodes", "1", "--num-neighbors", "1", "--memory", "9GiB", "--out", tmp_path / "r.npy")
    assert "--memory is for all nodes" in run("predict", model, *few).err


def test_info_about_the_installation(run):
    result = run("info", "--json").json()
    assert result["kernels"]["isa"] in result["kernels"]["available"]
    assert result["devices"]["cpu"] and "definitions" in result["devices"]["other devices"]
    assert result["versions"]["torch"]
    text, served = run("info").out, result["operators"]
    assert "instruction set in use" in text and "all operators" in text
    assert served.keys() == result["devices"].keys()
    assert set(served["cpu"].values()) <= {"compiled", "definition"}


def test_info_about_a_model(run, finished):
    model = finished / "model.safetensors"
    result = run("info", model, "--json").json()
    assert result["file_bytes"] == model.stat().st_size
    # Edge weights, where a graph has any, would have a width of their own.
    widths = {site["bits"] for site in result["sites"] if site["site"] != "attention"}
    assert widths == {4}
    assert result["metadata"]["dataset"] == "digits"
    assert "convs.0.lin" in run("info", model).out
    with safe_open(model, "pt") as file:
        assert "nodebits" in file.metadata()


def test_toml_stands_in_for_options_and_the_command_line_wins(run, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text(
        'out = "unused"\nbits = 8\nmethod = "uniform"\nmode = "ptq"\nhidden = 8\nepochs = 3\n'
        "latency-repeats = 1\nprogress = false\nwarm-start = true\nthreads = 1\n"
    )
    out = tmp_path / "out"
    report = run("quantize", "--config", job, "--out", out, "--bits", "2", "--json").json()
    assert report["method"]["bits"] == 2
    assert report["method"]["settings"]["mode"] == "ptq"
    assert report["model"]["hidden_channels"] == 8
    assert report["runs"][0]["best_epoch"] is None
    assert not (tmp_path / "unused").exists()


def test_graph_level_job(run, tmp_path):
    arguments = ["--dataset", "digits-graphs", "--model", "gin", "--layers", "2", "--bits", "8"]
    arguments += ["--epochs", "1", "--hidden", "8", "--latency-repeats", "1", "--float-distilled"]
    arguments += ["--threads", "1"]
    result = run("quantize", *arguments, "--out", tmp_path, "--json", "--no-progress")
    report = result.json()
    assert report["agreement"] >= 0.999
    assert len(report["accuracy"]["float_distilled"]["values"]) == 1
    model = tmp_path / "model.safetensors"
    out = tmp_path / "pred.npy"
    assert run("predict", model, "--dataset", "digits-graphs", "--out", out).code == 0
    assert len(np.load(out)) == 1797


def test_module_runs_as_a_process():
    result = subprocess.run(
        [sys.executable, "-m", "nodebits", "--help"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    for command in ("quantize", "evaluate", "predict", "info"):
        assert command in result.stdout


def test_help_does_not_wait_for_torch():
    code = "import sys, nodebits.cli.app; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False"


def test_interrupted_job_continues(run, tmp_path, monkeypatch):
    """Ctrl-C in quantized training keeps a model; the same command then finishes the budget."""
    import signal

    from nodebits.train import loop

    original = loop.Loop.validate

    def press(self):
        metrics = original(self)
        if self.epoch == 3 and self.method is not None:
            os.kill(os.getpid(), signal.SIGINT)
        return metrics

    monkeypatch.setattr(loop.Loop, "validate", press)
    stopped = run("quantize", "--out", tmp_path, *QUICK)
    assert stopped.code == 1 and "interrupted" in stopped.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["interrupted"] is True and report["runs"][0]["epochs"] == 3
    monkeypatch.setattr(loop.Loop, "validate", original)
    assert run("quantize", "--out", tmp_path, *QUICK).code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["interrupted"] is False and report["runs"][0]["epochs"] == 8
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "report.html", "report.json"]


def test_widths_per_node(run, tmp_path):
    """A2Q from the command line: the target is met, widths are drawn, the simulator runs."""
    out = tmp_path / "a2q"
    job = ["quantize", "--method", "a2q", "--bits", "2", "--out", out, "--epochs", "20", "--json"]
    report = run(*job, "--latency-repeats", "1", "--no-progress", "--threads", "1").json()
    assert 1.9 <= report["bits"]["average"] <= 2.0
    page = (out / "report.html").read_text()
    assert "Widths at convs.1.lin.input" in page and "in-degree" in page
    model = out / "model.safetensors"
    found = run("info", model, "--plot", "--dataset", "digits", "--json").json()
    assert found == report["widths"]
    assert sum(found["histograms"][0]["nodes"]) == 1797
    assert "mean width" in run("info", model, "--plot", "--dataset", "digits").out
    assert "in-degree" not in run("info", model, "--plot").out
    simulated = simulate.run(
        argparse.Namespace(
            model=model,
            dataset=None,
            data_root=None,
            cache=None,
            parameters=DEFAULTS,
            raw_input="own",
        )
    )
    assert simulated["speedup"]["int8"] > simulated["speedup"]["int4"] > 1
    assert len(simulated["phases"]) == 4
    assert "the speed of 4 bits" in simulate.table_of(simulated)


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("--method d", ["degree-quant"]),
        ("--model dee", ["deepgcn"]),
        (
            "--task graph-",
            ["graph-binary", "graph-multilabel", "graph-ranking", "graph-regression"],
        ),
        ("--target", ["--target-bits", "--target"]),
    ],
)
def test_the_shell_completes_names_and_options(typed, names, command):
    words = f"nodebits quantize {typed}"
    environment = {
        "_NODEBITS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    result = command("from nodebits.cli import main\nmain()\n", **environment)
    assert result.stdout.split() == names
