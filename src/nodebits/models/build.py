"""Named models, built from a spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError
from nodebits.core.registry import MODELS, TASKS
from nodebits.models.pairs import PairModel
from nodebits.models.pooling import pooling
from nodebits.models.recipe import Builder, NamedModel
from nodebits.models.spec import ModelSpec
from nodebits.tasks import find_task


def model_names() -> list[str]:
    """Names that :func:`build_model` knows."""
    return MODELS.names()


class GraphClassifier(nn.Module):
    """Convolutions, a pooling over each graph's nodes, and a two-layer head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        # Dropout acts before the last linear only.
        build: Builder = MODELS.get(spec.name).build
        self.gnn = build(replace(spec, dropout=0.0), spec.hidden_channels)
        self.act = nn.ReLU()
        self.pool = spec.pool
        self.lin1 = nn.Linear(spec.hidden_channels, spec.hidden_channels)
        self.dropout = nn.Dropout(spec.dropout)
        self.lin2 = nn.Linear(spec.hidden_channels, spec.out_channels)

    def forward(self, x: Tensor, edge_index: Any, batch: Tensor | None = None) -> Tensor:
        """``x`` ``[N, in_channels]``, ``batch`` int64 ``[N]`` -> ``[num_graphs, out_channels]``."""
        x = self.act(self.gnn(x, edge_index))
        x = self.act(self.lin1(pooling(self.pool)(x, batch)))
        result: Tensor = self.lin2(self.dropout(x))
        return result


def build_model(spec: ModelSpec) -> nn.Module:
    """Builds the float model of a spec.

    Args:
        spec: Its description.

    Returns:
        A module called as ``model(x, edge_index)``, with ``batch=`` for graph tasks, and
        ``edge_label_index`` for tasks of pairs.

    Raises:
        UnknownNameError: On an unknown model name.
        ConfigError: If the widths or the task make no model.
    """
    model: NamedModel = MODELS.get(spec.name)
    sizes = ("in_channels", "hidden_channels", "out_channels", "num_layers", "heads", "steps")
    for field in sizes:
        if getattr(spec, field) < 1:
            raise ConfigError(f"{field} is {getattr(spec, field)}: it must be at least 1")
    if not 0.0 < spec.teleport <= 1.0:
        raise ConfigError(f"teleport is {spec.teleport}: it must be above 0 and at most 1")
    if spec.task not in TASKS.names():
        raise ConfigError(f"task is {spec.task!r}: use one of {', '.join(TASKS.names())}")
    level = find_task(spec.task).level
    if level.many_graphs:
        return (model.build_graph or GraphClassifier)(spec)
    if level.pairs:
        gnn = model.build(spec, spec.hidden_channels)
        return PairModel(gnn, spec.hidden_channels, spec.out_channels, spec.head)
    return model.build(spec, spec.out_channels)
