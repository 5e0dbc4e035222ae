"""What of a model's arguments has a row for each node, or for each edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.core.signature import names_of
from nodebits.graph import as_graph
from nodebits.runtime import PackedModel

Rows = dict[str, Tensor]


def arguments_by_row(
    packed: PackedModel, given: Sequence[Any], others: Mapping[str, Any]
) -> tuple[Rows, Rows]:
    """Arguments that are divided with the nodes, and with the edges, by the names in plans.

    Args:
        packed: The model.
        given: Its arguments by position: features, an adjacency, ...
        others: Its arguments by name.

    Raises:
        ConfigError: The first two are no features and edges, or a tensor has rows of neither.
    """
    names = names_of(packed.module.forward)
    named = {**dict(zip(names, given, strict=False)), **others}
    x = given[0] if given else None
    if min(len(given), len(names)) < 2 or not isinstance(x, Tensor) or x.dim() < 1:
        raise ConfigError(
            f"forward of {type(packed.module).__name__} takes ({', '.join(names)}): parts are of "
            "models that are called as forward(x, edge_index)"
        )
    edges = as_graph(given[1], x.size(0), x.size(0)).num_edges
    of_nodes: Rows = {}
    of_edges: Rows = {}
    for name, value in named.items():
        if value is given[1] or not isinstance(value, Tensor) or not value.dim():
            continue
        rows, into = (edges, of_edges) if name.startswith("edge") else (x.size(0), of_nodes)
        if value.size(0) != rows:
            raise ConfigError(
                f"argument {name!r} has {value.size(0)} rows: expected {rows}, one for each "
                f"{'edge' if into is of_edges else 'node'}"
            )
        into[name] = value
    return of_nodes, of_edges
