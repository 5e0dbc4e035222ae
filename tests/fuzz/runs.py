"""The runs and searches whose files are seeds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from fuzz.models import CLASSES, FEATURES, NODES, graph
from nodebits import FitConfig
from nodebits.search.latency import LatencyTable
from nodebits.search.study import Study, StudySettings, Trial
from nodebits.train import as_problem
from nodebits.train.loop import Loop

FINGERPRINT = "fuzz"


def new_loop(name: str) -> Loop:
    """A run of one linear layer on a few nodes."""
    torch.manual_seed(0)
    x, edge_index = graph()
    mask = torch.arange(NODES) % 2 == 0
    data = Data(x=x, edge_index=edge_index, y=torch.arange(NODES) % CLASSES)
    place = torch.arange(len(mask))
    data.train_mask, data.val_mask, data.test_mask = (
        mask,
        place % 4 == 1,
        place % 4 == 3,
    )
    schedule = {"plain": "constant", "cosine": "cosine"}[name]
    config = FitConfig(epochs=4, schedule=schedule, progress=False)
    return Loop(_Head(), as_problem(data), config, None, None)


class _Head(nn.Module):
    """Looks at the features alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Any, edge_index: Any) -> Any:
        return self.linear(x)


def new_study() -> Study:
    """A search for bytes with three trials, kept nowhere."""
    settings = StudySettings("bytes", "random", 0.75)
    study = Study(settings, ["convs.0", "convs.1"], {"data": "digits", "seed": 0})
    for number, accuracy in enumerate((0.9, 0.8, 0.7)):
        study.trials.append(Trial((8, 4 - number), accuracy, 900 - number, 6.0, 1.5, 0.4))
    return study


def new_table() -> LatencyTable:
    """Kernel costs of two sites, one of them by degree."""
    costs = {"a": {8: 0.0, 4: -1.0}, "b": {8: 0.0, 1: -4.0}}
    return LatencyTable(10.0, costs, {"b": 0.5}, {"b": [0.5, 0.25, 0.25]}, {"isa": "avx2"})
