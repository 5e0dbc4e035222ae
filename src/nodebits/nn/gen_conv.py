"""GENConv (Li et al. 2020): rectified sums of node and edge on one scale, and their softmax."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import GENConv
from torch_geometric.nn.aggr import (
    MaxAggregation,
    MeanAggregation,
    SoftmaxAggregation,
    SumAggregation,
)

from nodebits.core.errors import ConfigError
from nodebits.core.file_fields import SIZE, Choice, Number, Options
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import QuantConv, check_width, is_stack, split_pair
from nodebits.nn.inputs import Features
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.pair_sums import Sharpness, rectified_softmax, rectified_sum
from nodebits.nn.pairs import EdgeRows, edge_table, mapped_features, quantize_together, reduced
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer

_KINDS = {
    SumAggregation: "sum",
    MeanAggregation: "mean",
    MaxAggregation: "max",
    SoftmaxAggregation: "softmax",
}


@register_layer(GENConv)
class QuantGENConv(QuantConv):
    """``out_i = MLP(x_i + aggr_j(relu(Q(x_j) + Q(e_ij)) + eps))``.

    Rows of nodes and of edges pass one ``message`` site, and so have one scale: their sum is one of
    integers. Weights of a softmax are codes of the ``attention`` site's width, from a table of
    exponentials: see :func:`nodebits.ops.rectified_softmax`. The target's own row stays a float.
    """

    layer_type = "GENConv"
    options: ClassVar[Options] = {
        "out_channels": SIZE,
        "eps": Number(),
        "kind": Choice(tuple(_KINDS.values())),
    }
    derived_options: ClassVar = {"kind": lambda module: _KINDS[type(module.aggr_module)]}
    absent_sites = ("attention", "message_dst")
    aggr_module: Any
    mlp: Any
    lin_src: Any
    lin_dst: Any
    msg_norm: Any
    eps: float
    kind: str
    out_channels: int

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        aggregation: Any = getattr(module, "aggr_module", None)
        if type(aggregation) not in _KINDS:
            return f"it aggregates with {type(aggregation).__name__}"
        if getattr(aggregation, "channels", 1) != 1:
            return "its softmax has a temperature for every channel"
        if getattr(module, "flow", "source_to_target") != "source_to_target":
            return "it has flow='target_to_source'"
        return super().unsupported(module)

    aggregations = ("add", "sum", "mean", "max", "softmax")

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return "integer sum" if self.kind in ("sum", "mean") else f"integer {self.kind}"

    def place_quantizers(self, place: Placement, path: str) -> None:
        softmax = self.kind == "softmax"
        self.place_sites(place, path, 0, self.out_channels, edges=softmax)
        columns = 0 if softmax else self.out_channels
        info = SiteInfo(path, self.layer_type, "message", "message", columns, pairs=True)
        self.message = place.activation(info)

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form.
            edge_attr: float32 ``[E, out_channels]``, or ``[E, D]`` where the layer maps ``D``; None
                for none.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            ShapeError: On features of other shapes, of nodes or of edges.
            ConfigError: If the rows were packed ahead and are also read as floats.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, size=size, features=edge_attr)
        source, target, num_src, num_dst = split_pair(x, self)
        packed = isinstance(source, PackedInput) or isinstance(target, PackedInput)
        if packed and not self.input_sites():
            raise ConfigError(
                f"layer {self.described} takes no features packed ahead: it adds the rows "
                "themselves to its result; pass the float matrix"
            )
        if not hasattr(self, "lin_src"):
            check_width(source, self.out_channels, self)
        if target is not None and not hasattr(self, "lin_dst"):
            check_width(target, self.out_channels, self)
        graph = self.graph_of(edge_index, num_src, num_dst, size=size).topology()
        with self.layer_scope(graph):
            expect_sites(x, self._maps())
            mapped = self.lin_src(source) if hasattr(self, "lin_src") else source
            tensors: list[Features] = [mapped]
            places = None
            if edge_attr is not None:
                linear = getattr(self, "lin_edge", None)
                table = edge_table(edge_attr, graph, self, [linear])
                places = table.places
                tensors.append(mapped_features(table.rows, linear, self.out_channels, self))
            rows, *others = quantize_together(self.message, *tensors)
            features = EdgeRows(others[0], places) if others else None
            if self.kind in ("sum", "mean"):
                out = rectified_sum(rows, features, graph, "message", self.eps)
                out = reduced(out, graph, self.kind)
            else:
                sharpness = self._sharpness(graph.device)
                site = self.attention if sharpness.factor is not None else self.message
                out = rectified_softmax(site, rows, features, graph, sharpness, "message", self.eps)
            if hasattr(self, "msg_norm"):
                out = self.msg_norm(mapped if target is None else target, out)
            if target is not None:
                own: Any = self.lin_dst(target) if hasattr(self, "lin_dst") else target
                out = out + own
            result: Tensor = self.mlp(requantize(self.output, out))
            return result

    def _sharpness(self, device: torch.device) -> Sharpness:
        if self.kind == "max":
            return Sharpness(None)
        factor = self.aggr_module.t
        if not isinstance(factor, Tensor):
            factor = torch.tensor([float(factor)], device=device)
        return Sharpness(factor.view(1), bool(self.aggr_module.semi_grad))

    def _maps(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(getattr(self, "lin_src", None), getattr(self, "lin_dst", None))

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        whole = hasattr(self, "lin_src") and hasattr(self, "lin_dst")
        return self._maps() if whole and not hasattr(self, "msg_norm") else []
