"""Every task from every source of own data: trained, packed, saved, loaded, predicted.

A task joins by being registered.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from nodebits import UniformConfig, convert, fit, load, load_dataset, prepare
from nodebits.models import ModelSpec, build_model
from nodebits.tasks import find_task, task_names
from nodebits.train import FitConfig, as_problem, evaluate, predict_logits
from task_data import own_arrays, own_npz

SHORT = FitConfig(epochs=2, lr=0.01, progress=False, distill=0.5)


def _folder(folder: Path, name: str) -> Path:
    """The arrays of a task as tables, with ids that are no row numbers."""
    arrays, level = own_arrays(name), find_task(name).level
    place = folder / name
    place.mkdir()
    split = None
    if "train_mask" in arrays:
        split = np.select([arrays["train_mask"], arrays["val_mask"]], ["train", "val"], "test")
    y = arrays.get("edge_label", arrays.get("y"))
    columns: dict[str, Any] = {} if y is None else _columns(y)
    if split is not None:
        columns["split"] = split
    nodes = {"id": [f"n{7 * row}" for row in range(len(arrays["x"]))]}
    nodes |= {f"x{n}": column for n, column in enumerate(arrays["x"].T)}
    ends = [[f"n{7 * node}" for node in side] for side in arrays["edge_index"]]
    edges: dict[str, Any] = {"source": ends[0], "target": ends[1]}
    if level.pairs:
        edges |= columns
    elif level.many_graphs:
        nodes["graph"] = [f"g{number}" for number in arrays["batch"]]
        names = [f"g{number}" for number in range(len(y))]
        _write(place / "graphs.csv", {"graph": names, **columns})
    else:
        nodes |= columns
    _write(place / "nodes.csv", nodes)
    _write(place / "edges.csv", edges)
    return place


def _columns(y: Any) -> dict[str, Any]:
    return {"label": y} if y.ndim == 1 else {f"y_{n}": column for n, column in enumerate(y.T)}


def _write(path: Path, columns: dict[str, Any]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _pt(folder: Path, name: str) -> Path:
    """The same as PyG's objects."""
    arrays = {key: torch.from_numpy(value) for key, value in own_arrays(name).items()}
    path = folder / f"{name}.pt"
    if not find_task(name).level.many_graphs:
        torch.save(Data(**arrays), path)
        return path
    graphs = []
    for number, y in enumerate(arrays["y"]):
        own = (arrays["batch"] == number).nonzero().view(-1)
        edges = arrays["edge_index"]
        edges = edges[:, torch.isin(edges[0], own)] - own[0]
        split = number % 3  # as the masks of the arrays
        graphs.append(Data(x=arrays["x"][own], edge_index=edges, y=y.view(1, -1), split=split))
    torch.save(graphs, path)
    return path


SOURCES = {"npz": own_npz, "folder": _folder, "pt": _pt}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", task_names())
def test_trained_packed_saved_loaded_and_predicted(name: str, source: str, tmp_path: Path) -> None:
    task = find_task(name)
    data = load_dataset(str(SOURCES[source](tmp_path, name)), task=name)
    problem = as_problem(data)
    spec = ModelSpec("gcn", 5, 8, data.num_classes, num_layers=1, task=name)
    model, config = build_model(spec), UniformConfig(bits=4)
    found = fit(model, data, SHORT)
    assert found.val.name == task.metric.name and found.val.count == len(problem.indices["val"])
    prepared = prepare(model, config)
    fit(prepared, data, SHORT, method=config, teacher_logits=predict_logits(model, problem))
    packed = convert(prepared, spec)
    packed.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    outputs = predict_logits(again, problem)
    assert outputs.equal(predict_logits(prepared, problem))
    assert len(task.predictions(outputs)) == len(outputs) == len(problem.labels)
    for split in ("train", "val", "test"):
        assert evaluate(again, data, split) == evaluate(prepared, data, split)
