"""Over-smoothing, measured: how alike neighbours are after each layer, and what rounding adds.

All figures are of a state ``x`` on a graph with self loops, ``A_hat = D^-1/2 (A + I) D^-1/2``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.graph import Graph, as_graph
from nodebits.nn.conv import QuantConv
from nodebits.nn.propagation import Propagation, observing_states

# Edges whose differences are held at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Smoothness:
    """One state.

    Attributes:
        dirichlet: ``tr(x^T L x) / |x|_F^2`` with ``L = I - A_hat``, in [0, 2]: 0 where all nodes
            lie on the operator's first eigenvector, which is over-smoothed.
        similarity: Mean cosine of the two ends of an edge, loops left out.
        distinct: Mean distance of the rows to their mean, as a share of their mean norm: 0 where
            all nodes are one point.
    """

    dirichlet: float
    similarity: float
    distinct: float


@torch.no_grad()
def smoothness(x: Tensor, adjacency: Any) -> Smoothness:
    """Measures a state.

    Args:
        x: float ``[N, C]``.
        adjacency: Any adjacency form, without or with self loops.
    """
    x = x.detach().double()
    graph = as_graph(adjacency, x.size(0), x.size(0)).with_self_loops()
    factor = graph.deg_inv_sqrt.double().view(-1, 1)
    scaled = x * factor
    norm = x.norm(dim=1)
    unit = x / norm.clamp_min(1e-30).view(-1, 1)
    energy, cosine, count = 0.0, 0.0, 0
    for rows, cols in _edges(graph):
        # Each edge of L's quadratic form is in the list once per direction.
        energy += float((scaled[rows] - scaled[cols]).square().sum()) / 2
        there = rows != cols
        cosine += float((unit[rows[there]] * unit[cols[there]]).sum())
        count += int(there.sum())
    spread = (x - x.mean(0)).norm(dim=1).mean() / norm.mean().clamp_min(1e-30)
    total = float(norm.square().sum())
    return Smoothness(energy / max(total, 1e-30), cosine / max(count, 1), float(spread))


def _edges(graph: Graph) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(graph.rows.split(_CHUNK), graph.indices.long().split(_CHUNK), strict=True)


@contextmanager
def layer_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the results of all convolutions, or all steps of a propagation, in order.

    Args:
        model: A prepared or packed model; layers left in float by their configuration included.
    """
    handles = []
    with observing_states() as steps:

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            steps.append(output.detach())

        for module in model.modules():
            alone = not isinstance(module, Propagation) or module.steps == 1
            if isinstance(module, QuantConv) and alone:
                handles.append(module.register_forward_hook(keep))
        try:
            yield steps
        finally:
            for handle in handles:
                handle.remove()


@dataclass(frozen=True)
class StepError:
    """What rounding did to the state after a step.

    Attributes:
        error: ``|x_k - float x_k|_F``.
        bound: ``sum_j (1 - alpha)^(k - j + 1) |e_j|_F`` over the steps j up to k, with the rounding
            errors ``e_j`` that were made.
        limit: ``max_j |e_j|_F (1 - alpha) / alpha``, which no depth exceeds.
    """

    error: float
    bound: float
    limit: float


@torch.no_grad()
def appnp_errors(
    h: Tensor, adjacency: Any, alpha: float, quantize: list[Callable[[Tensor], Tensor]]
) -> list[StepError]:
    """Runs quantized and float APPNP side by side and compares their distance with its bound.

    With ``F' = (1 - alpha) A_hat (F + e) + alpha H`` and ``|A_hat|_2 <= 1``, errors obey
    ``|E'| <= (1 - alpha) (|E| + |e|)``: geometric damping, whatever the depth.

    Args:
        h: float32 ``[N, C]``.
        adjacency: Any adjacency form of an undirected graph.
        alpha: Teleport.
        quantize: For every step, dequantized values of a message ``D^-1/2 F``.
    """
    graph = as_graph(adjacency, h.size(0), h.size(0)).with_self_loops()
    factor = graph.deg_inv_sqrt.double().view(-1, 1)
    exact = rounded = h.double()
    start, bound, worst = alpha * exact, 0.0, 0.0
    result = []

    def spread(message: Tensor) -> Tensor:
        out = torch.zeros_like(message)
        for rows, cols in _edges(graph):
            out.index_add_(0, rows, message[cols])
        return out * factor

    for step in quantize:
        message = step((rounded * factor).float()).double()
        # The error in units of the state: A_hat (F + e) = D^-1/2 (A + I) (message).
        added = float((message / factor - rounded).norm())
        worst = max(worst, added)
        bound = (1 - alpha) * (bound + added)
        rounded = (1 - alpha) * spread(message) + start
        exact = (1 - alpha) * spread(exact * factor) + start
        error = float((rounded - exact).norm())
        result.append(StepError(error, bound, worst * (1 - alpha) / alpha))
    return result
