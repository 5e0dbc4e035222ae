"""Several labels per node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nodebits import UniformConfig, convert, fit, load, load_dataset, prepare
from nodebits.core.errors import LabelError
from nodebits.models import ModelSpec, build_model
from nodebits.tasks import find_task
from nodebits.train import FitConfig, NodeProblem, evaluate
from task_data import own_npz

TASK = "node-multilabel"


def test_the_metric_is_scikit_learns_and_rows_add_up_to_it() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    task, outputs = find_task(TASK), torch.randn(50, 4)
    targets = (torch.randn(50, 4) > 0.5).float()
    expected = metrics.f1_score(targets, outputs > 0, average="micro")
    found = task.measure(outputs, targets)
    assert found.f1_micro == pytest.approx(expected)
    assert found.loss == pytest.approx(metrics.log_loss(*flat(targets, outputs)), rel=1e-5)
    nothing = task.measure(-torch.ones(3, 2), torch.zeros(3, 2))
    assert nothing.f1_micro == 0.0


def flat(targets: torch.Tensor, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return targets.flatten(), torch.sigmoid(outputs).double().flatten()


def test_the_error_of_a_difference_is_that_of_resampled_rows() -> None:
    """Rows are influences: their spread says what drawing other rows would change."""
    task, draws = find_task(TASK), torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(400, 3), (torch.randn(400, 3) > 0).float()
    rows = task.metric.rows(outputs, targets)
    values = []
    for _ in range(300):
        drawn = torch.randint(0, 400, (400,), generator=draws)
        values.append(task.metric.value(outputs[drawn], targets[drawn]))
    assert float(rows.std() / 400**0.5) == pytest.approx(float(np.std(values)), rel=0.15)


def test_columns_are_labels_and_their_probabilities() -> None:
    columns = find_task(TASK).columns(torch.tensor([[2.0, -1.0], [-3.0, 0.5]]))
    assert list(columns) == ["label_0", "label_1", "probability_0", "probability_1"]
    assert columns["label_1"].tolist() == [0, 1]
    assert columns["probability_0"].tolist() == pytest.approx([0.880797, 0.047426], abs=1e-6)


def test_a_model_learns_and_its_file_gives_the_same_labels(tmp_path: Path) -> None:
    data = load_dataset(str(own_npz(tmp_path, TASK)))
    assert (data.task, data.num_classes) == (TASK, 3)
    spec = ModelSpec("gcn", 5, 16, 3, task=TASK)
    config, short = UniformConfig(bits=4), FitConfig(epochs=60, lr=0.02, progress=False)
    model = build_model(spec)
    result = fit(model, data, short)
    assert result.val.f1_micro == max(result.history["val_f1_micro"])
    assert evaluate(model, data).f1_micro > 0.85
    prepared = prepare(model, config)
    fit(prepared, data, short.replace(epochs=20), method=config)
    packed = convert(prepared, spec)
    packed.save(tmp_path / "m.safetensors")
    again = evaluate(load(tmp_path / "m.safetensors"), data)
    assert again == evaluate(packed, data) == evaluate(prepared, data)
    assert again.f1_micro > 0.8


def test_labels_are_checked_where_a_split_holds_them(tmp_path: Path) -> None:
    data = load_dataset(str(own_npz(tmp_path, TASK))).data
    assert data is not None
    y = data.y.clone()
    first, last = int(data.train_mask.nonzero()[1]), int(data.test_mask.nonzero()[0])
    data.y[first, 2] = 0.5
    with pytest.raises(LabelError, match=rf"node {first} \(train split\): y\[2\] is 0\.5, not 0"):
        NodeProblem(data, TASK)
    data.y = y.clone()
    data.y[last] = -1
    problem = NodeProblem(data, TASK)  # a test label is looked at when it is asked for
    model = build_model(ModelSpec("gcn", 5, 8, 3, task=TASK))
    fit(model, problem, FitConfig(epochs=1, progress=False))
    with pytest.raises(LabelError, match=rf"node {last} \(test split\)"):
        evaluate(model, problem)
    told = r"3 labels per node .*\[60, 3\].*the model has 2 output.*\[nodes, 2\]"
    with pytest.raises(LabelError, match=told):
        narrow = build_model(ModelSpec("gcn", 5, 8, 2, task=TASK))
        fit(narrow, problem, FitConfig(epochs=1, progress=False))
    data.y = y[:, 0]
    with pytest.raises(LabelError, match=r"\[60\]: .*0 or 1 for every label per node"):
        NodeProblem(data, TASK)
