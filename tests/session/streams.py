"""Random updates of a session, and what the model says of the graph as it then is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import nodebits

KINDS = ("add", "remove", "parallel", "nodes", "join", "gone", "features", "loop", "nothing")


def whole(packed: nodebits.PackedModel, session: nodebits.GraphSession) -> Tensor:
    """The module on the graph of a session: no plan, nothing kept."""
    graph = session.graph()
    weight = () if graph.edge_weight is None else (graph.edge_weight,)
    plain = nodebits.Graph(graph.indptr, graph.indices, graph.num_src)
    with torch.no_grad():
        found: Tensor = packed.module(session.features, plain.edge_index(), *weight)
    return found


def step(session: nodebits.GraphSession, kind: str, generator: torch.Generator) -> None:
    """One random update: a single call, so that a killed process made it or did not."""

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    alive = (~session.removed).nonzero().view(-1)
    graph = session.graph()
    edges = nodebits.Graph(graph.indptr, graph.indices, graph.num_src).edge_index()

    def weight(count: int) -> Any:
        return None if graph.edge_weight is None else torch.rand(count, generator=generator)

    if kind == "add":
        session.add_edges(alive[draw(len(alive), 2, 3)], weight(3))
    elif kind == "parallel" and edges.size(1):
        one = edges[:, draw(edges.size(1), 1)]
        session.add_edges(torch.cat([one, one], 1), weight(2))
    elif kind == "loop":
        node = alive[draw(len(alive), 1)]
        session.add_edges(torch.stack([node, node]), weight(1))
    elif kind == "remove" and edges.size(1) > 3:
        chosen = torch.randperm(edges.size(1), generator=generator)[:3]
        session.remove_edges(edges[:, chosen])
    elif kind == "nodes":
        x = session.features
        session.add_nodes(torch.randn(2, x.size(1), generator=generator))
    elif kind == "join":
        session.add_edges(torch.stack([alive[-2:], alive[draw(len(alive), 2)]]), weight(2))
    elif kind == "gone" and len(alive) > 8:
        session.remove_nodes(alive[draw(len(alive), 1)])
    elif kind == "features":
        nodes = alive[torch.randperm(len(alive), generator=generator)[:2]]
        session.set_features(nodes, torch.randn(2, session.features.size(1), generator=generator))
