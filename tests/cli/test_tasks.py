"""Every task from end to end on a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodebits.runtime import load
from nodebits.tasks import find_task, task_names
from task_data import ROWS, own_arrays, own_npz

QUICK = ["--hidden", "8", "--epochs", "30", "--latency-repeats", "1", "--no-progress"]
QUICK += ["--threads", "1"]


# A task per kind of targets; what all of them keep is in the contracts.
KINDS = {type(find_task(name)): name for name in reversed(task_names())}
ASKED = [*KINDS.values(), "edge", "graph-regression"]


@pytest.mark.parametrize("name", ASKED)
def test_fit_quantize_evaluate_predict_and_report(run: Any, tmp_path: Path, name: str) -> None:
    task, file, out = find_task(name), own_npz(tmp_path, name), tmp_path / "out"
    job = ["quantize", "--dataset", file, "--task", name, "--model", "gin", "--layers", "2"]
    done = run(*job, "--bits", "8", "--out", out, *QUICK)
    assert done.code == 0, done.err
    # A narrow column breaks a title of two words.
    assert all(word in done.out for word in task.metric.title.split())
    report = json.loads((out / "report.json").read_text())
    figures = report[report["metric"]["name"]]
    assert report["dataset"]["task"] == report["model"]["task"] == name
    assert report["metric"]["name"] == task.metric.name and report["agreement"] == 1.0
    assert figures["packed"]["mean"] == figures["simulated"]["mean"]
    page = (out / "report.html").read_text()
    assert f"Validation {task.metric.title}" in page

    model = out / "model.safetensors"
    assert f"validation_{task.metric.name}" in load(model).metadata
    found = run("evaluate", model, "--dataset", file, "--json").json()
    assert found["test"][task.metric.name] == figures["packed"]["mean"]
    assert task.loss_name in run("evaluate", model, "--dataset", file).out.replace("\n", "")

    for suffix in ("csv", "npy"):
        written = run("predict", model, "--dataset", file, "--out", tmp_path / f"p.{suffix}")
        assert written.code == 0 and task.predicts in written.out
    head, *lines = (tmp_path / "p.csv").read_text().splitlines()
    first = "source,target," if task.level.pairs else f"{task.level.unit},"
    assert head.startswith(first) and len(lines) == ROWS
    cells = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    predicted = np.load(tmp_path / "p.npy", allow_pickle=False).reshape(ROWS, -1)
    names = first.count(",")
    rows = own_arrays(name)["edge_index"].T if task.level.pairs else np.arange(ROWS)[:, None]
    assert np.array_equal(cells[:, :names], rows)
    shown = cells[:, names : names + predicted.shape[1]].astype(predicted.dtype)
    assert np.array_equal(shown, predicted)


def test_tasks_are_listed_and_completed(run: Any) -> None:
    listed = run("tasks", "--json").json()
    assert list(listed) == task_names() and all(listed.values())
    refused = run("quantize", "--out", "x", "--task", "graphh")
    assert refused.code == 2 and "graphh" in refused.err and "did you mean 'graph'" in refused.err


def test_data_of_another_level_are_refused(run: Any, tmp_path: Path) -> None:
    refused = run("quantize", "--dataset", "digits", "--task", "graph", "--out", tmp_path / "x")
    assert refused.code == 2 and "node-level tasks" in refused.err
    assert not (tmp_path / "x" / "report.json").exists()
