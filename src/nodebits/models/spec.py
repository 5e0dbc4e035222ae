"""The description of a named model, as files carry it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nodebits.core.errors import ConfigError
from nodebits.core.file_fields import STEPS, Flag, Integer, Number, Optional, Options, Text, shown
from nodebits.core.options import Count, Share

# What a description that comes from a file may say; build_model says which of it makes a model.
_WIDTH = Integer(1)
_FIELDS: Options = {
    "name": Text(),
    "in_channels": _WIDTH,
    "hidden_channels": _WIDTH,
    "out_channels": _WIDTH,
    "num_layers": STEPS,
    "dropout": Number(0.0, 1.0),
    "heads": _WIDTH,
    "task": Text(),
    "norm": Optional(Text()),
    "pool": Text(),
    "steps": STEPS,
    "teleport": Number(),
    "residual": Flag(),
    "head": Optional(Text()),
}
# What descriptions had of SMP's constraint, and its values by default: see from_json.
_CONSTRAINT = {"operator": "adjacency", "multiplier": "none", "tolerance": 0.1}
_OPERATORS = ("adjacency", "laplacian")


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a named model.

    Attributes:
        name: One of :func:`model_names`.
        in_channels: Node features.
        hidden_channels: Width of hidden layers (GAT: of all heads together).
        out_channels: Classes, or what else the task asks for.
        num_layers: Convolutions; linears, in models that propagate after an MLP.
        dropout: Dropout between layers.
        heads: GAT's attention heads in hidden layers.
        task: A task, such as ``"node"``; graph-level ones have a pooling and a two-layer head.
        norm: None or ``"batch_norm"``, between layers.
        pool: ``"mean"`` or ``"add"``, for graph tasks.
        steps: Propagation steps of appnp, smp, dagnn and other packages' models.
        teleport: alpha of ``appnp``, ``smp`` and ``gcnii``.
        residual: Whether ``deepgcn`` adds a layer's input to its output.
        head: Of tasks on pairs of nodes: ``dot`` or ``mlp``; None: ``dot`` for one output.
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
    steps: Count = 10
    teleport: Share = 0.1
    residual: bool = True
    head: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelSpec:
        """Inverse of :meth:`to_json`.

        Older descriptions say how SMP's steps are held back: that is a model of its own now.

        Raises:
            ConfigError: On missing or unknown keys.
        """
        found: dict[str, Any] = _CONSTRAINT | data
        operator, multiplier, _ = (found.pop(name) for name in _CONSTRAINT)
        if found.get("name") == "smp" and multiplier != "none":
            if operator not in _OPERATORS:
                raise ConfigError(f"not a model description: operator is {shown(operator)}")
            found["name"] = f"smp-{operator}"
        try:
            spec = cls(**found)
        except TypeError as error:
            raise ConfigError(f"not a model description: {error}") from error
        for name, field in _FIELDS.items():
            fault = field.fault(getattr(spec, name))
            if fault:
                value = shown(getattr(spec, name))
                raise ConfigError(f"not a model description: {name} is {value}, not {fault}")
        return spec
