"""A trained float model and its space, once for all tests of the search."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from nodebits.data.base import Dataset, node_dataset
from nodebits.jobs.experiment import Experiment
from nodebits.methods import SGQuantConfig
from nodebits.models import ModelSpec
from nodebits.search import Evaluator, Space
from nodebits.train import FitConfig

SPLITS = [3, 6]


def small_dataset() -> Dataset:
    """Three classes of 60 nodes with noisy features; neighbours mostly agree."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(180) % 3
    x = torch.randn(180, 12, generator=generator) + 1.2 * torch.nn.functional.one_hot(y, 12)
    source = torch.randint(180, (700,), generator=generator)
    same = torch.randint(60, (700,), generator=generator) * 3 + y[source]
    edge_index = torch.cat([torch.stack([source, same]), torch.stack([same, source])], 1)
    place = torch.randperm(180, generator=generator)
    masks = tuple(torch.zeros(180, dtype=torch.bool) for _ in range(3))
    for mask, part in zip(masks, place.split([45, 75, 60]), strict=True):
        mask[part] = True
    return node_dataset("small", Data(x, edge_index, y=y), masks, "made up", "")


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    return Experiment(small_dataset(), ModelSpec("gcn", 12, 8, 3))


@pytest.fixture(scope="session")
def teacher(experiment: Experiment) -> object:
    return experiment.train_float(FitConfig(epochs=40, progress=False))


def make_evaluator(experiment: Experiment, teacher: object, buckets: bool) -> Evaluator:
    evaluator = Evaluator(teacher.model, experiment.problem)  # type: ignore[attr-defined]
    options = {"mode": "ptq", "splits": SPLITS}
    account = evaluator.account(SGQuantConfig(bits=8, mode="ptq"))
    evaluator.space = Space.of(
        account,
        "sgquant",
        choices=(1, 2, 4, 8),
        granularity="bucket" if buckets else "component",
        **options,
    )
    return evaluator


@pytest.fixture(scope="session")
def evaluator(experiment: Experiment, teacher: object) -> Evaluator:
    return make_evaluator(experiment, teacher, False)


@pytest.fixture(scope="session")
def bucketed(experiment: Experiment, teacher: object) -> Evaluator:
    return make_evaluator(experiment, teacher, True)
