from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from nodebits.core.errors import (
    ConfigError,
    GraphError,
    NodeIndexError,
    NonFiniteError,
    ShapeError,
)
from nodebits.data import load_dataset
from nodebits.models import ModelSpec, build_model
from nodebits.tasks import find_task
from nodebits.train import (
    FitConfig,
    GraphProblem,
    NodeProblem,
    OverlappingSplitsError,
    as_problem,
    evaluate,
    fit,
)
from nodebits.train.loss import training_loss

from .small import planted_graphs


def test_non_finite_features_are_counted_and_placed(graph):
    graph.x[3, 2], graph.x[8, 1] = float("nan"), float("inf")
    with pytest.raises(NonFiniteError, match=r"2 NaN or infinite values, the first at \[3, 2\]"):
        NodeProblem(graph)


@pytest.mark.parametrize("bad", [-1, 120])
def test_edge_to_nowhere_is_placed(graph, bad):
    graph.edge_index[1, 5] = bad
    with pytest.raises(NodeIndexError, match=rf"edge_index\[1, 5\] is {bad}"):
        NodeProblem(graph)


def test_float_edges_missing_masks_and_empty_splits(graph):
    broken = graph.clone()
    broken.edge_index = broken.edge_index.float()
    with pytest.raises(GraphError, match="float32"):
        NodeProblem(broken)
    broken = graph.clone()
    broken.val_mask = None
    with pytest.raises(ShapeError, match="val_mask"):
        NodeProblem(broken)
    graph.train_mask = torch.zeros_like(graph.train_mask)
    with pytest.raises(ConfigError, match="train split is empty"):
        NodeProblem(graph)


def test_batches_cover_every_training_graph_once(graphs):
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([step.rows for step in graphs.steps(7, generator)])
    assert rows.sort().values.tolist() == list(range(24))


def test_no_batch_of_one_graph():
    index = torch.arange(40)
    problem = GraphProblem(planted_graphs(), index[:9], index[9:12], index[12:])
    sizes = [len(step.labels) for step in problem.steps(4, torch.Generator())]
    assert sizes == [4, 5]


def test_loss_mixes_labels_and_teacher():
    task, logits = find_task("node"), torch.randn(6, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    mask = torch.tensor([1, 1, 0, 0, 0, 0], dtype=torch.bool)
    plain = torch.nn.functional.cross_entropy(logits[:2], labels[:2])
    assert torch.equal(training_loss(task, logits, labels, mask, None, 0.9), plain)
    alike = training_loss(task, logits, labels, mask, logits.detach(), 0.9)
    assert alike.item() == pytest.approx(0.1 * plain.item(), abs=1e-6)
    # Unlabelled rows learn from the teacher.
    training_loss(task, logits, labels, mask, torch.randn(6, 3), 0.9).backward()
    assert bool((logits.grad[2:] != 0).all())


def test_nodes_in_two_splits_are_counted(graph):
    graph.test_mask[graph.train_mask.nonzero()[:5]] = True
    graph.val_mask[graph.train_mask.nonzero()[:2]] = True
    told = (
        "2 of the 42 val nodes are in the train split too, and 5 of the 65 test nodes are in the "
        "train split too, and 2 of the 65 test nodes are in the val split too"
    )
    with pytest.raises(OverlappingSplitsError, match=told):
        NodeProblem(graph)
    spec = ModelSpec("gcn", graph.x.size(1), 8, 2)
    with pytest.raises(OverlappingSplitsError, match="5 of the 65 test nodes"):
        fit(build_model(spec), graph, FitConfig(epochs=1))
    with pytest.raises(OverlappingSplitsError, match="5 of the 65 test nodes"):
        evaluate(build_model(spec), graph)


def test_graphs_in_two_splits_are_counted():
    index = torch.arange(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GraphProblem(planted_graphs(), index[:20], index[20:30], index[30:])
    for train in (index[:32], index < 32, index[:32].repeat(2)):
        with pytest.raises(OverlappingSplitsError, match="2 of the 10 test graphs are in the"):
            GraphProblem(planted_graphs(), train, index[20:30], index[30:])


def test_files_with_a_node_in_two_splits_are_told_of(graph, tmp_path: Path):
    graph.test_mask |= graph.val_mask
    fields = ("x", "y", "edge_index", "train_mask", "val_mask", "test_mask")
    np.savez(tmp_path / "own.npz", **{name: graph[name].numpy() for name in fields})
    found = load_dataset(str(tmp_path / "own.npz"))
    with pytest.raises(OverlappingSplitsError, match="40 of the 100 test nodes are in the val"):
        as_problem(found)
