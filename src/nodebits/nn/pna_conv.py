"""PNAConv (Corso et al. 2020): products of nodes, then all statistics from one pass over edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.nn import PNAConv
from torch_geometric.nn.aggr import DegreeScalerAggregation, MultiAggregation

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.core.file_fields import Options
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.pending import settle
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.graph.edge_table import EdgeTable
from nodebits.nn.conv import QuantConv, check_width, one_matrix
from nodebits.nn.ends_linear import QuantEndsLinear
from nodebits.nn.forms.statistics import degree_factor, kinds_of
from nodebits.nn.functional import quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.layer import lazy_reason
from nodebits.nn.linear import requantize
from nodebits.nn.pair_linear import QuantPairLinear
from nodebits.nn.pairs import edge_table
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.reductions import statistics
from nodebits.nn.registry import register_layer
from nodebits.nn.scaled_linear import QuantScaledLinear
from nodebits.nn.split_linear import hooked, plain_map


@register_layer(PNAConv)
class QuantPNAConv(QuantConv):
    """``post([x_i, s(d_i) S_j(l_i + r_j)])`` of ``l = W_1 x + b`` and ``r = W_2 x``, by tower.

    A tower's map of ``[x_i, x_j]`` comes apart: statistics ``S`` are taken of the codes of ``r``,
    and ``l_i`` joins those that move with it. The scalers ``s`` of a target's degree are factors of
    the products that read the statistics. With edge features ``r`` is a row of every edge,
    ``W_2 x_j + W_3 e_ij``: its products are of nodes and of edges, its codes one row per edge.
    Layers with several maps before the aggregation run their own messages.
    """

    layer_type = "PNAConv"
    options: ClassVar[Options] = {}
    absent_sites = ("attention", "message_dst")
    scaling_parts = ("aggr_module",)
    pre_nns: Any
    post_nns: Any
    lin: Any
    aggr_module: Any
    towers: int
    divide_input: bool
    F_in: int
    edge_dim: int | None
    edge_encoder: Any

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        lazy = lazy_reason(module)
        if lazy is not None:
            return lazy
        if module.flow != "source_to_target":
            return "it has flow='target_to_source'"
        kinds, scaler = kinds_of(module.aggr_module), module.aggr_module
        if not kinds or type(scaler) is not DegreeScalerAggregation:
            return "one of its aggregations is no statistic of codes"
        inner = scaler.aggr
        if type(inner) is MultiAggregation and len(kinds) > 1 and inner.mode != "cat":
            return "its aggregations do not stand side by side"
        width = (1 + len(kinds) * len(scaler.scaler)) * module.F_in
        if not all(plain_map(tower[0], width) for tower in module.post_nns):
            return "its map after the aggregation is no linear one"
        encoder = [] if module.edge_dim is None else [module.edge_encoder]
        if any(map(hooked, (*module.pre_nns, *module.post_nns, scaler, inner, *encoder))):
            return "someone looks at what its parts return"
        ends = 2 + len(encoder)
        for tower in module.pre_nns:
            if len(tower) != 1 or not plain_map(tower[0], ends * module.F_in):
                return "it has several maps before the aggregation"
        return None

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return "integer statistics, maps by node"

    def place_quantizers(self, place: Placement, path: str) -> None:
        for i, (before, after) in enumerate(zip(self.pre_nns, self.post_nns, strict=True)):
            inner = f"{path}.pre_nns.{i}.0".lstrip(".")
            if self.edge_dim is None:
                before[0] = QuantPairLinear.of(before[0], inner, place, difference=False)
            else:
                parts = {"target_channels": self.F_in, "edge_channels": self.F_in}
                before[0] = QuantEndsLinear.of(before[0], inner, place, **parts)
            inner = f"{path}.post_nns.{i}.0".lstrip(".")
            multiples = len(self.aggr_module.scaler)
            after[0] = QuantScaledLinear.of(
                after[0], inner, place, own_channels=self.F_in, multiples=multiples
            )
        width = self.towers * self.F_in
        self.place_sites(place, path, width, self.lin.out_channels)

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``.
            edge_index: Any adjacency form, without weights.
            edge_attr: float32 ``[E, edge_dim]``; None of a layer that was made without.

        Returns:
            float32 ``[N, out_channels]``.

        Raises:
            ShapeError: If there are edge features, which the layer was made without, or none of a
                layer with them, or of other columns.
        """
        if edge_attr is not None and self.edge_dim is None:
            raise ShapeError(
                f"layer {self.described} got edge_attr of shape {list(edge_attr.shape)}, but was "
                "made without edge_dim"
            )
        x = one_matrix(x, self)
        check_width(x, self.towers * self.F_in if self.divide_input else self.F_in, self)
        graph = self.with_values(self.graph_of(edge_index, x.shape[0], x.shape[0]))
        table = None
        if self.edge_dim is not None:
            maps = [self.edge_encoder, *(first for first, *_ in self.pre_nns)]
            table = edge_table(edge_attr, graph, self, maps, self.edge_dim)
        with self.layer_scope(graph):
            towers = self._towers(x)
            if table is None:
                theirs, ours = self._ends(towers)
                sources = graph
            else:
                theirs, ours = self._edges(towers, table, graph)
                sources = graph.by_edge()
            out = self._aggregated(theirs, ours, sources)
            degree = graph.degree.view(-1, 1)
            aggregation = self.aggr_module
            factors = [degree_factor(name, degree, aggregation) for name in aggregation.scaler]
            made = []
            for i, (first, *rest) in enumerate(self.post_nns):
                values = first(towers[i], out[i], factors)
                for module in rest:
                    values = module(values)
                made.append(values)
            joined = torch.cat(made, 1) if len(made) > 1 else made[0]
            return requantize(self.output, self.lin(joined))

    def _towers(self, x: Features) -> Sequence[Features]:
        """The rows that each tower reads."""
        if not self.divide_input or self.towers == 1:
            return [x] * self.towers
        if isinstance(x, PackedInput):
            raise ConfigError(
                f"layer {self.described} takes no features packed ahead: it divides them among "
                "its towers; pass the float matrix"
            )
        return [part.contiguous() for part in x.chunk(self.towers, 1)]

    def _ends(self, towers: Sequence[Features]) -> tuple[Tensor, Tensor]:
        """``r`` and ``l`` of all towers, side by side, float32 ``[N, towers * F]`` each."""
        ends = [first(x, x) for (first,), x in zip(self.pre_nns, towers, strict=True)]
        ours, theirs = (_beside(part) for part in zip(*ends, strict=True))
        return theirs, ours

    def _edges(
        self, towers: Sequence[Features], table: EdgeTable, graph: Graph
    ) -> tuple[Tensor, Tensor]:
        """``r`` of every edge in the order of rows ``[E, towers * F]``, and ``l``."""
        encoded = settle(self.edge_encoder(table.rows))
        ends = [first(x, x, encoded) for (first,), x in zip(self.pre_nns, towers, strict=True)]
        theirs, ours, own = (settle(_beside(part)) for part in zip(*ends, strict=True))
        if table.places is not None:
            own = own.index_select(0, table.places)
        return theirs.index_select(0, graph.indices) + own, ours

    def _aggregated(self, theirs: Tensor, ours: Tensor, graph: Graph) -> Sequence[Tensor]:
        """Statistics of ``l_i + r_j`` by tower, float32 ``[N, K * F]`` each."""
        kinds = kinds_of(self.aggr_module)
        assert kinds is not None
        rows = quantize_rows(self.message, theirs)
        made = statistics(rows, graph, kinds, settle(ours))
        if self.towers == 1:
            return [made]
        split = made.view(graph.num_dst, len(kinds), self.towers, self.F_in)
        parts = [split.select(2, tower) for tower in range(self.towers)]
        return [part.reshape(graph.num_dst, len(kinds) * self.F_in) for part in parts]

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [] if self.divide_input else [self.pre_nns[0][0].input]


def _beside(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]
