"""Sum or mean, then linear: SAGEConv, GraphConv and ClusterGCNConv."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import ClusterGCNConv, GraphConv, SAGEConv

from nodebits.core.errors import GraphError
from nodebits.core.file_fields import FLAG, Choice, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.graph.loops import MATRIX, SPARSE_TENSOR
from nodebits.nn.conv import (
    QuantConv,
    check_width,
    edge_codes,
    is_stack,
    one_matrix,
    split_pair,
)
from nodebits.nn.functional import aggregate, quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.linear import QuantLinear, input_sites_of, requantize, width_of
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer


class _NeighborConv(QuantConv):
    """``Q(reduce_j w_ij Q(x_j)) W_1 + b  +  Q(x_i) W_2``."""

    aggregations: tuple[str, ...] = ("add", "sum", "mean")
    aggr: str
    out_channels: int

    def _reduce(self, source: Features, graph: Graph, linear: QuantLinear, mean: bool) -> Tensor:
        check_width(source, width_of(linear), self)
        rows = quantize_rows(self.message, source)
        edges = edge_codes(self, graph) if hasattr(self, "attention") else None
        factor = graph.inverse_degree if mean else None
        return self.prompted(aggregate(rows, graph, edges, factor, layer=self))


@register_layer(SAGEConv)
class QuantSAGEConv(_NeighborConv):
    """``out_i = W_l mean_j Q(x_j) + W_r x_i`` (Hamilton et al. 2017).

    With ``project`` and ``normalize`` as in PyG.
    """

    layer_type = "SAGEConv"
    options: ClassVar[Options] = {
        "aggr": Choice(_NeighborConv.aggregations),
        "normalize": FLAG,
        "root_weight": FLAG,
        "project": FLAG,
    }
    derived_options: ClassVar = {
        "project": lambda module: bool(module.project and hasattr(module, "lin")),
    }
    normalize: bool
    root_weight: bool
    project: bool
    lin_l: QuantLinear
    lin_r: QuantLinear
    lin: QuantLinear

    @classmethod
    def aggregated_channels(cls, module: Any) -> int | None:
        return width_of(module.lin_l)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, width_of(self.lin_l), self.out_channels, edges=True)

    def forward(self, x: Any, edge_index: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form; values of a ``torch.sparse`` matrix weigh the sum.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            float32 ``[num_dst, out_channels]``.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, size=size)
        source, target, num_src, num_dst = split_pair(x, self)
        graph = self.with_values(self.graph_of(edge_index, num_src, num_dst, size=size))
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            if self.project:
                source = self.lin(source).relu()
            out = self.lin_l(self._reduce(source, graph, self.lin_l, self.aggr == "mean"))
            if self.root_weight and target is not None:
                out = out + self.lin_r(target)
            if self.normalize:
                out = nn.functional.normalize(out, p=2.0, dim=-1)
            return requantize(self.output, out)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        first = input_sites_of(self.lin) if self.project else [self.message]
        return [*first, *input_sites_of(self.lin_r if self.root_weight else None)]


@register_layer(GraphConv)
class QuantGraphConv(_NeighborConv):
    """``out_i = W_rel sum_j w_ij Q(x_j) + W_root x_i`` (Morris et al. 2019)."""

    layer_type = "GraphConv"
    options: ClassVar[Options] = {"aggr": Choice(_NeighborConv.aggregations)}
    absent_sites = ("message_dst",)
    lin_rel: QuantLinear
    lin_root: QuantLinear

    @classmethod
    def aggregated_channels(cls, module: Any) -> int | None:
        return width_of(module.lin_rel)

    def place_quantizers(self, place: Placement, path: str) -> None:
        width = width_of(self.lin_rel)
        self.place_sites(place, path, width, self.out_channels, edges=True)

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            float32 ``[num_dst, out_channels]``.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, edge_weight, size)
        source, target, num_src, num_dst = split_pair(x, self)
        graph = self.graph_of(edge_index, num_src, num_dst, edge_weight, size)
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            out = self.lin_rel(self._reduce(source, graph, self.lin_rel, self.aggr == "mean"))
            if target is not None:
                out = out + self.lin_root(target)
            return requantize(self.output, out)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message, *input_sites_of(self.lin_root)]


@register_layer(ClusterGCNConv)
class QuantClusterGCNConv(_NeighborConv):
    """``out_i = W_out mean_j Q(x_j) + W_root x_i``, i among the j (Chiang et al. 2019).

    PyG gives every edge the weight ``1 / deg``, which is that of its target: a mean.
    """

    layer_type = "ClusterGCNConv"
    aggregations = ("add", "sum")
    options: ClassVar[Options] = {"add_self_loops": FLAG}
    absent_sites = ("attention", "message_dst")
    add_self_loops: bool
    lin_out: QuantLinear
    lin_root: QuantLinear

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        if getattr(module, "diag_lambda", 0.0) != 0:
            return "its loops have weights of their own (diag_lambda)"
        return super().unsupported(module)

    @classmethod
    def aggregated_channels(cls, module: Any) -> int | None:
        return width_of(module.lin_out)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, width_of(self.lin_out), self.out_channels)

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, or packed rows.
            edge_index: Any adjacency form; PyG does not look at the values of a matrix.

        Returns:
            float32 ``[*, N, out_channels]``.

        Raises:
            GraphError: If the edges have weights, or a ``SparseTensor`` values.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index)
        x = one_matrix(x, self)
        graph = self.graph_of(edge_index, x.shape[0], x.shape[0])
        if graph.form == SPARSE_TENSOR and graph.edge_weight is not None:
            raise GraphError(
                f"{self.described} divides by numbers of neighbours: pass a SparseTensor without "
                "values, by set_value(None)"
            )
        if graph.form == MATRIX:
            graph = graph.topology(distinct=self.add_self_loops)
        graph = self.with_values(graph)
        if self.add_self_loops:
            graph = graph.with_self_loops()
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            out = self.lin_out(self._reduce(x, graph, self.lin_out, True))
            return requantize(self.output, out + self.lin_root(x))

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message, *input_sites_of(self.lin_root)]
