"""The rows of an argument that an example keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nodebits.plan.adjacency import edges_of, given_graph
from nodebits.plan.example import Argument, NoExample, weight_name
from nodebits.plan.packed_rows import described

# No rows of nodes or edges.
_WHOLE = ("number", "row_per_graph")


@dataclass
class Cut:
    """What an example is made of: its arguments, and their tensors by name."""

    arguments: list[Argument] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)

    def number_graphs(self) -> None:
        """Numbers the graphs that are left of batches, of all types of nodes at once.

        Of what has a row for each graph, those of the others go.
        """
        names = [a.name for a in self.arguments if a.role == "batch"]
        if names:
            batches = [self.parts[name] for name in names]
            left, number = torch.cat(batches).unique(return_inverse=True)
            self.parts.update(zip(names, number.split([len(b) for b in batches]), strict=True))
            for one in self.arguments:
                if one.role == "row_per_graph":
                    self.parts[one.name] = self.parts[one.name].index_select(0, left)


def cut(found: Cut, argument: Argument, keep: Tensor, index: Tensor, chosen: Tensor) -> None:
    """Adds an argument.

    Args:
        found: Takes it.
        argument: With the value that it was given as.
        keep: Nodes of its type that are kept, int64.
        index: Edges of its type that are kept, between the kept nodes, int64 ``[2, e]``.
        chosen: Places of these edges, int64 ``[e]``.

    Raises:
        NoExample: If it is of a type that plans have not.
    """
    role, value, name = argument.role, argument.value, argument.name
    about: Any = None
    if role == "constant":
        about = value
    elif role in ("edges", "graph"):
        found.parts[name] = index
        given = given_graph(value) if role == "graph" else None
        about = None if given is None else given.kind
        weight = None if given is None else edges_of(given.graph)[1]
        if weight is not None:
            found.parts[weight_name(name)] = _not_all_one(_rows(weight, chosen))
    elif role == "packed":
        about = described(value)
        found.parts[name] = value.selected(keep)
    else:
        t = value.as_subclass(Tensor).detach()
        if role not in _WHOLE:
            t = _rows(t, chosen if role == "edge" else keep)
        if t.is_floating_point():
            if t.dtype != torch.float32 and (t.dim() != 2 or role not in ("node", "batch")):
                raise NoExample(f"{name!r} is {t.dtype}, and it is no feature matrix")
            t = t.float()
        found.parts[name] = t.contiguous()
    found.arguments.append(dataclasses.replace(argument, value=about))


def _rows(t: Tensor, index: Tensor) -> Tensor:
    """Rows of ``t``; of one that has none, rows of zeros."""
    if not t.size(0):
        return t.new_zeros((index.numel(), *t.shape[1:]))
    return t.index_select(0, index)


def _not_all_one(weight: Tensor) -> Tensor:
    """Weights of which no multiple is 1 alone, which would be none."""
    weight = weight.clone()
    if bool((weight == weight[0]).all()):
        weight[0] *= 0.5
    return weight
