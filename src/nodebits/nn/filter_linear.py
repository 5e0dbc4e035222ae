"""A linear map that makes a matrix for every edge, applied to sums over edges in place of rows.

``W(h) = sum_d h_d W_d + B`` is linear in h, so ``sum_j x_j W(h_ij)`` is ``sum_d (sum_j h_ijd x_j)
W_d + (sum_j x_j) B``: no matrix of an edge exists, and what there is of a product is one of
targets.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits.core.errors import UnsupportedLayerError
from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, check_product, linear, product_rows, quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import check_weight
from nodebits.nn.outer_sums import outer_sum, reach
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear


@register_layer()
class QuantFilterLinear(QuantSplitLinear):
    """A linear map ``[F * M, D]`` whose results are matrices ``[F, M]`` that rows are mapped with.

    Attributes:
        node_channels: F.
        plain: Whether the map has a bias: a matrix that all edges have alike.
        att_weight_edge: Site of what the map would read, a row for every edge.
        input: Site of the sums, over the largest value of each of D columns: of ``D * F`` columns,
            and F more with a bias.
        quantized_weight: Of all matrices, ``[M, D * F]``, times these values.
    """

    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "node_channels": SIZE,
        "plain": FLAG,
    }
    own_values: ClassVar = {}
    packed_parameters = ("weight", "bias")
    att_weight_edge: Quantizer | RowQuantizer
    node_channels: int = 1
    plain: bool = False

    @property
    def sum_channels(self) -> int:
        """Columns of the sums."""
        return (self.in_channels + int(self.plain)) * self.node_channels

    def parts(self) -> dict[str, int]:
        return {"quantized_weight": self.sum_channels}

    def __getattr__(self, name: str) -> Any:
        # Of the map itself nothing is rounded.
        return nn.Module.__getattr__(self, name)

    def place_quantizers(self, place: Placement, path: str) -> None:
        columns, out = self.sum_channels, self.out_channels // self.node_channels
        info = SiteInfo(path, "Linear", "message", "att_weight_edge", self.in_channels, pairs=True)
        self.att_weight_edge = place.activation(info)
        self.input = self.place_input(place, path, "input", columns)
        weight = SiteInfo(path, "Linear", "weight", "weight", columns, out)
        self.quantized_weight = place.weight(weight)
        check_product(self.input, self.quantized_weight, columns, path)
        self.output = FloatQuantizer()

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """What the map would read: it is applied by :meth:`of_sums`."""
        return features

    def of_sums(
        self, rows: AnyRows, features: Features, graph: Graph, row_scale: Tensor | None, name: str
    ) -> Tensor:
        """``sum_j x_j W(h_ij)`` over the edges of every target.

        Args:
            rows: x, ``[num_src, F]``.
            features: h, float32 ``[E, D]``, in the order in which the edges were given.
            graph: Topology.
            row_scale: float32 ``[num_dst]``, by which a target's sum is multiplied, or None.
            name: Of the site of the rows, for errors.

        Returns:
            float32 ``[num_dst, M]``.
        """
        factors = quantize_rows(self.att_weight_edge, features)
        sums = outer_sum(
            rows,
            factors,
            graph,
            (name, "att_weight_edge"),
            plain=self.plain,
            row_scale=row_scale,
            layer=self,
        )
        site = self.quantized_weight
        weight = site if isinstance(site, PackedWeight) else site(self._matrices(factors))
        return linear(product_rows(self.input, sums), weight, None, layer=self)

    def _matrices(self, factors: AnyRows) -> Tensor:
        """The matrices of all columns of h, times what these reach, float32 ``[M, D * F]``."""
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        size = self.node_channels, self.out_channels // self.node_channels
        by_column = weight.view(*size, self.in_channels).permute(1, 2, 0)
        scaled = by_column * reach(factors, "att_weight_edge").view(1, -1, 1)
        made = scaled.flatten(1)
        return made if bias is None else torch.cat([made, bias.view(size).t()], 1)

    def freeze(self) -> None:
        QuantLayer.freeze(self)
        quantizer, weight = self.quantized_weight, self._parameters["weight"]
        if not isinstance(quantizer, WeightQuantizer):
            return
        if weight is None:
            raise UnsupportedLayerError("a linear layer without weights cannot be converted")
        site = self.att_weight_edge
        assert isinstance(site, RowQuantizer)
        # Its scales are those of any row.
        factors = site.pack(weight.new_zeros(1, self.in_channels))
        self.quantized_weight = quantizer.freeze(self._matrices(factors).contiguous())
        self.weight = self.bias = None

    def check_loaded(self) -> None:
        shape = self.out_channels // max(self.node_channels, 1), self.sum_channels
        check_weight(self._modules.get("quantized_weight"), shape, "weight")
