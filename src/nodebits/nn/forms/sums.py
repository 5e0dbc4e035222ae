"""Sums and means of source rows, weighted by numbers per edge, per head and per target."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor
from torch_geometric.nn.aggr import Aggregation, MeanAggregation, SumAggregation

from nodebits.core.errors import NonFiniteError
from nodebits.core.observer import check_finite
from nodebits.engine.edges import EdgeCodes
from nodebits.graph import Graph, as_graph
from nodebits.nn.forms.base import SUM, Sites, register_form
from nodebits.nn.forms.edges import codes_of, edge_codes, with_row_scales
from nodebits.nn.forms.message import Product
from nodebits.nn.functional import AnyRows, aggregate
from nodebits.nn.propagate.arguments import Call, as_rows

_MEAN = {SumAggregation: False, MeanAggregation: True}


@register_form
@dataclass(frozen=True)
class Sum:
    """``out_i = f_i * sum_j w_ij Q(x_j)``, or the mean.

    The sum is one of integer codes. The weights of a target's edges become codes with a scale of
    that target; ``f_i`` and the count of a mean are factors of its epilogue. Where rows have a
    scale each, that of a source is part of the weights of its edges.

    Attributes:
        message: What the message is a product of.
        mean: Whether the sum is divided by the number of edges.
    """

    message: Product
    mean: bool

    @classmethod
    def of(cls, message: Product, aggregation: Aggregation) -> Sum | None:
        """The form of a message and an aggregation; None where it is another."""
        mean = _MEAN.get(type(aggregation))
        return None if mean is None else cls(message, mean)

    @classmethod
    def runs(cls, aggregation: Aggregation) -> str | None:
        """Its name, for sums and means."""
        return SUM if type(aggregation) in _MEAN else None

    def fits(self, rows: AnyRows) -> bool:
        """Whether all rows have the same zero point, or the same scale.

        A scale per row is part of the weights of edges; a zero point as well would need a second
        sum.
        """
        return not rows.by_row or rows.zero_point.numel() == 1

    def run(self, call: Call, graph: Graph, sites: Sites) -> Tensor:
        """Aggregated messages, float32 ``[*, num_dst, *shape]``.

        Args:
            call: Arguments of ``propagate``.
            graph: Its edges.
            sites: Where tensors become codes.
        """
        message = self.message
        values = call.at_end(message.rows[:-2], call.end(message.rows))
        lead = values.shape[:-2] if message.stacked else ()
        rows = sites.rows(message.rows)
        row_scale = graph.inverse_degree.view(-1, 1) if self.mean else None
        for name in message.factors:
            value = call.at_end(name[:-2], call.end(name))
            factor = as_rows(value, graph.num_dst).float()
            row_scale = factor if row_scale is None else row_scale * factor
        targets = graph.num_dst
        parts = math.prod(lead)
        whole = graph.repeated(parts) if lead else graph
        edges: EdgeCodes | None
        if rows.by_row:
            site, path = sites.weights(message.weights)
            weight = self._weights(call, graph, path) if message.weights else None
            weight = weight.repeat(parts, 1) if lead and weight is not None else weight
            rows, edges = with_row_scales(site, whole, weight, rows, values)
        else:
            edges = self._edges(call, graph, sites)
            edges = _repeated(edges, parts) if lead else edges
        if not lead and len(message.shape) == 1:
            return aggregate(rows, graph, edges, row_scale, layer=sites.layer)
        if lead:
            graph = whole
            row_scale = None if row_scale is None else row_scale.repeat(parts, 1)
        return aggregate(rows, graph, edges, row_scale).view(*lead, targets, *message.shape)

    def _edges(self, call: Call, graph: Graph, sites: Sites) -> EdgeCodes | None:
        """Codes of the product of all numbers of an edge."""
        names = self.message.weights
        if not names:
            return None
        site, path = sites.weights(names)
        given = call.values[names[0]]
        if len(names) == 1 and as_rows(given, graph.num_edges).size(1) == 1:
            given = given if given.dim() < 3 else given.reshape(-1)
            try:
                weighted = as_graph(graph, graph.num_src, graph.num_dst, given)
            except NonFiniteError as error:
                raise NonFiniteError(f"at site {path!r}: {error}") from None
            return edge_codes(site, weighted, path)
        return codes_of(site, graph, self._weights(call, graph, path))

    def _weights(self, call: Call, graph: Graph, path: str) -> Tensor:
        """The product of all numbers of an edge, float32 ``[E, H]`` in CSR order.

        Raises:
            NonFiniteError: If it is none; names the site.
        """
        first, *more = self.message.weights
        weight = as_rows(call.values[first], graph.num_edges)
        for name in more:
            weight = weight * as_rows(call.values[name], graph.num_edges)
        weight = weight.float()
        check_finite(weight.detach(), f"what stands on the edges at site {path!r}")
        ordered: Tensor = weight if graph.perm is None else weight[graph.perm]
        return ordered


def _repeated(edges: EdgeCodes | None, parts: int) -> EdgeCodes | None:
    """Codes of the edges of as many copies of a graph."""
    if edges is None:
        return None
    scale = None if edges.row_scale is None else edges.row_scale.repeat(parts, 1)
    codes, row_sum = edges.codes.repeat(parts, 1), edges.row_sum.repeat(parts, 1)
    return replace(edges, codes=codes, row_sum=row_sum, row_scale=scale)
