"""Many graphs of one's own in one file: a graph number per node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nodebits.core.errors import FileFormatError
from nodebits.data import folds, load_dataset


def parts(graphs: int = 4) -> dict[str, Any]:
    """Graphs of 3 nodes each, the nodes of all of them in turn."""
    batch = np.tile(np.arange(graphs), 3)
    own = np.arange(graphs)
    edges = np.stack([np.r_[own, own + graphs], np.r_[own + graphs, own + 2 * graphs]])
    x = np.arange(3 * graphs, dtype=np.float32)[:, None]
    return {"x": x, "edge_index": edges, "batch": batch, "y": own % 2}


def load(folder: Path, **changes: Any) -> Any:
    path = folder / "mine.npz"
    np.savez(path, **{**parts(), **changes})
    return load_dataset(str(path))


def test_nodes_of_a_graph_are_put_together(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert (found.task, len(found), found.num_features, found.num_classes) == ("graph", 4, 1, 2)
    for number, graph in enumerate(found.graphs):
        assert graph.x.flatten().tolist() == [number, number + 4, number + 8]
        assert graph.edge_index.tolist() == [[0, 1], [1, 2]] and int(graph.y) == number % 2


def test_folds_of_them(tmp_path: Path) -> None:
    found = load(tmp_path, **parts(40))
    tests = torch.cat([test for _, _, test in folds(found)])
    assert tests.sort().values.tolist() == list(range(40))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": np.zeros(5, int)}, "batch is int64"),
        ({"batch": np.full(12, 0.5)}, "batch is float64"),
        ({"batch": np.tile(np.arange(4), 3) - 1}, "batch has -1"),
        (
            {"batch": np.repeat([0, 1, 3, 3], 3), "edge_index": np.zeros((2, 0), int)},
            "graph 2 has no nodes",
        ),
        ({"y": np.zeros(3, int)}, "3 rows for 4 graphs"),
        ({"edge_index": np.array([[0], [1]])}, "edge 0 joins graph 0 and graph 1"),
        ({f"{name}_mask": np.ones(12, bool) for name in ("train", "val", "test")}, r"per graph"),
    ],
)
def test_faults_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FileFormatError, match=rf"mine\.npz.*{words}"):
        load(tmp_path, **changes)
