"""TransformerConv (Shi et al. 2021): scores are integer products of queries and keys."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import TransformerConv

from nodebits.core.file_fields import FLAG, SIZE, Integer, Number, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.graph.edge_table import EdgeTable
from nodebits.nn.attention import check_scored, dot_attention
from nodebits.nn.attention_conv import QuantAttentionConv, Seen
from nodebits.nn.conv import both_ends
from nodebits.nn.functional import quantize_rows
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.pairs import EdgeRows, edge_table, quantize_together
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer


@register_layer(TransformerConv)
class QuantTransformerConv(QuantAttentionConv):
    """``out_i = skip(x_i) + sum_j a_ij Q(v_j) / sum_j a_ij`` with unsigned integer ``a_ij``.

    Queries, keys and values have sites of their own, ``message_query``, ``message_key`` and
    ``message``; the first two one scale each. A score is an integer product of both, see
    :func:`nodebits.ops.attention_codes`; ``a_ij`` is GATConv's. Edges ``lin_edge(e)`` have the
    keys' scale where they are added to keys, and ``message_edge`` where they are weighed beside
    the values.
    """

    layer_type = "TransformerConv"
    options: ClassVar[Options] = {
        "heads": Integer(1),
        "out_channels": SIZE,
        "concat": FLAG,
        "dropout": Number(0.0, 1.0),
        "root_weight": FLAG,
        "beta": FLAG,
        "edges": FLAG,
    }
    derived_options: ClassVar = {"edges": lambda module: module.lin_edge is not None}
    absent_sites = ("attention", "message_dst", "message_edge")
    message_query: Quantizer | RowQuantizer
    message_key: Quantizer | RowQuantizer
    message_edge: Quantizer | RowQuantizer
    lin_query: Any
    lin_key: Any
    lin_value: Any
    lin_skip: Any
    lin_beta: Any
    lin_edge: Any
    edges: bool
    root_weight: bool
    beta: bool

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        return super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        width = self.heads * self.out_channels
        check_scored(self.out_channels, path)
        columns = width if self.concat else self.out_channels
        self.place_sites(place, path, width, columns, edges=True)
        for name in ("message_query", "message_key", *(("message_edge",) if self.edges else ())):
            info = SiteInfo(path, self.layer_type, "message", name, 0, pairs=True)
            setattr(self, name, place.activation(info))

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed features, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form; weights of a sparse matrix are ignored, as PyG does.
            edge_attr: float32 ``[E, D]`` where the layer has ``edge_dim=D``.
            return_attention_weights: A bool returns the attention too, whichever it is, as in PyG.

        Returns:
            float32 ``[num_dst, heads * out_channels]``, or ``[num_dst, out_channels]`` without
            ``concat``; with attention weights as GATConv's packed form returns them.

        Raises:
            ShapeError: On features of other shapes or types, or without those of the targets.
            ConfigError: If attention is asked for on a reordered graph.
        """
        source, target, num_src, num_dst = both_ends(x, edge_attr, self)
        graph = self.graph_of(edge_index, num_src, num_dst).topology()
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            query = quantize_rows(self.message_query, self.lin_query(target))
            keys = [self.lin_key(source)]
            table = self._features(edge_attr, graph)
            features = None if table is None else self.lin_edge(table.rows)
            if features is not None:
                # Added to keys, then weighed: both codes of an edge come of one pass.
                expect_sites(features, [self.message_key, self.message_edge])
                keys.append(features)
            key, *others = quantize_together(self.message_key, *keys)
            value = quantize_rows(self.message, self.lin_value(source)).aligned()
            places = None if table is None else table.places
            scale = 1.0 / math.sqrt(self.out_channels)
            edges = dot_attention(
                self.attention,
                graph,
                (key, query),
                self.heads,
                scale,
                ("message_key", "message_query"),
                EdgeRows(others[0], places) if others else None,
            )
            asked = isinstance(return_attention_weights, bool)
            seen = Seen(edge_index, loops=False, dropped=False) if asked else None
            more = None
            if table is not None and features is not None:
                more = quantize_rows(self.message_edge, features), table.sources()
            out, weights = self.attend(value, graph, edges, None, seen, more)
            if self.root_weight:
                out = self._skipped(out, self.lin_skip(target))
            out = requantize(self.output, out)
            return (out, weights) if asked else out

    def _features(self, edge_attr: Any, graph: Graph) -> EdgeTable | None:
        """Rows of edges; None where the layer reads none."""
        if self.lin_edge is None:
            return None
        # They are read twice: where each edge has its own, in the order in which they lie.
        return edge_table(edge_attr, graph, self, [self.lin_edge], ordered=True)

    def _skipped(self, out: Tensor, own: Tensor) -> Tensor:
        """The result joined with the target's own row."""
        if self.lin_beta is None:
            return out + own
        beta = self.lin_beta(torch.cat([out, own, out - own], dim=-1)).sigmoid()
        joined: Tensor = beta * own + (1 - beta) * out
        return joined

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(self.lin_query, self.lin_key, self.lin_value, self.lin_skip)
