"""Numbers per graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from nodebits import UniformConfig, convert, fit, load, load_dataset, prepare
from nodebits.core.errors import LabelError, TargetScaleWarning
from nodebits.models import ModelSpec, build_model
from nodebits.tasks import find_task
from nodebits.train import FitConfig, GraphProblem, evaluate
from task_data import own_npz

TASK = "graph-regression"


def test_targets_have_a_row_per_graph() -> None:
    task = find_task(TASK)
    for y in (0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]]), [0.5]):
        assert task.targets(y, 1, "graph 0").tolist() == [[0.5]]
    assert task.targets(3, 1, "graph 0").dtype == torch.float32
    several = task.targets(torch.tensor([1.0, 2.0], dtype=torch.float64), 1, "graph 0")
    assert several.tolist() == [[1.0, 2.0]] and task.outputs(several) == 2
    assert task.targets(torch.arange(6).view(3, 2), 3, "y").shape == (3, 2)
    with pytest.raises(LabelError, match=r"graph 4: y has 2 rows for 1 graphs"):
        task.targets(torch.zeros(2, 3), 1, "graph 4")


def test_the_metric_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    task, outputs, targets = find_task(TASK), torch.randn(50, 3), torch.randn(50, 3)
    found = task.measure(outputs, targets)
    assert found.mae == pytest.approx(metrics.mean_absolute_error(targets, outputs))
    assert found.loss == pytest.approx(found.mae)
    assert list(task.columns(outputs)) == ["value_0", "value_1", "value_2"]
    assert list(task.columns(outputs[:, :1])) == ["value"]
    near = outputs * (1 + 1e-7)
    assert task.agreement(outputs, near) == 1.0 and task.agreement(outputs, outputs + 0.01) == 0.0


def test_a_model_learns_and_its_file_gives_the_same_numbers(tmp_path: Path) -> None:
    data = load_dataset(str(own_npz(tmp_path, TASK)))
    spec = ModelSpec("gin", 5, 16, data.num_classes, task=TASK, norm="batch_norm", dropout=0.0)
    config, short = UniformConfig(bits=8), FitConfig(epochs=60, lr=0.01, progress=False)
    model = build_model(spec)
    result = fit(model, data, short)
    assert result.val.mae == min(result.history["val_mae"])
    teacher = evaluate(model, data)
    spread = float(torch.stack([g.y for g in data.graphs]).std())
    assert teacher.mae < 0.4 * spread
    prepared = prepare(model, config)
    fit(prepared, data, short.replace(epochs=20), method=config)
    assert evaluate(prepared, data).mae < 0.5 * spread
    packed = convert(prepared, spec)
    packed.save(tmp_path / "m.safetensors")
    again = evaluate(load(tmp_path / "m.safetensors"), data)
    assert again == evaluate(packed, data) == evaluate(prepared, data)


def test_missing_and_uneven_targets_are_named(tmp_path: Path) -> None:
    data = load_dataset(str(own_npz(tmp_path, TASK)))
    split = data.train_idx, data.val_idx, data.test_idx
    bad, good = int(data.train_idx[3]), data.graphs[0].y
    data.graphs[bad].y = torch.tensor([float("inf")])
    with pytest.raises(LabelError, match=rf"graph {bad} \(train split\): y is inf"):
        GraphProblem(data.graphs, *split, TASK)
    data.graphs[bad].y = torch.zeros(1, 2)
    with pytest.raises(LabelError, match=rf"graph {bad}: y has 2 targets, graph 0 has 1"):
        GraphProblem(data.graphs, *split, TASK)
    data.graphs[bad].y = good
    narrow = build_model(ModelSpec("gin", 5, 8, 3, task=TASK))
    told = r"1 targets per graph .*\[60, 1\].*the model has 3 output"
    with pytest.raises(LabelError, match=told):
        fit(narrow, GraphProblem(data.graphs, *split, TASK), FitConfig(epochs=1, progress=False))


@pytest.mark.parametrize(
    ("change", "warned"), [((1.0, 0.0), False), ((1.0, 500.0), True), ((1e-3, 0.0), True)]
)
def test_numbers_out_of_reach_are_warned_of(
    tmp_path: Path, change: tuple[float, float], warned: bool
) -> None:
    scale, shift = change
    y = np.random.default_rng(0).normal(size=60) * scale + shift
    data = load_dataset(str(own_npz(tmp_path, TASK, y=y)))
    model = build_model(ModelSpec("gin", 5, 8, 1, task=TASK))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TargetScaleWarning)
        fit(model, data, FitConfig(epochs=2, progress=False))
    assert [w.category for w in caught].count(TargetScaleWarning) == warned


def test_several_targets_come_from_a_file(tmp_path: Path) -> None:
    y = np.random.default_rng(0).normal(size=(60, 2))
    data = load_dataset(str(own_npz(tmp_path, TASK, y=y)))
    assert (data.task, data.num_classes) == (TASK, 2)
    y[4] = np.nan
    with pytest.raises(LabelError, match=r"npz: graph 4 .*every y is nan"):
        load_dataset(str(own_npz(tmp_path, TASK, y=y)))
