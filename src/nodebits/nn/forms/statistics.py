"""Several statistics of source rows from one pass over the edges, scaled by degree where asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.aggr import (
    Aggregation,
    DegreeScalerAggregation,
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    MultiAggregation,
    StdAggregation,
    SumAggregation,
    VarAggregation,
)

from nodebits.graph import Graph
from nodebits.nn.forms.base import Sites, register_form
from nodebits.nn.forms.message import Product
from nodebits.nn.functional import AnyRows
from nodebits.nn.propagate.arguments import Call
from nodebits.nn.reductions import compares, statistics
from nodebits.ops import Statistic

_KINDS: dict[type[Aggregation], Statistic] = {
    SumAggregation: Statistic.SUM,
    MeanAggregation: Statistic.MEAN,
    MaxAggregation: Statistic.MAX,
    MinAggregation: Statistic.MIN,
    VarAggregation: Statistic.VAR,
    StdAggregation: Statistic.STD,
}
_SPREADS = (Statistic.VAR, Statistic.STD)


def kinds_of(aggregation: Any) -> list[Statistic] | None:
    """The statistics that an aggregation is made of; None where it is made of others."""
    if type(aggregation) is DegreeScalerAggregation:
        return kinds_of(aggregation.aggr)
    parts = aggregation.aggrs if type(aggregation) is MultiAggregation else [aggregation]
    kinds = [_KINDS.get(type(part)) for part in parts]
    found = [kind for kind in kinds if kind is not None]
    return found if len(found) == len(kinds) and not any(map(_cuts, parts)) else None


def _cuts(aggregation: Any) -> bool:
    """Whether part of its gradient is left out."""
    return bool(getattr(getattr(aggregation, "var_aggr", aggregation), "semi_grad", False))


@register_form
@dataclass(frozen=True)
class Statistics:
    """Sum, mean, max, min, variance and deviation of ``Q(x_j)``, together.

    What combines them (side by side, a projection, the scalers of PNA) is the layer's own.

    Attributes:
        message: The source rows, without weights.
        kinds: What is asked of them.
    """

    message: Product
    kinds: tuple[Statistic, ...]

    @classmethod
    def of(cls, message: Product, aggregation: Aggregation) -> Statistics | None:
        """The form of a message and an aggregation; None where it is another."""
        kinds = cls._asked(aggregation)
        return None if kinds is None or not message.is_rows else cls(message, kinds)

    @classmethod
    def _asked(cls, aggregation: Aggregation) -> tuple[Statistic, ...] | None:
        kinds = kinds_of(aggregation)
        alone = type(aggregation) in _KINDS
        # Sums and extremes by themselves have forms that go on to the next site's codes.
        if not kinds or (alone and kinds[0] not in _SPREADS):
            return None
        return tuple(kinds)

    @classmethod
    def runs(cls, aggregation: Aggregation) -> str | None:
        """Its name, for single variances and for what is made of several statistics."""
        return None if cls._asked(aggregation) is None else "integer statistics"

    def fits(self, rows: AnyRows) -> bool:
        """Whether the codes may be compared and squared in place of the values."""
        return compares(rows)

    def run(self, call: Call, graph: Graph, sites: Sites) -> Tensor:
        """Aggregated messages, float32 ``[num_dst, *shape]``; several matrices one by one."""
        message = self.message
        made = statistics(sites.rows(message.rows), self._of(call, graph), self.kinds)
        values = call.at_end(message.rows[:-2], call.end(message.rows))
        lead = values.shape[:-2] if message.stacked else ()
        shape = (*lead, graph.num_dst, *message.shape)
        columns = made.size(1) // len(self.kinds)
        parts = [part.reshape(shape) for part in made.split(columns, 1)]
        return combined(sites.aggregation, parts, graph, call.node_dim)

    def _of(self, call: Call, graph: Graph) -> Graph:
        message = self.message
        if not message.stacked:
            return graph
        lead = call.at_end(message.rows[:-2], call.end(message.rows)).shape[:-2]
        return graph.repeated(lead.numel()) if lead else graph


def combined(aggregation: Any, parts: Sequence[Tensor], graph: Graph, dim: int) -> Tensor:
    """What an aggregation makes of its statistics, as its own forward does.

    Args:
        aggregation: One that :func:`kinds_of` knows.
        parts: Its statistics.
        graph: For the degrees.
        dim: Dimension of nodes.
    """
    if type(aggregation) is MultiAggregation:
        made: Tensor = aggregation.combine(list(parts))
        return made
    if type(aggregation) is not DegreeScalerAggregation:
        return parts[0]
    inner = combined(aggregation.aggr, parts, graph, dim)
    size = [1] * inner.dim()
    size[dim] = -1
    degree = graph.degree.view(size)
    factors = [degree_factor(name, degree, aggregation) for name in aggregation.scaler]
    scaled = [inner if factor is None else inner * factor for factor in factors]
    return torch.cat(scaled, -1) if len(scaled) > 1 else scaled[0]


def degree_factor(name: str, degree: Tensor, scaler: Any) -> Tensor | None:
    """One of the scalers of PNA (Corso et al. 2020), in PyG's own order of operations.

    Args:
        name: Of the scaler.
        degree: float32, in-degrees.
        scaler: The aggregation, which has the averages.

    Returns:
        A factor for every degree; None for the identity.
    """
    if name == "identity":
        return None
    made: Tensor
    if name == "amplification":
        made = torch.log(degree + 1) / scaler.avg_deg_log
        return made
    if name == "attenuation":
        made = scaler.avg_deg_log / torch.log(degree.clamp(min=1) + 1)
        return made
    if name == "linear":
        made = degree / scaler.avg_deg_lin
        return made
    if name == "inverse_linear":
        made = scaler.avg_deg_lin / degree.clamp(min=1)
        return made
    raise ValueError(f"Unknown scaler {name!r}")
