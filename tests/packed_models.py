"""Small models after two training steps, and graphs with every irregularity in them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SAGEConv

from nodebits.methods import make_config, prepare
from nodebits.methods.base import QuantConfig
from nodebits.models import ModelSpec, build_model
from nodebits.runtime import PackedModel, convert

NODES, FEATURES, CLASSES = 40, 12, 3


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small_graph(
    nodes: int = NODES, features: int = FEATURES, seed: int = 0, binary: bool = False
) -> tuple[Tensor, Tensor]:
    """Features and edges: a hub, self loops, duplicate edges, and a node without any."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, nodes - 1, (2, 4 * nodes), generator=generator)
    hub = torch.stack([torch.arange(nodes - 1), torch.zeros(nodes - 1, dtype=torch.int64)])
    loops = torch.tensor([[1, 5, 5], [1, 5, 5]])
    edges = torch.cat([edges, edges[:, :10], hub, loops], dim=1)
    x = torch.randn(nodes, features, generator=generator)
    return ((x > 1.3).float() if binary else x), edges


def two_steps(model: nn.Module, config: QuantConfig, *inputs: Any, **keywords: Any) -> nn.Module:
    """Prepares ``model``, trains it for two steps, and leaves it in evaluation mode."""
    prepared = prepare(model, config).train()
    optimizer = torch.optim.Adam(prepared.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        out = prepared(*inputs, **keywords)
        nn.functional.cross_entropy(out, torch.arange(out.size(0)) % out.size(1)).backward()
        optimizer.step()
    return prepared.eval()


@dataclass(frozen=True)
class Case:
    """A trained model, its packed form, what they were run on, and the simulated result."""

    spec: ModelSpec
    prepared: nn.Module
    packed: PackedModel
    x: Tensor
    edge_index: Tensor
    extra: dict[str, Tensor]
    simulated: Tensor


def make_case(
    name: str = "gcn",
    method: str = "uniform",
    bits: int = 4,
    task: str = "node",
    features: int = FEATURES,
    norm: str | None = None,
    **options: Any,
) -> Case:
    """A case of its own: what is trained is kept in the process, and copies are handed out."""
    key = repr((name, method, bits, task, features, norm, sorted(options.items())))
    if key not in _kept:
        with threads(1), torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(bits)
            _kept[key] = _trained_case(name, method, bits, task, features, norm, options)
    return copy.deepcopy(_kept[key])


_kept: dict[str, Case] = {}


def _trained_case(
    name: str,
    method: str,
    bits: int,
    task: str,
    features: int,
    norm: str | None,
    options: dict[str, Any],
) -> Case:
    x, edge_index = small_graph(features=features, binary=features > FEATURES)
    spec = ModelSpec(name, features, 16, CLASSES, heads=4, task=task, norm=norm)
    extra = {}
    if task == "graph":
        extra["batch"] = torch.arange(NODES) // (NODES // 4)
    config = make_config(method, bits=bits, **options)
    prepared = two_steps(build_model(spec), config, x, edge_index, **extra)
    with torch.no_grad():
        simulated = prepared(x, edge_index, **extra)
    return Case(spec, prepared, convert(prepared, spec), x, edge_index, extra, simulated)


class UserModel(nn.Module):
    """What a user might write: two kinds of convolution, a norm and a linear head."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.second = SAGEConv(hidden, hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        x = self.norm(self.first(x, edge_index)).relu()
        x = self.second(x, edge_index).relu()
        return self.head(x)
