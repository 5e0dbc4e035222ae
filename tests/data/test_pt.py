"""PyG's objects in files: what they become, and that nothing in them is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset

from nodebits.core.errors import ConfigError, FileFormatError, LabelError, ShapeError
from nodebits.data import load_dataset


def graph(nodes: int = 40, **more: Any) -> Data:
    edges = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    fields = {"x": torch.randn(nodes, 3), "edge_index": edges, "y": torch.arange(nodes) % 2}
    return Data(**{**fields, **more})


def saved(folder: Path, value: Any) -> str:
    torch.save(value, folder / "mine.pt")
    return str(folder / "mine.pt")


def test_a_graph_keeps_its_fields_and_masks(tmp_path: Path) -> None:
    masks = {f"{n}_mask": torch.arange(40) % 3 == i for i, n in enumerate(("train", "val", "test"))}
    data = graph(**masks, pos=torch.randn(40, 2), edge_attr=torch.randn(40, 1))
    found = load_dataset(saved(tmp_path, data))
    assert (found.name, found.task, found.num_classes) == ("mine.pt", "node", 2)
    assert torch.equal(found.data.pos, data.pos) and "the file's own" in found.notes
    assert found.train_idx.tolist() == masks["train_mask"].nonzero().view(-1).tolist()
    other = load_dataset(saved(tmp_path, graph(price=torch.randn(40))), target="price")
    assert other.task == "node-regression" and "price" not in other.data


def test_lists_and_saved_data_sets_are_graphs(tmp_path: Path) -> None:
    graphs = [graph(4, y=torch.tensor([n % 2])) for n in range(30)]
    found = load_dataset(saved(tmp_path, graphs))
    assert found.task == "graph" and len(found) == 30
    InMemoryDataset.save(graphs, str(tmp_path / "set.pt"))
    again = load_dataset(str(tmp_path / "set.pt"))
    assert torch.equal(again.graphs[7].x, graphs[7].x) and again.task == "graph"
    rows = [graph(5, y=torch.randint(0, 2, (5, 3))) for _ in range(20)]
    nodes = load_dataset(saved(tmp_path, rows))  # as PPI
    assert nodes.task == "node-multilabel" and nodes.many_graphs and nodes.num_classes == 3
    assert len(nodes.train_idx) == 12


def test_types_of_nodes(tmp_path: Path) -> None:
    data = HeteroData()
    data["paper"].x, data["paper"].y = torch.randn(30, 4), torch.arange(30) % 2
    data["author"].x = torch.randn(9, 2)
    data["author", "writes", "paper"].edge_index = torch.zeros(2, 5, dtype=torch.int64)
    found = load_dataset(saved(tmp_path, data))
    assert found.task == "node" and not found.many_graphs and len(found.train_idx)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was-run"),))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"x": 3}, "holds a dict"),
        ([1, 2], "list of int"),
        ([], "list of nothing"),
        (Batch.from_data_list([graph(), graph()]), r"it names .*batch.*torch\.save\(list"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(FileFormatError, match=words):
        load_dataset(saved(tmp_path, value))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, Evil())
    with pytest.raises(FileFormatError, match="more than PyG's objects"):
        load_dataset(path)
    Path("bare.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FileFormatError):
        load_dataset(str(tmp_path / "bare.pt"))
    assert not Path("was-run").exists()


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        (graph(x=None), {}, ShapeError, "x is missing"),
        (graph(y=None), {}, LabelError, r"y is missing.*\(target\)"),
        (graph(), {"target": "price"}, ConfigError, "no field 'price'; it has"),
        (graph(), {"task": "graph"}, ConfigError, "is one graph"),
        (graph(), {"task": "edge", "target": "y", "split": "column:z"}, ConfigError, "no columns"),
        (graph(edge_index=torch.zeros(2, 3).long()), {"task": "link"}, ConfigError, "3 edges"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, data: Data, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_dataset(saved(tmp_path, data), **options)
