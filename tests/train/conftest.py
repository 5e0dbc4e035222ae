from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from nodebits.models import ModelSpec, build_model
from nodebits.train import GraphProblem

from .small import planted_graph, planted_graphs


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine a parallel region waits for its slowest thread; these tensors are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def graph() -> Data:
    return planted_graph()


@pytest.fixture
def graphs() -> GraphProblem:
    index = torch.arange(40)
    return GraphProblem(planted_graphs(), index[:24], index[24:32], index[32:])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return build_model(ModelSpec("gcn", 12, 16, 2, task="node"))
