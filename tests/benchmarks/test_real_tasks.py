from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch_geometric.data import Batch, Data

import nodebits
import real_tasks
import real_tasks_models
import real_tasks_table


def _row(seed: int, packed: float, label: str = "") -> dict[str, Any]:
    return {
        "dataset": "ESOL", "model": "GINE", "bits": 4, "seed": seed, "label": label,
        "float": 0.6 + 0.02 * seed, "packed": packed, "agreement": 1.0 - 0.1 * seed,
        "file_bytes": 1, "float_file_bytes": 4, "arguments": {"layers": 3, "hidden": 64},
        "fit": {"epochs": 40, "batch_size": 128},
    }  # fmt: skip


def test_a_loss_is_told_in_deviations_of_float() -> None:
    rows = [_row(0, 0.61), _row(1, 0.63), _row(0, 0.6, "inputs-8")]
    text = real_tasks_table.render(rows)
    line = "| 0.610 ± 0.014 |  | **0.620 ± 0.014** | +0.7 |  | 0.9000 | 25% |"
    assert f"| ESOL | GINE | 4 | 2 {line}" in text
    assert "| ESOL | GINE | 4 | inputs-8 | 1 |" in text
    assert "3 layers of width 64, 40 epochs" in text


def test_a_float_model_that_was_trained_alike_stands_beside() -> None:
    rows = [_row(0, 0.61), _row(1, 0.63), _row(0, 0.59, "alike"), _row(1, 0.61, "alike")]
    text = real_tasks_table.render(rows)
    assert "| 0.600 ± 0.014 | **0.620 ± 0.014** | +0.7 | +1.4 | 0.9000 |" in text
    assert "Other widths" not in text


def test_rows_are_identified_by_what_was_asked_for() -> None:
    asked = {"seeds": 2, "models": ["GINE", "PNA"], "bits": [8, 4], "label": ""}
    cells = list(real_tasks.grid(type("Options", (), asked), "ESOL"))
    assert len({cell["key"] for cell in cells}) == len(cells) == 8
    assert json.loads(cells[0]["key"]) == ["ESOL", "GINE", 8, 0, ""]


@pytest.mark.parametrize("name", real_tasks_models.MODELS)
def test_models_are_packed_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    graphs = [
        Data(
            x=torch.randint(0, 5, (size, 2)),
            edge_index=torch.randint(0, size, (2, 2 * size)),
            edge_attr=torch.randint(0, 3, (2 * size, 1)),
        )
        for size in (3, 4, 6)
    ]
    data = Batch.from_data_list(graphs)
    args = data.x, data.edge_index, data.edge_attr, data.batch
    options = {**real_tasks_models.MODELS[name], "hidden": 16, "layers": 1, "degrees": [1, 3, 2]}
    model = real_tasks_models.Molecules(**options, node_ids=[5, 5], edge_ids=[3])
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
