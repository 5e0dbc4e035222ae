"""Figures beside scikit-learn's, and OGB's definitions of ranks on cases counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, LabelError, UnknownNameError
from nodebits.tasks import Metric, find_task

metrics = pytest.importorskip("sklearn.metrics")


def of(task: str, metric: str, outputs: Tensor, y: Tensor) -> float:
    kind = find_task(task).using(metric=metric)
    return kind.measure(outputs, kind.targets(y, len(y), "y")).value


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1_micro", "f1_macro"])
def test_figures_of_classes(metric: str) -> None:
    outputs, y = torch.randn(80, 4), torch.randint(0, 3, (80,))
    guess = outputs.argmax(1)
    expected = {
        "accuracy": metrics.accuracy_score(y, guess),
        "balanced_accuracy": metrics.recall_score(
            y, guess, average="macro", labels=y.unique().tolist()
        ),
        "f1_micro": metrics.f1_score(y, guess, average="micro"),
        "f1_macro": metrics.f1_score(y, guess, average="macro"),
    }[metric]
    assert of("node", metric, outputs, y) == pytest.approx(expected)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize(
    "metric", ["roc_auc", "average_precision", "f1_macro", "balanced_accuracy", "accuracy"]
)
def test_figures_of_labels_are_means_over_known_columns(metric: str, rounded: bool) -> None:
    scores, y = torch.randn(90, 3), (torch.randn(90, 3) > 0.3).float()
    scores = scores.round(decimals=1) if rounded else scores  # many that score alike
    y[::7, 1] = float("nan")
    y[:, 2] = 0.0
    found = []
    for column in range(3):
        known = ~y[:, column].isnan()
        truth, own = y[known, column].numpy(), scores[known, column].numpy()
        if metric in ("roc_auc", "average_precision", "balanced_accuracy") and column == 2:
            continue
        guess = own > 0
        call: Any = {
            "roc_auc": lambda t, s, g: metrics.roc_auc_score(t, s),
            "average_precision": lambda t, s, g: metrics.average_precision_score(t, s),
            "f1_macro": lambda t, s, g: metrics.f1_score(t, g),
            "balanced_accuracy": lambda t, s, g: metrics.balanced_accuracy_score(t, g),
            "accuracy": lambda t, s, g: metrics.accuracy_score(t, g),
        }[metric]
        found.append((float(call(truth, own, guess)), int(known.sum())))
    weights = [count if metric == "accuracy" else 1 for _, count in found]
    expected = np.average([value for value, _ in found], weights=weights)
    assert of("graph-multilabel", metric, scores, y) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["mae", "rmse", "r2"])
def test_figures_of_numbers_leave_out_what_is_not_known(metric: str) -> None:
    outputs, y = torch.randn(50, 2), torch.randn(50, 2)
    assert of("node-regression", metric, outputs, y) == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(y, outputs),
            "rmse": metrics.mean_squared_error(y, outputs) ** 0.5,
            "r2": metrics.r2_score(y, outputs),
        }[metric]
    )
    y[3:9, 0] = float("nan")
    far = outputs.clone()
    far[3:9, 0] = 1e9
    before = of("node-regression", metric, outputs, y)
    assert of("node-regression", metric, far, y) == before == pytest.approx(before)


def test_ranks_among_one_pool_are_ogbs() -> None:
    """Links 0.9, 0.5, 0.3, 0.1 among 0.8, 0.5, 0.4, 0.2."""
    scores = torch.tensor([0.9, 0.5, 0.3, 0.1, 0.8, 0.5, 0.4, 0.2]).view(-1, 1)
    y = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])
    # Above: 0, 1 (and one alike), 3, 4. Ranks 1, 2.5, 4, 5.
    assert of("link", "mrr", scores, y) == pytest.approx((1 + 1 / 2.5 + 1 / 4 + 1 / 5) / 4)
    # Hits@k is a score above the k-th highest of the pool: 0.8, 0.5, 0.4, 0.2.
    for k, expected in ((1, 0.25), (2, 0.25), (3, 0.5), (4, 0.75), (5, 1.0), (100, 1.0)):
        assert of("link", f"hits@{k}", scores, y) == expected
        assert of("link-ranking", f"hits@{k}", scores, y) == expected
    assert of("link", "roc_auc", scores, y) == pytest.approx(metrics.roc_auc_score(y, scores))


def test_ranks_among_pairs_of_a_query_are_ogbs() -> None:
    """Query 0: 0.7 among 0.9, 0.7, 0.1, rank 2.5. Query 1: 0.6 among 0.5, rank 1."""
    scores = torch.tensor([0.7, 0.6, 0.9, 0.7, 0.5, 0.1]).view(-1, 1)
    y = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 0], [0, 1], [0, 0]])
    assert of("link-ranking", "mrr", scores, y) == pytest.approx((1 / 2.5 + 1) / 2)
    assert of("link-ranking", "hits@1", scores, y) == 0.5
    assert of("link-ranking", "hits@3", scores, y) == 1.0


def test_ranks_of_candidates() -> None:
    outputs = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    y = torch.tensor([0, 0, 0])  # ranks 1, 1.5, 3
    assert of("node-ranking", "mrr", outputs, y) == pytest.approx((1 + 1 / 1.5 + 1 / 3) / 3)
    assert of("graph-ranking", "hits@1", outputs, y) == pytest.approx(1 / 3)
    assert of("edge-ranking", "hits@2", outputs, y) == pytest.approx(2 / 3)


def test_the_error_of_a_figure_that_is_no_mean_is_that_of_resampled_rows() -> None:
    kind = find_task("node-binary")
    scores, y = torch.randn(600, 1), (torch.randn(600, 1) > 0).float()
    scores += y
    rows = kind.metric.rows(scores, y)
    draws = torch.Generator().manual_seed(0)
    values = []
    for _ in range(200):
        drawn = torch.randint(0, 600, (600,), generator=draws)
        values.append(kind.metric.value(scores[drawn], y[drawn]))
    assert float(rows.mean()) == pytest.approx(kind.metric.value(scores, y))
    # Twenty parts are left out in turn: so is the error known to a fifth.
    assert float(rows.std() / 600**0.5) == pytest.approx(float(np.std(values)), rel=0.4)


@pytest.mark.parametrize(
    ("task", "metric", "y", "words"),
    [
        ("node-binary", "roc_auc", torch.zeros(9), "both 0 and 1.*all are 0"),
        ("node-binary", "average_precision", torch.zeros(9), "needs a 1"),
        ("graph-multilabel", "roc_auc", torch.ones(9, 2), "all are 1"),
        ("node-regression", "r2", torch.ones(9), "all of a column are the same"),
        ("link", "mrr", torch.ones(9), "a pair that is none is missing"),
        ("link-ranking", "mrr", torch.zeros(9), "a link is missing"),
    ],
)
def test_a_figure_that_does_not_exist_is_no_number(
    task: str, metric: str, y: Tensor, words: str
) -> None:
    with pytest.raises(LabelError, match=words):
        of(task, metric, torch.randn(9, y.size(1) if y.dim() > 1 else 1), y)


def test_names_and_callables() -> None:
    kind = find_task("node")
    with pytest.raises(UnknownNameError, match="did you mean 'f1_macro'"):
        kind.using(metric="f1_makro")
    with pytest.raises(UnknownNameError, match="loss of task 'node'"):
        kind.using(loss="mse")
    with pytest.raises(ConfigError, match="metric is a int"):
        kind.using(metric=3)

    def worst(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) != targets).double().mean()

    outputs, y = torch.randn(20, 3), torch.randint(0, 3, (20,))
    least = Metric("worst", "worst", figure=worst, higher_is_better=False)
    assert kind.using(metric=worst).measure(outputs, y).worst == pytest.approx(
        1 - kind.measure(outputs, y).value
    )
    assert kind.using(metric=least).quality(kind.using(metric=least).measure(outputs, y))[0] < 0
    with pytest.raises(ConfigError, match="'<lambda>' returned str"):
        kind.using(metric=lambda o, t: "good").measure(outputs, y)
    halved = kind.using(loss=lambda o, t: torch.nn.functional.cross_entropy(o, t) / 2)
    assert float(halved.loss(outputs, y)) == pytest.approx(float(kind.loss(outputs, y)) / 2)
    with pytest.raises(ConfigError, match=r"returned \[20\]: it must be a scalar"):
        kind.using(loss=lambda o, t: o[:, 0]).loss(outputs, y)


def test_weights_of_classes() -> None:
    kind, y = find_task("node"), torch.tensor([0] * 9 + [1])
    outputs = torch.zeros(10, 2)
    outputs[:9, 0] = 5.0
    outputs[9, 0] = 5.0  # the rare class is missed
    balanced = kind.using(class_weight="balanced").fitted(y)
    assert balanced.class_weight is not None
    assert balanced.class_weight.tolist() == pytest.approx([10 / 18, 5.0])
    assert float(balanced.loss(outputs, y)) > 4 * float(kind.loss(outputs, y))
    several = find_task("node-multilabel").using(class_weight="balanced")
    labels = torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 1]])
    assert several.fitted(labels).class_weight.tolist() == [3.0, 3.0]
    with pytest.raises(ConfigError, match="takes none"):
        find_task("node-regression").using(class_weight="balanced")
    with pytest.raises(ConfigError, match="3 weights for 2"):
        several.using(class_weight=[1.0, 2.0, 3.0]).fitted(labels)
    with pytest.raises(ConfigError, match="finite, 0 or more"):
        kind.using(class_weight=[-1.0, 2.0])
