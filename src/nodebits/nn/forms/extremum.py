"""The largest or smallest of source rows, by column: of codes, for dequantization is monotone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch_geometric.nn.aggr import Aggregation, MaxAggregation, MinAggregation

from nodebits.graph import Graph
from nodebits.nn.forms.base import Sites, register_form
from nodebits.nn.forms.message import Product
from nodebits.nn.functional import AnyRows
from nodebits.nn.propagate.arguments import Call
from nodebits.nn.reductions import compares, extremum

_SMALLEST = {MaxAggregation: False, MinAggregation: True}


@register_form
@dataclass(frozen=True)
class Extremum:
    """``out_i = max_j Q(x_j)``, or the minimum; 0 for targets without edges.

    Attributes:
        message: The source rows, without weights: a weight of either sign would turn the order.
        smallest: Whether it is the minimum.
    """

    message: Product
    smallest: bool

    @classmethod
    def of(cls, message: Product, aggregation: Aggregation) -> Extremum | None:
        """The form of a message and an aggregation; None where it is another."""
        smallest = _SMALLEST.get(type(aggregation))
        if smallest is None or not message.is_rows:
            return None
        return cls(message, smallest)

    @classmethod
    def runs(cls, aggregation: Aggregation) -> str | None:
        """Its name: ``max`` or ``min`` of integers."""
        smallest = _SMALLEST.get(type(aggregation))
        return None if smallest is None else f"integer {'min' if smallest else 'max'}"

    def fits(self, rows: AnyRows) -> bool:
        """Whether the codes may be compared in place of the values."""
        return compares(rows)

    def run(self, call: Call, graph: Graph, sites: Sites) -> Tensor:
        """Aggregated messages, float32 ``[*, num_dst, *shape]``."""
        message = self.message
        values = call.at_end(message.rows[:-2], call.end(message.rows))
        lead = values.shape[:-2] if message.stacked else ()
        if lead:
            made = extremum(
                sites.rows(message.rows), graph.repeated(math.prod(lead)), self.smallest
            )
            return made.view(*lead, graph.num_dst, *message.shape)
        alone = sites.layer if len(message.shape) == 1 else None
        made = extremum(sites.rows(message.rows), graph, self.smallest, layer=alone)
        return made if alone else made.view(graph.num_dst, *message.shape)
