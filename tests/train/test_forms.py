"""Forms in which data come to fit, and targets that are missing, masked, or of too few classes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCN

from nodebits.core.errors import ConfigError, LabelError
from nodebits.models import ModelSpec, build_model
from nodebits.train import (
    FitConfig,
    GraphProblem,
    IgnoredDataWarning,
    MissingClassWarning,
    NodeProblem,
    SampledProblem,
    as_problem,
    evaluate,
    fit,
)

from .small import planted_graph, planted_graphs

SHORT = FitConfig(epochs=3, progress=False)


def gcn(outputs: int) -> GCN:
    return GCN(12, 8, 1, outputs)


def test_three_lists_sets_or_loaders_are_a_split() -> None:
    graphs = planted_graphs()
    width = graphs[0].x.size(1)
    model = build_model(ModelSpec("gin", width, 8, 2, task="graph"))
    for form in (list, lambda own: DataLoader(own, batch_size=5)):
        parts = tuple(form(own) for own in (graphs[:24], graphs[24:32], graphs[32:]))
        problem = as_problem(parts)
        assert problem.task.name == "graph" and len(problem.indices["test"]) == len(graphs) - 32
        steps = list(problem.steps(128, torch.Generator()))
        assert len(steps) == (1 if isinstance(parts[0], list) else 5)
        assert fit(model, parts, SHORT).val.count == 8
    with pytest.raises(ConfigError, match="the val part is a int"):
        as_problem((graphs[:3], 4, graphs[:3]))
    with pytest.raises(ConfigError, match="train_loader, val_loader, test_loader"):
        as_problem(DataLoader(graphs))


def test_nodes_of_graphs_nobody_has_seen() -> None:
    """As of PPI: learned on some graphs, asked of others."""
    graphs = []
    for _ in range(6):
        graph = planted_graph()
        y = torch.stack([graph.y, 1 - graph.y, graph.x[:, 0] > 0], 1).float()
        graphs.append(Data(x=graph.x, edge_index=graph.edge_index, y=y))
    parts = (DataLoader(graphs[:4], batch_size=2), graphs[4:5], [graphs[5]])
    problem = as_problem(parts)
    assert isinstance(problem, GraphProblem) and problem.task.name == "node-multilabel"
    found = fit(gcn(3), parts, SHORT.replace(epochs=30))
    assert found.val.count == graphs[4].num_nodes and found.val.f1_micro > 0.6
    steps = list(problem.steps(128, torch.Generator()))
    assert [len(step.labels) for step in steps] == [240, 240]
    for step in steps:
        assert torch.equal(problem.labels[step.rows], step.labels)


def test_a_loader_of_a_graph_brings_the_graph() -> None:
    graph = planted_graph()

    class Loader:
        data = graph

        def __iter__(self) -> Any:
            yield graph

    problem = as_problem(Loader())
    assert isinstance(problem, SampledProblem)
    assert fit(gcn(2), Loader(), SHORT).val.count == int(graph.val_mask.sum())


def test_columns_of_masks_are_splits() -> None:
    graph = planted_graph()
    several = graph.clone()
    for split in ("train", "val", "test"):
        mask = graph[f"{split}_mask"]
        several[f"{split}_mask"] = torch.stack([mask, mask.flip(0)], dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = NodeProblem(several, split=1)
    assert torch.equal(second.indices["val"], graph.val_mask.flip(0).nonzero().view(-1))
    with pytest.warns(IgnoredDataWarning, match="2 columns, a split each: the first is used"):
        first = as_problem(several)
    assert torch.equal(first.indices["val"], graph.val_mask.nonzero().view(-1))
    with pytest.raises(ConfigError, match="split is 2, but train_mask has 2 columns"):
        NodeProblem(several, split=2)


@pytest.mark.parametrize("task", ["node-multilabel", "node-regression"])
def test_targets_that_are_not_known_teach_nothing(task: str) -> None:
    graph = planted_graph()
    y = torch.stack([graph.y, 1 - graph.y], 1).float()
    y[::3, 1] = float("nan")
    graph.y = y
    model = gcn(2)
    problem = as_problem(graph, task)
    found = fit(model, problem, SHORT)
    assert found.val.loss == found.val.loss and found.val.value == found.val.value
    outputs = torch.randn(len(y), 2, requires_grad=True)
    problem.task.loss(outputs, problem.labels).backward()
    assert outputs.grad is not None
    assert bool((outputs.grad[::3, 1] == 0).all()) and bool((outputs.grad[::3, 0] != 0).all())
    graph.y = y.clone()
    row = int(graph.val_mask.nonzero()[2])
    graph.y[row] = float("nan")
    told = rf"node {row} \(val split\): every y is nan, as of 1 node"
    with pytest.raises(LabelError, match=told):
        as_problem(graph, task)


def test_a_class_without_examples_to_learn_from_is_told_of() -> None:
    graph = planted_graph()
    graph.y[graph.val_mask.nonzero()[0]] = 2
    with pytest.warns(MissingClassWarning, match="classes 2 .*no node of the train split"):
        as_problem(graph)
    graph = planted_graph()
    graph.y = graph.y.clone()
    graph.y[graph.val_mask] = 0
    with pytest.raises(LabelError, match=r"ROC-AUC does not exist on the val split.*all are 0"):
        as_problem(graph, "node-binary")
    assert as_problem(graph, "node-binary", metric="accuracy").task.metric.name == "accuracy"


def test_what_fit_is_told_is_what_it_selects_by() -> None:
    graph = planted_graph()
    found = fit(gcn(2), graph, SHORT, metric="f1_macro", class_weight="balanced", loss="focal")
    assert "val_f1_macro" in found.history
    model = gcn(1)
    fit(model, graph, SHORT, task="node-binary")
    assert evaluate(model, graph, task="node-binary").name == "roc_auc"
    assert evaluate(model, graph, task="node-binary", metric="hits@5").name == "hits@5"
    problem = as_problem(graph, "node-binary")
    assert as_problem(problem, metric="accuracy").task.metric.name == "accuracy"
    assert problem.task.metric.name == "roc_auc"
    with pytest.raises(ConfigError, match="the problem is for 'node-binary'"):
        as_problem(problem, "node")
