"""The session of a server whose graph changes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.runtime import PackedModel
from nodebits.session.session import GraphSession
from nodebits.train.inputs import Inputs


def session_of(packed: PackedModel, inputs: Inputs, log: Path) -> GraphSession:
    """Goes on from a log of updates, or begins one with the data.

    Args:
        packed: The model.
        inputs: The data, for a log that is not there yet.
        log: Its folder.

    Raises:
        ConfigError: The model reads more than features, edges and edge weights.
        NodebitsError: As :class:`GraphSession`.
    """
    if log.is_dir() and any(log.iterdir()):
        return GraphSession.open(packed, log)
    given, others = inputs.arguments(packed)
    taken = [*given[2:], *others.values()]
    weight = inputs.others.get("edge_weight")
    weight = weight if any(weight is value for value in taken) else None
    more = [value for value in taken if isinstance(value, Tensor) and value is not weight]
    if more or len(given) < 2:
        raise ConfigError("--log is for models that read features, edges and edge weights alone")
    return GraphSession(packed, inputs.edge_index, inputs.x, weight, log=log)
