"""What a model can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class KnownRows:
    """Nodes of the data.

    Attributes:
        rows: int64 ``[k]``.
        names: As they were asked for, and are called in the answer.
    """

    rows: Tensor
    names: list[int | str]


@dataclass(frozen=True)
class SampledRows(KnownRows):
    """Nodes of the data, from a sample of their neighbourhood.

    Attributes:
        num_neighbors: As :meth:`nodebits.PackedModel.predict_nodes` takes it.
        seed: Likewise.
    """

    num_neighbors: list[int]
    seed: int | None


@dataclass(frozen=True)
class NewNodes:
    """Nodes that the data do not have, with edges to and from those that they have.

    Attributes:
        x: ``[m, C]``, or ids of an embedding ``[m]``.
        edges: int64 ``[2, e]``, sources and targets; the new nodes are numbers N to N + m - 1.
        of_edges: What else edges have by name, such as ``edge_weight``, ``[e, ...]``.
    """

    x: Tensor
    edges: Tensor
    of_edges: Mapping[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Pairs of nodes of the data.

    Attributes:
        pairs: int64 ``[2, k]``.
        names: As they were asked for; None for numbers.
    """

    pairs: Tensor
    names: list[Any] | None = None


@dataclass(frozen=True)
class OneGraph:
    """A graph of its own.

    Attributes:
        x: ``[n, C]``, or ids of an embedding ``[n]`` or ``[n, c]``.
        edges: int64 ``[2, e]``.
        others: What else it has by name: ``edge_weight``, ``edge_attr``, ``pos``.
    """

    x: Tensor
    edges: Tensor
    others: Mapping[str, Tensor]


@dataclass(frozen=True)
class Graphs:
    """Graphs to predict for."""

    graphs: list[OneGraph]


@dataclass(frozen=True)
class Change:
    """A change of the graph of a session.

    Attributes:
        kind: A method of :class:`nodebits.session.session.GraphSession`.
        tensors: Its arguments.
    """

    kind: str
    tensors: tuple[Tensor, ...]


Question = KnownRows | Pairs | NewNodes | Graphs | Change
