"""Named models: PyG's own, described by a spec that a file can carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    GATConv,
    GINConv,
    GraphSAGE,
    global_add_pool,
    global_mean_pool,
)

from nodebits.core.errors import ConfigError, UnknownNameError

_MODELS = {"gcn": GCN, "gin": GIN, "gat": GAT, "sage": GraphSAGE}


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a named model.

    Attributes:
        name: One of :func:`model_names`.
        in_channels: Node features.
        hidden_channels: Width of hidden layers (GAT: of all heads together).
        out_channels: Classes.
        num_layers: Convolutions.
        dropout: Dropout between layers.
        heads: GAT's attention heads in hidden layers.
        task: ``"node"``, or ``"graph"`` for pooling and a two-layer head.
        norm: None or ``"batch_norm"``, between layers.
        pool: ``"mean"`` or ``"add"``, for graph tasks.
    """

    name: str
    in_channels: int
    hidden_channels: int
    out_channels: int
    num_layers: int = 2
    dropout: float = 0.5
    heads: int = 8
    task: str = "node"
    norm: str | None = None
    pool: str = "mean"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelSpec:
        """Inverse of :meth:`to_json`.

        Raises:
            ConfigError: On missing or unknown keys.
        """
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigError(f"not a model description: {error}") from error


def model_names() -> list[str]:
    """Names that :func:`build_model` knows."""
    return sorted(_MODELS)


class GATNodes(nn.Module):
    """GAT as published: several heads in hidden layers, one in the last.

    PyG's ``GAT`` model gives every layer the same number of heads, which a class count rarely
    divides.
    """

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(spec.dropout)
        self.act = nn.ELU()
        convs = []
        width = spec.in_channels
        for layer in range(spec.num_layers):
            last = layer == spec.num_layers - 1
            heads = 1 if last else spec.heads
            channels = out_channels if last else spec.hidden_channels // spec.heads
            convs.append(GATConv(width, channels, heads=heads, dropout=spec.dropout))
            width = channels * heads
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        for layer, conv in enumerate(self.convs):
            x = conv(x, edge_index)
            if layer + 1 < len(self.convs):
                x = self.dropout(self.act(x))
        return x


class GINClassifier(nn.Module):
    """GIN for graph tasks (Xu et al. 2019): the nodes of every layer are pooled.

    Each layer's MLP ends with its batch norm and ReLU, so that the norm folds into a linear. No
    dropout between layers, as in the Degree-Quant release.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        convs = []
        hidden, width = spec.hidden_channels, spec.in_channels
        for _ in range(spec.num_layers):
            mlp = nn.Sequential(
                nn.Linear(width, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
            )
            convs.append(GINConv(mlp, train_eps=True))
            width = hidden
        self.convs = nn.ModuleList(convs)
        self.pool = spec.pool
        pooled = spec.num_layers * hidden
        # Pooled sizes differ by orders of magnitude between layers.
        self.norm = nn.BatchNorm1d(pooled)
        self.lin1 = nn.Linear(pooled, hidden)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)
        self.lin2 = nn.Linear(hidden, spec.out_channels)

    def forward(self, x: Tensor, edge_index: Any, batch: Tensor | None = None) -> Tensor:
        """``x`` ``[N, in_channels]``, ``batch`` int64 ``[N]`` -> ``[num_graphs, out_channels]``."""
        pool = _pool(self.pool)
        pooled = []
        for conv in self.convs:
            x = conv(x, edge_index)
            pooled.append(pool(x, batch))
        x = self.act(self.lin1(self.norm(torch.cat(pooled, dim=1))))
        result: Tensor = self.lin2(self.dropout(x))
        return result


def _pool(name: str) -> Callable[..., Tensor]:
    pool: Callable[..., Tensor] = global_mean_pool if name == "mean" else global_add_pool
    return pool


class GraphClassifier(nn.Module):
    """Convolutions, a pooling over each graph's nodes, and a two-layer head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        # Dropout acts before the last linear only.
        self.gnn = _node_model(replace(spec, dropout=0.0), spec.hidden_channels)
        self.act = nn.ReLU()
        self.pool = spec.pool
        self.lin1 = nn.Linear(spec.hidden_channels, spec.hidden_channels)
        self.dropout = nn.Dropout(spec.dropout)
        self.lin2 = nn.Linear(spec.hidden_channels, spec.out_channels)

    def forward(self, x: Tensor, edge_index: Any, batch: Tensor | None = None) -> Tensor:
        """``x`` ``[N, in_channels]``, ``batch`` int64 ``[N]`` -> ``[num_graphs, out_channels]``."""
        x = self.act(self.gnn(x, edge_index))
        x = self.act(self.lin1(_pool(self.pool)(x, batch)))
        result: Tensor = self.lin2(self.dropout(x))
        return result


def _node_model(spec: ModelSpec, out_channels: int) -> nn.Module:
    if spec.name == "gat":
        return GATNodes(spec, out_channels)
    options: dict[str, Any] = {"norm": spec.norm}
    if spec.name == "gin":
        # A constant epsilon keeps the first layer's sums of raw features constant, hence cached.
        options["train_eps"] = False
    model: nn.Module = _MODELS[spec.name](
        spec.in_channels,
        spec.hidden_channels,
        spec.num_layers,
        out_channels,
        dropout=spec.dropout,
        **options,
    )
    return model


def build_model(spec: ModelSpec) -> nn.Module:
    """Builds the float model of a spec.

    Args:
        spec: Its description.

    Returns:
        A module called as ``model(x, edge_index)``, and with ``batch=`` for graph tasks.

    Raises:
        UnknownNameError: On an unknown model name.
        ConfigError: If the widths or the task make no model.
    """
    if spec.name not in _MODELS:
        raise UnknownNameError.for_name("model", spec.name, _MODELS)
    for field in ("in_channels", "hidden_channels", "out_channels", "num_layers", "heads"):
        if getattr(spec, field) < 1:
            raise ConfigError(f"{field} is {getattr(spec, field)}: it must be at least 1")
    if spec.name == "gat" and spec.hidden_channels % spec.heads:
        raise ConfigError(
            f"hidden_channels is {spec.hidden_channels}: GAT needs a multiple of its {spec.heads} "
            "heads"
        )
    if spec.task not in ("node", "graph"):
        raise ConfigError(f"task is {spec.task!r}: use 'node' or 'graph'")
    if spec.task == "graph":
        return GINClassifier(spec) if spec.name == "gin" else GraphClassifier(spec)
    return _node_model(spec, spec.out_channels)


__all__ = ["GINClassifier", "GraphClassifier", "ModelSpec", "build_model", "model_names"]
