"""ResGatedGraphConv (Bresson & Laurent 2017): gates by look-up, weighed values as integers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import ResGatedGraphConv

from nodebits.core.file_fields import FLAG, SIZE, Choice, Integer, Optional, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv, both_ends
from nodebits.nn.end_linear import QuantEndLinear
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.pair_sums import gated_sum
from nodebits.nn.pairs import EdgeRows, edge_table, quantize_together, reduced
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import plain_map

_MAPS = ("lin_key", "lin_query", "lin_value")


def _elementwise(act: Any) -> bool:
    """Whether an activation is a function of single numbers, and of nothing else."""
    if not callable(act) or (
        isinstance(act, nn.Module) and next(act.parameters(), None) is not None
    ):
        return False
    x = torch.linspace(-4.0, 4.0, 60, dtype=torch.float64, device="cpu")
    order = torch.arange(60, device="cpu").flip(0)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            whole, part, turned = act(x.clone()), act(x[:23].clone()), act(x[order])
    except Exception:  # whatever a function of others says
        return False
    return bool(
        isinstance(whole, Tensor)
        and whole.shape == x.shape
        and torch.isfinite(whole).all()
        and torch.allclose(whole[:23], part)
        and torch.allclose(whole[order], turned)
    )


@register_layer(ResGatedGraphConv)
class QuantResGatedGraphConv(QuantConv):
    """``out_i = skip(x_i) + sum_j g_ij Q(v_j)`` with integer gates ``g_ij``, or the mean.

    Keys of the targets and queries of the sources pass one site, ``message_gate``, with one scale.
    The sum of their codes is looked up in a table of the activation, codes of the ``attention``
    site's width, which weigh the values' codes: see :func:`nodebits.ops.gated_sum`. With edge
    features the maps of ``[x, e]`` are taken apart, and codes of edges are added to both.
    """

    layer_type = "ResGatedGraphConv"
    aggregations = ("add", "sum", "mean")
    options: ClassVar[Options] = {
        "out_channels": SIZE,
        "root_weight": FLAG,
        "bias": FLAG,
        "edge_dim": Optional(Integer(1)),
        # Files of older versions hold sums.
        "aggr": Optional(Choice(aggregations), absent=True),
    }
    aggr: str = "add"
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    absent_sites = ("attention", "message_dst")
    message_gate: Quantizer | RowQuantizer
    act: Any
    lin_key: Any
    lin_query: Any
    lin_value: Any
    lin_skip: Any
    bias: nn.Parameter | None
    out_channels: int
    edge_dim: int | None
    root_weight: bool

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        if not _elementwise(getattr(module, "act", None)):
            return "its gates are no function of single numbers without parameters"
        maps = [getattr(module, name, None) for name in _MAPS]
        if getattr(module, "edge_dim", None) is not None and not all(map(plain_map, maps)):
            return "its maps of nodes and edges do not come apart"
        return super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.out_channels, self.out_channels, edges=True)
        for name, columns in (("message", self.out_channels), ("message_gate", 0)):
            info = SiteInfo(path, self.layer_type, "message", name, columns, pairs=True)
            setattr(self, name, place.activation(info))
        if self.edge_dim is None:
            return
        for name in _MAPS:
            where = f"{path}.{name}".lstrip(".")
            linear = getattr(self, name)
            apart = QuantEndLinear.of(linear, where, place, edge_channels=self.edge_dim)
            setattr(self, name, apart)

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed features, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form, without weights.
            edge_attr: float32 ``[E, D]`` where the layer has ``edge_dim=D``.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            ShapeError: On features of other shapes or types, or without those of the targets.
        """
        source, target, num_src, num_dst = both_ends(x, edge_attr, self)
        graph = self.graph_of(edge_index, num_src, num_dst).topology()
        with self.layer_scope(graph):
            gates, values, places = self._of_edges(edge_attr, graph)
            expect_sites(x, self.input_sites())
            query, key = self.lin_query(source), self.lin_key(target)
            gate = quantize_together(self.message_gate, query, key, *gates)
            value = quantize_together(self.message, self.lin_value(source), *values)
            features = None
            if gates:
                features = EdgeRows(gate[2], places), EdgeRows(value[1], places)
            out = gated_sum(
                self.attention,
                self.act,
                (gate[0], gate[1]),
                value[0],
                graph,
                ("message_gate", "message"),
                features,
            )
            out = reduced(out, graph, self.aggr)
            if self.root_weight:
                out = out + self.lin_skip(target)
            if self.bias is not None:
                out = out + self.bias
            return requantize(self.output, out)

    def _of_edges(
        self, edge_attr: Any, graph: Graph
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """What edges add to gates and to values, in lists of none or one, and their rows."""
        if self.edge_dim is None:
            return [], [], None
        maps = [self.lin_key, self.lin_query, self.lin_value]
        features, places, _ = edge_table(edge_attr, graph, self, maps, self.edge_dim)
        gates = self.lin_key.of_edges(features) + self.lin_query.of_edges(features)
        return [gates], [self.lin_value.of_edges(features)], places

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(self.lin_key, self.lin_query, self.lin_value, self.lin_skip)
