"""CGConv (Xie & Grossman 2018): maps of nodes and of edges, then two tables at every edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import CGConv

from nodebits.core.errors import ShapeError
from nodebits.core.file_fields import SIZE, Choice, Options
from nodebits.engine.pending import settle
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv, check_width, split_pair
from nodebits.nn.ends_linear import QuantEndsLinear
from nodebits.nn.functional import AnyRows, Site, quantize_rows, trained
from nodebits.nn.gated_products import gated_product
from nodebits.nn.inputs import Features
from nodebits.nn.linear import requantize, width_of
from nodebits.nn.pairs import edge_table, reduced
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import plain_map


@register_layer(CGConv)
class QuantCGConv(QuantConv):
    """``out_i = x_i + sum_j sigmoid(f_i + f_j + f_ij) * softplus(s_i + s_j + s_ij)``.

    In place of the sum the mean, or the largest by column.

    ``lin_f`` and ``lin_s`` come apart into maps of targets, sources and edges. Their results meet
    at the sites ``message_gate`` and ``message``, with one scale each; both functions are tables of
    codes of the ``attention`` site's width, see :func:`nodebits.ops.gated_product`.
    """

    layer_type = "CGConv"
    aggregations = ("add", "sum", "mean", "max")
    options: ClassVar[Options] = {"aggr": Choice(aggregations), "dim": SIZE, "width": SIZE}
    derived_options: ClassVar = {"width": lambda module: module.lin_f.weight.size(0)}
    absent_sites = ("attention", "message_dst")
    message_gate: Quantizer | RowQuantizer
    lin_f: Any
    lin_s: Any
    bn: Any
    aggr: str
    dim: int
    width: int

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        said = super().unsupported(module)
        if said is None and not (plain_map(module.lin_f) and plain_map(module.lin_s)):
            return "its maps are no plain linear ones"
        return said

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return f"integer {'max' if self.aggr == 'max' else 'sum'}, maps by node"

    def place_quantizers(self, place: Placement, path: str) -> None:
        for name in ("lin_f", "lin_s"):
            inner = f"{path}.{name}".lstrip(".")
            made = QuantEndsLinear.of(
                getattr(self, name),
                inner,
                place,
                target_channels=self.width,
                edge_channels=self.dim,
            )
            setattr(self, name, made)
        self.place_sites(place, path, self.width, self.width, edges=True)
        for name in ("message", "message_gate"):
            info = SiteInfo(path, self.layer_type, "message", name, 0, pairs=True)
            setattr(self, name, place.activation(info))

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form, without weights.
            edge_attr: float32 ``[E, dim]``; None where ``dim`` is 0.

        Returns:
            float32 ``[num_dst, C]``.

        Raises:
            ShapeError: On features of other shapes, or without those of the targets or edges.
        """
        source, target, num_src, num_dst = split_pair(x, self)
        if target is None:
            raise ShapeError(f"layer {self.described} got no rows of targets, which it reads")
        check_width(source, width_of(self.lin_f) - self.width - self.dim, self)
        check_width(target, self.width, self)
        graph = self.graph_of(edge_index, num_src, num_dst).topology()
        features, places = self._features(edge_attr, graph)
        with self.layer_scope(graph):
            gates = self._together(self.message_gate, self.lin_f, target, source, features)
            values = self._together(self.message, self.lin_s, target, source, features)
            names = "message_gate", "message"
            largest = self.aggr == "max"
            out = gated_product(self.attention, gates, values, graph, places, names, largest)
            out = reduced(out, graph, self.aggr)
            if self.bn is not None:
                out = self.bn(out)
            return requantize(self.output, out + settle(target))

    def _together(
        self, site: Site, linear: nn.Module, target: Features, source: Features, edges: Any
    ) -> Sequence[AnyRows]:
        """What a map makes of sources, targets and edges, on one scale."""
        parts = linear(target, source, edges)
        if isinstance(site, RowQuantizer):
            return [quantize_rows(site, part) for part in parts]
        whole = trained(quantize_rows(site, torch.cat(parts)))
        codes = whole.codes.split([part.size(0) for part in parts])
        return [whole._replace(codes=part) for part in codes]

    def _features(
        self, edge_attr: Tensor | None, graph: Graph
    ) -> tuple[Tensor | None, Tensor | None]:
        """Rows that edges have, and the row of each."""
        if edge_attr is None and not self.dim:
            return None, None
        table = edge_table(edge_attr, graph, self, [self.lin_f, self.lin_s], self.dim)
        return table.rows, table.places

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        """See :meth:`QuantLayer.input_sites`: none, the rows are part of the result too."""
        return []
