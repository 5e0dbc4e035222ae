"""What every task of the registry keeps, whoever wrote it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError, LabelError, UnknownNameError
from nodebits.data import load_dataset
from nodebits.tasks import GRAPH, NODE, Metrics, Task, find_task, suggested_task, task_names
from task_data import ROWS, own_arrays, own_npz, targets_for

every_task = pytest.mark.parametrize("name", task_names())


def example(name: str) -> tuple[Task, Tensor, Tensor]:
    """A task, outputs of a model and targets."""
    task = find_task(name)
    y = torch.from_numpy(targets_for(task, np.random.default_rng(1).normal(size=ROWS)))
    targets = task.targets(y, ROWS, "y")
    return task, torch.randn(ROWS, task.outputs(targets)), targets


@every_task
def test_loss_and_imitation_teach(name: str) -> None:
    task, outputs, targets = example(name)
    for measure, goal in ((task.loss, targets), (task.imitation, torch.randn_like(outputs))):
        moved = outputs.clone().requires_grad_()
        first = measure(moved, goal)
        assert first.shape == () and math.isfinite(float(first.detach()))
        for _ in range(50):
            (gradient,) = torch.autograd.grad(measure(moved, goal), moved)
            moved = (moved - 2.0 * gradient).detach().requires_grad_()
        assert float(measure(moved, goal).detach()) < float(first.detach())
    assert float(task.imitation(outputs, outputs)) == pytest.approx(0.0, abs=1e-6)


@every_task
def test_the_metric_has_a_direction_and_ties_go_to_the_loss(name: str) -> None:
    task, outputs, targets = example(name)
    found = task.measure(outputs, targets)
    assert found.count == ROWS and getattr(found, task.metric.name) == found.value
    assert found.value == pytest.approx(float(task.metric.rows(outputs, targets).double().mean()))
    step = 0.01 if task.metric.higher_is_better else -0.01
    better = Metrics(found.name, found.value + step, found.loss + 1, ROWS)
    tied = Metrics(found.name, found.value, found.loss - 1, ROWS)
    assert task.quality(better) > task.quality(tied) > task.quality(found)
    assert task.quality(tied, "loss") > task.quality(found, "loss") > task.quality(better, "loss")
    assert task.metric.after_losing(found.value, 0.0) == pytest.approx(found.value)
    worse = Metrics(found.name, task.metric.after_losing(found.value, 1.0), found.loss, ROWS)
    assert task.quality(worse) < task.quality(found)
    assert math.isnan(task.measure(outputs[:0], targets[:0]).value)


@every_task
def test_predictions_have_a_row_each(name: str) -> None:
    task, outputs, _ = example(name)
    columns = task.columns(outputs)
    assert columns and all(column.shape == (ROWS,) for column in columns.values())
    assert len(task.predictions(outputs)) == ROWS
    assert task.agreement(outputs, outputs) == 1.0
    assert task.agreement(outputs, -outputs) < 0.5
    assert math.isnan(task.agreement(outputs[:0], outputs[:0]))


@every_task
def test_what_it_does_not_take_is_named(name: str) -> None:
    task, outputs, targets = example(name)
    for y, words in (
        (None, "y is missing"),
        (torch.eye(ROWS).to_sparse(), "sparse"),
        (["a"] * ROWS, "list"),
        (torch.zeros(ROWS, 2, 2), r"y (is|has) "),
        (torch.zeros(ROWS + 1, *targets.shape[1:], dtype=targets.dtype), f"{ROWS + 1} "),
        (torch.zeros(ROWS, dtype=torch.complex64), "complex64"),
    ):
        with pytest.raises(LabelError, match=words) as refused:
            task.targets(y, ROWS, "graph 6")
        assert str(refused.value).startswith("graph 6: ")
    for rows in (torch.arange(ROWS), torch.tensor([7, 3])):
        task.check(targets, rows, outputs.size(1), "train")
        with pytest.raises(LabelError, match="output"):
            task.check(targets, rows, outputs.size(1) - 1, "train")
    bad = targets.clone()
    bad[7] = -1 if not bad.is_floating_point() else float("nan")
    with pytest.raises(LabelError, match=rf"{task.level.unit} 7 \(val split\)"):
        task.check(bad, torch.tensor([3, 7]), None, "val")
    task.check(bad, torch.tensor([3, 8]), None, "val")  # what no split holds is not looked at


@every_task
def test_own_data_of_it_load(name: str, tmp_path: Path) -> None:
    task = find_task(name)
    path = own_npz(tmp_path, name)
    found = load_dataset(str(path), task=name)
    assert found.task == name and task.output_name in repr(found)
    assert found.many_graphs == task.level.many_graphs and len(found.val_idx)
    assert (found.parts is not None) == task.level.pairs
    y = own_arrays(name).get("edge_label" if task.level.pairs else "y")
    if y is not None and task.suits(torch.from_numpy(y)) and not task.level.absent:
        assert load_dataset(str(path)).task == name
    masks = dict.fromkeys(("train_mask", "val_mask", "test_mask"))
    drawn = load_dataset(str(own_npz(tmp_path, name, **masks)), task=name, split=4)
    parts = [drawn.train_idx, drawn.val_idx, drawn.test_idx]
    rows = torch.cat(parts).sort().values
    assert all(len(part) for part in parts)
    assert rows.tolist() == list(range(len(rows) if task.level.absent else ROWS))
    assert "seed 4" in drawn.notes


def test_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'graph'"):
        find_task("grap")
    assert find_task("node").level == NODE and find_task("graph").level == GRAPH
    with pytest.raises(LabelError, match=r"here: y is .*\[3, 2, 2\].*one class per node"):
        suggested_task(torch.zeros(3, 2, 2), NODE, "here")
    with pytest.raises(AttributeError, match="hold accuracy"):
        _ = Metrics("accuracy", 0.5, 1.0, 2).f1


def test_the_same_data_for_another_task_of_their_level(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'graph' is of graphs.*node-level"):
        load_dataset("digits", task="graph")
    with pytest.raises(FileFormatError, match=r"y has 60 rows for \d+ nodes"):
        load_dataset(str(own_npz(tmp_path, "graph")), task="node")
    with pytest.raises(ConfigError, match="has batch: many graphs"):
        load_dataset(str(own_npz(tmp_path, "graph")), task="edge")
    with pytest.raises(ConfigError, match="lacks batch"):
        load_dataset(str(own_npz(tmp_path, "node")), task="graph")
