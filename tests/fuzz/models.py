"""The small models whose files are the seeds: every layer and method that files can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from nodebits_smoothness.elastic_conv import ElasticConv
from nodebits_smoothness.smp_conv import SmoothnessConstraint, SMPConv
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv
from torch_geometric.utils import to_undirected

from nodebits.models import ModelSpec, build_model
from nodebits.models.propagated import PropagationModel

NODES, FEATURES, HIDDEN, CLASSES = 12, 6, 8, 3


class Mixed(nn.Module):
    """Convolutions, a norm and a head, as a user may write them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, HIDDEN)
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.second = SAGEConv(HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        x = self.norm(self.first(x, edge_index)).relu()
        return self.head(self.second(x, edge_index).relu())


class Weighted(nn.Module):
    """Layers with edge weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GraphConv(FEATURES, HIDDEN)
        self.second = GATConv(HIDDEN, CLASSES, edge_dim=None)

    def forward(self, x: Any, edge_index: Any, edge_weight: Any = None) -> Tensor:
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index)


def elastic() -> nn.Module:
    """A layer of another package, which files of a named model have, too."""
    return PropagationModel(_spec("elastic"), CLASSES, ElasticConv(2, channels=CLASSES))


def constrained() -> nn.Module:
    """The same of SMP."""
    layer = SMPConv(2, 0.1, CLASSES, SmoothnessConstraint(multiplier="modified"))
    return PropagationModel(_spec("smp"), CLASSES, layer)


def graph() -> tuple[Tensor, Tensor]:
    """Features and edges: a hub, loops, duplicates, a node without any."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, NODES - 1, (2, 3 * NODES), generator=generator)
    hub = torch.stack([torch.arange(NODES - 1), torch.zeros(NODES - 1, dtype=torch.int64)])
    edges = torch.cat([edges, edges[:, :4], hub, torch.tensor([[1, 5], [1, 5]])], 1)
    return torch.randn(NODES, FEATURES, generator=generator), edges


def inputs_of(name: str) -> tuple[Any, ...]:
    """What the model of this name is run on."""
    x, edge_index = graph()
    if name == "linear":
        return (x,)
    if name == "embedding":
        return (torch.arange(NODES) % 6,)
    if name == "weighted":
        return x, edge_index, torch.linspace(0.1, 2.0, edge_index.size(1))
    if name == "sparse":
        return (torch.arange(NODES * 400).view(NODES, 400) % 37 == 0).float(), edge_index
    if name == "elastic":
        return x, to_undirected(edge_index)
    if name == "pooled":
        return x, edge_index, torch.arange(NODES) // 4
    return x, edge_index


@dataclass(frozen=True)
class Model:
    """How a model is made.

    Attributes:
        method: Name of the method.
        spec: Of a named model; None for one of the user's own.
        module: Makes one of the user's own.
        options: Of the method.
        features: Whether a file of packed features is a seed, too.
    """

    method: str = "uniform"
    spec: ModelSpec | None = None
    module: Callable[[], nn.Module] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    features: bool = False

    def float(self) -> nn.Module:
        """The float module."""
        if self.module is not None:
            return self.module()
        assert self.spec is not None
        return build_model(self.spec)


def _spec(name: str, **more: Any) -> ModelSpec:
    settings = {"heads": 2, "steps": 2, **more}
    features = settings.pop("features", FEATURES)
    return ModelSpec(name, features, HIDDEN, CLASSES, **settings)


_WIDTHS = {"splits": (2, 4), "degree_bits": (6, 4, 3)}
MODELS: dict[str, Model] = {
    "linear": Model(module=lambda: nn.Sequential(nn.Linear(FEATURES, CLASSES)), features=True),
    "embedding": Model(
        module=lambda: nn.Sequential(nn.Embedding(6, 4, padding_idx=5), nn.Linear(4, CLASSES))
    ),
    "mixed": Model(module=Mixed, method="degree-quant"),
    "weighted": Model(module=Weighted),
    "gcn": Model(spec=_spec("gcn"), features=True),
    "sparse": Model(spec=_spec("gcn", features=400), features=True),
    "gat": Model("a2q", _spec("gat"), features=True),
    "sage": Model("sgquant", _spec("sage"), options=_WIDTHS, features=True),
    "gin": Model("degree-quant", _spec("gin", norm="batch_norm")),
    "pooled": Model("a2q", _spec("gin", task="graph")),
    "agnn": Model("sgquant", _spec("agnn"), options=_WIDTHS),
    "appnp": Model(spec=_spec("appnp")),
    "dagnn": Model("degree-quant", _spec("dagnn")),
    "elastic": Model(module=elastic),
    "gcnii": Model("a2q", _spec("gcnii")),
    "smp": Model("smp", _spec("smp")),
    "constrained": Model("smp", module=constrained),
}
