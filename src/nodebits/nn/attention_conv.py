"""What convolutions with attention share: dropout and heads after the softmax of their scores."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from nodebits.engine.edges import EdgeCodes
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv
from nodebits.nn.forms.softmax import in_adjacency_form, inverse_sum
from nodebits.nn.functional import AnyRows, aggregate
from nodebits.nn.inputs import Features
from nodebits.nn.linear import requantize


class Seen(NamedTuple):
    """How attention weights are returned.

    Attributes:
        adjacency: What the layer was given, by whose form they go.
        loops: Whether the layer gave every node one loop.
        dropped: Whether dropout comes first.
    """

    adjacency: Any
    loops: bool
    dropped: bool = True


class QuantAttentionConv(QuantConv):
    """Base of convolutions that weigh their messages by attention codes over their row's sum."""

    heads: int
    out_channels: int
    concat: bool
    dropout: float
    res: Any
    bias: nn.Parameter | None

    @classmethod
    def aggregated_channels(cls, module: Any) -> int | None:
        return int(module.out_channels * (module.heads if module.concat else 1))

    def attend(
        self,
        rows: AnyRows,
        graph: Graph,
        edges: EdgeCodes,
        bias: Tensor | None = None,
        seen: Seen | None = None,
        features: tuple[AnyRows, Graph] | None = None,
    ) -> tuple[Tensor, Any]:
        """The weighted sum of the rows, and the weights where they are asked for.

        Args:
            rows: ``[num_src, H * F]``.
            graph: Topology.
            edges: Attention codes.
            bias: float32 ``[H * F]``, the last summand where heads stand side by side.
            seen: How the weights are returned; None for none.
            features: Rows of edges, which are weighed beside those of sources, and the graph in
                which these are the sources.

        Returns:
            float32 ``[num_dst, H * F]``, or ``[num_dst, F]`` without ``concat``; and the weights,
            codes over the sum of their target's, as the float layer returns them.

        Raises:
            ConfigError: If weights are asked for on a reordered graph.
        """
        inverse = inverse_sum(edges)
        dropped = self._drop(edges, graph)
        weights = None
        if seen is not None:
            codes = dropped.codes if seen.dropped else edges.codes
            alpha = codes.float() * inverse.index_select(0, graph.rows)
            weights = in_adjacency_form(seen.adjacency, graph, alpha, seen.loops)
        if features is None:
            out = aggregate(rows, graph, dropped, inverse, bias, layer=self)
            return self.prompted(self._join(out)), weights
        out = aggregate(rows, graph, dropped, inverse, bias)
        out = out + aggregate(*features, dropped, inverse)
        return self.prompted(self._join(out)), weights

    def with_residual(
        self,
        rows: AnyRows,
        graph: Graph,
        edges: EdgeCodes,
        target: Features | None,
        seen: Seen | None,
    ) -> Any:
        """:meth:`attend`, the residual and the bias, at the ``output`` site.

        Args:
            rows: See :meth:`attend`.
            graph: Likewise.
            edges: Likewise.
            target: What the residual map reads; None where there are no rows of targets.
            seen: See :meth:`attend`.

        Returns:
            The result, in a pair with the weights where they are asked for.
        """
        maps = getattr(self, "res", None) is not None and target is not None
        # The bias is the last summand either way; within the sum it costs no pass of its own.
        inside = self.bias if self.concat and not maps else None
        out, weights = self.attend(rows, graph, edges, inside, seen)
        if maps:
            out = out + self.res(target)
        if self.bias is not None and inside is None:
            out = out + self.bias
        out = requantize(self.output, out)
        return out if weights is None else (out, weights)

    def _drop(self, edges: EdgeCodes, graph: Graph) -> EdgeCodes:
        """Attention dropout: on the codes, after the row sum that normalises them was taken."""
        if not self.training or self.dropout == 0.0:
            return edges
        codes = nn.functional.dropout(edges.codes, self.dropout)
        row_sum = codes.new_zeros(graph.num_dst, self.heads).index_add(0, graph.rows, codes)
        return EdgeCodes(codes, row_sum, edges.scale, edges.zero_point, edges.max_code)

    def _join(self, out: Tensor) -> Tensor:
        """Heads side by side, or their mean (added one by one: a fixed order on every backend)."""
        if self.concat:
            return out
        by_head = out.view(-1, self.heads, self.out_channels)
        total = by_head[:, 0]
        for head in range(1, self.heads):
            total = total + by_head[:, head]
        return total * (1.0 / self.heads)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"heads={self.heads}, out_channels={self.out_channels}"
