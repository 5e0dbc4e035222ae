"""PNAConv (Corso et al. 2020): products of nodes, then all statistics from one pass over edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import PNAConv

from nodebits.core.errors import ShapeError
from nodebits.core.file_fields import Options
from nodebits.engine.reductions import occupied
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv, check_width, conv_graph, one_matrix
from nodebits.nn.forms.statistics import combined, kinds_of
from nodebits.nn.functional import quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.layer import Placement, lazy_reason, register_layer
from nodebits.nn.linear import requantize
from nodebits.nn.pair_linear import QuantPairLinear, pair_map
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.reductions import statistics
from nodebits.ops import Statistic

_SPREADS = (Statistic.VAR, Statistic.STD)


@register_layer(PNAConv)
class QuantPNAConv(QuantConv):
    """``post([x_i, S(l_i + r_j)])`` of ``l = W_1 x + b`` and ``r = W_2 x``, by tower.

    A tower's map of ``[x_i, x_j]`` comes apart: statistics are taken of the codes of ``r``, and
    ``l_i`` joins those that move with it. Layers with edge features, or with several maps before
    the aggregation, run their own messages.
    """

    layer_type = "PNAConv"
    options: ClassVar[Options] = {}
    absent_sites = ("attention", "message_dst")
    pre_nns: Any
    post_nns: Any
    lin: Any
    aggr_module: Any
    towers: int
    divide_input: bool
    F_in: int

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        lazy = lazy_reason(module)
        if lazy is not None:
            return lazy
        if module.flow != "source_to_target":
            return "it has flow='target_to_source'"
        if module.edge_dim is not None:
            return "it has edge features"
        if not kinds_of(module.aggr_module):
            return "one of its aggregations is no statistic of codes"
        for tower in module.pre_nns:
            if len(tower) != 1 or not pair_map(tower[0], module.F_in):
                return "it has several maps before the aggregation"
        return None

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return "integer statistics, maps by node"

    def place_quantizers(self, place: Placement, path: str) -> None:
        for i, tower in enumerate(self.pre_nns):
            inner = f"{path}.pre_nns.{i}.0".lstrip(".")
            tower[0] = QuantPairLinear.of(tower[0], inner, place, False)
        width = self.towers * self.F_in
        self.place_sites(place, path, width, self.lin.out_channels)

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``.
            edge_index: Any adjacency form, without weights.
            edge_attr: None.

        Returns:
            float32 ``[N, out_channels]``.

        Raises:
            ShapeError: If there are edge features, which the layer was made without.
        """
        if edge_attr is not None:
            raise ShapeError(
                f"layer {self.described} got edge_attr of shape {list(edge_attr.shape)}, but was "
                "made without edge_dim"
            )
        x = one_matrix(x, self)
        check_width(x, self.towers * self.F_in if self.divide_input else self.F_in, self)
        graph = self.with_values(conv_graph(edge_index, x.shape[0], x.shape[0]))
        with self.layer_scope(graph):
            towers = self._towers(x)
            out = self._aggregated(towers, graph)
            made = []
            for i, post in enumerate(self.post_nns):
                values: Any = towers[i]
                made.append(post(torch.cat([values, out[:, i]], -1)))
            joined = torch.cat(made, 1) if len(made) > 1 else made[0]
            return requantize(self.output, self.lin(joined))

    def _towers(self, x: Features) -> Sequence[Features]:
        """The rows that each tower reads."""
        if not self.divide_input or self.towers == 1:
            return [x] * self.towers
        assert isinstance(x, Tensor)
        return [part.contiguous() for part in x.chunk(self.towers, 1)]

    def _aggregated(self, towers: Sequence[Features], graph: Graph) -> Tensor:
        """Scaled statistics of ``l_i + r_j``, float32 ``[N, towers, F]``."""
        ends = [tower[0](x, x) for tower, x in zip(self.pre_nns, towers, strict=True)]
        ours = torch.cat([one for one, _ in ends], 1) if len(ends) > 1 else ends[0][0]
        theirs = torch.cat([other for _, other in ends], 1) if len(ends) > 1 else ends[0][1]
        kinds = kinds_of(self.aggr_module)
        assert kinds is not None
        made = statistics(quantize_rows(self.message, theirs), graph, kinds)
        parts = []
        moved: dict[bool, Tensor] = {}
        for kind, part in zip(kinds, made.split(made.size(1) // len(kinds), 1), strict=True):
            if kind not in _SPREADS:
                whole = kind == Statistic.SUM
                if whole not in moved:
                    count = graph.degree.view(-1, 1) if whole else occupied(graph)
                    moved[whole] = ours * count
                part = part + moved[whole]
            parts.append(part.contiguous().view(graph.num_dst, self.towers, self.F_in))
        return combined(self.aggr_module, parts, graph, 0)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [] if self.divide_input else [self.pre_nns[0][0].input]
