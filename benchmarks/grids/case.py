"""A row of a grid: a module, and what its forward is given, by the names of :func:`tensors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch_geometric.data import Data

# Nodes, targets of pairs, edges, and channels of nodes and of targets of pairs.
N, M, E, C, C_DST = 60, 24, 300, 16, 8


class Case(NamedTuple):
    """A module with arguments.

    Attributes:
        name: Class of the layer or name of the model.
        variant: What the row varies.
        make: Makes it, with weights drawn anew.
        given: Names of its arguments in :func:`tensors`; ``edge_attr=attr_3`` for keywords.
        sparse: Whether ``edges`` may also be a sparse matrix.
    """

    name: str
    variant: str
    make: Callable[[], nn.Module]
    given: str
    sparse: bool = True

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.name} {self.variant}".strip()

    def arguments(self, known: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by position and by name."""
        words = [word.rpartition("=") for word in self.given.split()]
        args = tuple(known[value] for name, _, value in words if not name)
        return args, {name: known[value] for name, _, value in words if name}


def tensors(seed: int = 0) -> dict[str, Any]:
    """Random arguments, by the names that cases use."""
    torch.manual_seed(seed)
    edges = _edges(N, N)
    batch = torch.arange(N) // (N // 4)
    x, x_dst = torch.randn(N, C), torch.randn(M, C_DST)
    one_way = edges[:, edges[0] != edges[1]]
    by_batch = edges[:, batch[edges[0]] == batch[edges[1]]]
    pos = torch.rand(N, 3)
    normal = normalize(torch.randn(N, 3))
    negative = _edges(N, N)
    return {
        "x": x,
        "x_0": torch.randn(N, C),
        "stack": torch.randn(3, N, C),
        "history": torch.randn(N, 3, C),
        "edges": edges,
        "sorted_edges": edges[:, edges[1].argsort(stable=True)],
        "undirected": torch.cat([one_way, one_way.flip(0)], 1).unique(dim=1),
        "batch_edges": by_batch,
        "negative": negative,
        "hyper_edges": torch.stack([torch.arange(120) % N, torch.randint(M, (120,))]),
        "hyper_weight": torch.rand(M) + 0.1,
        "hyper_attr": torch.randn(M, C),
        "mesh": torch.stack([torch.arange(N).repeat_interleave(4), torch.randint(N, (4 * N,))]),
        "pair": (x, x_dst),
        "pair_even": (x, x[:M].clone()),
        "source": (x, None),
        "pair_edges": _edges(N, M),
        "size": (N, M),
        "square": (N, N),
        "weight": torch.rand(E) + 0.1,
        "signed": torch.randn(E),
        "attr_1": torch.randn(E, 1),
        "attr_3": torch.rand(E, 3),
        "attr_8": torch.randn(E, 8),
        "attr_c": torch.randn(E, C),
        "types": torch.arange(E) % 4,
        "types_2": torch.arange(E) % 2,
        "node_types": torch.arange(N) % 3,
        "batch": batch,
        "batch_attr": torch.randn(by_batch.size(1), 3),
        "z": torch.randint(1, 10, (N,)),
        "one_hot": torch.eye(N),
        "x_as_data": Data(
            x=x,
            edge_index=edges,
            batch=torch.zeros(N, dtype=torch.long),
            y=torch.randn(N, 51),
            y_graph=torch.randn(11),
        ),
        "pos": pos,
        "pos_pair": (pos, torch.rand(M, 3)),
        "normal": normal,
        "normal_pair": (normal, normalize(torch.randn(M, 3))),
        "none": None,
        "yes": True,
        "lambda_max": torch.tensor(2.5),
        **_heterogeneous(),
    }


def _edges(sources: int, targets: int) -> Tensor:
    return torch.stack([torch.randint(sources, (E,)), torch.randint(targets, (E,))])


# Layers over types of nodes are made with these.
TYPES: tuple[list[str], list[tuple[str, str, str]]] = (
    ["paper", "author"],
    [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")],
)


def _heterogeneous() -> dict[str, Any]:
    sizes = {"paper": N, "author": M}
    by_type = {name: torch.randn(count, C) for name, count in sizes.items()}
    wide = {"paper": torch.randn(N, C), "author": torch.randn(M, C_DST)}
    edges = {kind: _edges(sizes[kind[0]], sizes[kind[2]]) for kind in TYPES[1]}
    return {
        "x_by_type": by_type,
        "x_by_type_uneven": wide,
        "edges_by_type": edges,
        "attr_of_by": {TYPES[1][2]: torch.randn(E, 3)},
    }
