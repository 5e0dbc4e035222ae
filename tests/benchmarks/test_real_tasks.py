from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch_geometric.data import Batch, Data

import nodebits
import real_tasks
import real_tasks_data
import real_tasks_models
import real_tasks_table
from nodebits.data.base import graph_dataset


def _row(seed: int, packed: float, label: str = "") -> dict[str, Any]:
    return {
        "dataset": "ESOL", "model": "GINE", "bits": 4, "seed": seed, "label": label,
        "float": 0.6 + 0.02 * seed, "packed": packed, "agreement": 1.0 - 0.1 * seed,
        "file_bytes": 1, "float_file_bytes": 4, "arguments": {"layers": 3, "hidden": 64},
        "fit": {"epochs": 40, "batch_size": 128, "lr": 0.001}, "metric": "mae",
    }  # fmt: skip


def test_a_loss_is_told_in_deviations_of_float() -> None:
    rows = [_row(0, 0.61), _row(1, 0.63), _row(0, 0.6, "inputs-8")]
    text = real_tasks_table.render(rows)
    line = "| 0.610 ± 0.014 |  | **0.620 ± 0.014** | +0.7 |  | 0.9000 | 25% |"
    assert f"| ESOL | GINE | 4 | 0.001 | 2 {line}" in text
    assert "| ESOL | GINE | 4 | inputs-8 | 0.001 | 1 |" in text
    assert "less is better | 3 | 64 | 40 | 40 | 128 |" in text


def test_a_float_model_that_was_trained_alike_stands_beside() -> None:
    rows = [_row(0, 0.61), _row(1, 0.63), _row(0, 0.59, "alike"), _row(1, 0.61, "alike")]
    text = real_tasks_table.render(rows)
    assert "| 0.600 ± 0.014 | **0.620 ± 0.014** | +0.7 | +1.4 | 0.9000 |" in text
    assert "Other settings" not in text
    for row in rows[:2]:
        row["fit"] = {**row["fit"], "lr": 0.005}
    assert "| 4 | 0.005 | 2 | 0.610 ± 0.014 |  | **0.620" in real_tasks_table.render(rows)


def test_of_accuracy_less_is_a_loss() -> None:
    rows = [{**row, "metric": "accuracy"} for row in (_row(0, 0.58), _row(1, 0.6))]
    text = real_tasks_table.render(rows)
    assert "| 2 | 61.0 ± 1.4 |  | **59.0 ± 1.4** | +1.4 |" in text
    assert "| ESOL | accuracy in percent, more is better | 3 |" in text


def test_rows_are_identified_by_what_was_asked_for() -> None:
    asked = {"seeds": 2, "models": ["GINE", "PNA"], "bits": [8, 4], "label": ""}
    cells = list(real_tasks.grid(type("Options", (), asked), "ESOL"))
    assert len({cell["key"] for cell in cells}) == len(cells) == 8
    assert json.loads(cells[0]["key"]) == ["ESOL", "GINE", 8, 0, ""]
    asked["bits"] = [32]
    cells = list(real_tasks.grid(type("Options", (), asked), "ESOL"))
    assert json.loads(cells[0]["key"]) == ["ESOL", "GINE", 32, 0, "alike"]


def _named(name: str, graphs: list[Data]) -> nodebits.data.Dataset:
    parts = torch.tensor([2]), torch.tensor([0]), torch.tensor([1])
    return graph_dataset(name, graphs, parts, "", "")


def test_edges_of_superpixels_have_the_distance_of_their_centres() -> None:
    x = torch.tensor([[9.0, 0.0, 0.0], [5.0, 3.0, 4.0]])
    graph = Data(x=x, edge_index=torch.tensor([[0, 0], [1, 0]]), y=torch.tensor([1]))
    made = real_tasks_data.with_edge_attr(_named("MNIST-slic:1", [graph] * 3))
    assert made.graphs[0].edge_attr.tolist() == [[5.0], [0.0]]
    found = real_tasks_data.model_inputs(made)
    assert found == {
        "node_ids": [], "node_width": 3, "edge_ids": [], "edge_width": 1, "outputs": 2
    }  # fmt: skip


def test_edges_without_features_have_one_id() -> None:
    graph = Data(x=torch.ones(2, 4), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([1]))
    made = real_tasks_data.with_edge_attr(_named("REDDIT-BINARY", [graph] * 3))
    assert made.graphs[0].edge_attr.tolist() == [[0]]
    assert real_tasks_data.model_inputs(made)["edge_ids"] == [1]


def test_graphs_of_no_part_are_left_out() -> None:
    graphs = [
        Data(x=torch.ones(1, 1), edge_index=torch.zeros(2, 0).long(), y=torch.tensor([n % 2]))
        for n in range(5)
    ]
    made = real_tasks_data.taken(
        _named("set", graphs), [torch.tensor([4]), torch.tensor([1]), torch.tensor([2])]
    )
    assert [int(graph.y) for graph in made.graphs] == [0, 1, 0]
    assert made.graphs[0] is graphs[4]
    assert [made.train_idx.tolist(), made.test_idx.tolist()] == [[0], [2]]


def _batch(floats: bool) -> Batch:
    graphs = [
        Data(
            x=torch.rand(size, 3) if floats else torch.randint(0, 5, (size, 2)),
            edge_index=torch.randint(0, size, (2, 2 * size)),
            edge_attr=torch.rand(2 * size, 1) if floats else torch.randint(0, 3, (2 * size, 1)),
        )
        for size in (3, 4, 6)
    ]
    return Batch.from_data_list(graphs)


IDS = {"node_ids": [5, 5], "edge_ids": [3]}
FLOATS = {"node_ids": [], "node_width": 3, "edge_ids": [], "edge_width": 1, "outputs": 4}


@pytest.mark.parametrize("inputs", [IDS, FLOATS], ids=["ids", "floats"])
@pytest.mark.parametrize("name", real_tasks_models.MODELS)
def test_models_are_packed_as_they_are(name: str, inputs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    data = _batch(floats=inputs is FLOATS)
    args = data.x, data.edge_index, data.edge_attr, data.batch
    options = {**real_tasks_models.MODELS[name], "hidden": 16, "layers": 1, "degrees": [1, 3, 2]}
    model = real_tasks_models.EdgeModel(**options, **inputs)
    prepared = nodebits.prepare(model, nodebits.DegreeQuantConfig(bits=4))
    nodebits.calibrate(prepared, *args)
    with torch.no_grad():
        expected = prepared.eval()(*args)
    packed = nodebits.convert(prepared)
    torch.testing.assert_close(packed.predict(*args), expected, rtol=1e-5, atol=1e-5)
    plan = packed.plan(*args)
    assert not isinstance(plan, str)
    # PNA scales by logarithms of degrees, whose last bit is that of torch.
    assert set(plan.leaves) == ({"log"} if name == "PNA" else set())
