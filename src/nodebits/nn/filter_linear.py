"""A linear map that makes a matrix for every edge, applied to sums over edges in place of rows.

``W(h) = sum_d h_d W_d + B`` is linear in h, so ``sum_j x_j W(h_ij)`` is ``sum_d (sum_j h_ijd x_j)
W_d + (sum_j x_j) B``: no matrix of an edge exists, and what there is of a product is one of
targets.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits.core.distributed import rows_of_all_ranks
from nodebits.core.errors import UnsupportedLayerError
from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.loaded import check_values
from nodebits.engine.pending import settle
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, check_product, linear, product_rows, quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import check_weight
from nodebits.nn.outer_sums import outer_sum
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear

# Of the largest column, below which one counts as without values.
_LEAST_SHARE = 1e-4


@register_layer()
class QuantFilterLinear(QuantSplitLinear):
    """A linear map ``[F * M, D]`` whose results are matrices ``[F, M]`` that rows are mapped with.

    Attributes:
        node_channels: F.
        plain: Whether the map has a bias: a matrix that all edges have alike.
        att_weight_edge: Site of what the map would read, a row for every edge.
        gain: float32 ``[D]``, how large the columns of h are; 0 before they were seen.
        input: Site of the sums over these gains, of ``D * F`` columns, and F more with a bias.
        quantized_weight: Of all matrices times their gains, as many columns for each of M.
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
    gain: Tensor

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantLayer:
        layer = super().build(config)
        layer.register_buffer("gain", torch.ones(config["in_channels"], device="cpu"))
        return layer

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
        self.register_buffer("gain", self.get_parameter("weight").new_zeros(self.in_channels))
        columns, out = self.sum_channels, self.out_channels // self.node_channels
        info = SiteInfo(path, "Linear", "message", "att_weight_edge", self.in_channels, pairs=True)
        self.att_weight_edge = place.activation(info)
        self.input = self.place_input(place, path, "input", columns, True)
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
        self._observe(features)
        factors = quantize_rows(self.att_weight_edge, features)
        sums = outer_sum(
            rows,
            factors,
            graph,
            (name, "att_weight_edge"),
            gain=self._gains(),
            plain=self.plain,
            row_scale=row_scale,
            layer=self,
        )
        site = self.quantized_weight
        weight = site if isinstance(site, PackedWeight) else site(self._matrices())
        return linear(product_rows(self.input, sums), weight, None, layer=self)

    @torch.no_grad()
    def _observe(self, features: Features) -> None:
        """Learns the gains from the first rows that are seen: their root mean squares.

        The sums of a large column would else leave those of others few codes. What gains are right
        is no matter of exactness: weights are multiplied by them.
        """
        site = self.att_weight_edge
        if not isinstance(site, Quantizer) or bool(self.gain.any()):
            return
        if not (self.training or site.calibrating):
            return
        seen = rows_of_all_ranks(settle(features))
        if seen.size(0):
            size = seen.square().mean(0).sqrt()
            alive = size > _LEAST_SHARE * size.amax()
            # A column without values is taken for one like the others.
            usual = size[alive].median() if bool(alive.any()) else size.new_ones(())
            self.gain = torch.where(alive, size, usual)

    def _gains(self) -> Tensor:
        """The gains; 1 before they are known, as a file has them."""
        frozen = isinstance(self.quantized_weight, PackedWeight)
        return self.gain if frozen or bool(self.gain.any()) else torch.ones_like(self.gain)

    def _matrices(self) -> Tensor:
        """The matrices of all columns of h, times their gains, float32 ``[M, D * F]``."""
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        size = self.node_channels, self.out_channels // self.node_channels
        by_column = weight.view(*size, self.in_channels).permute(1, 2, 0)
        scaled = by_column * self._gains().view(1, -1, 1)
        made = scaled.flatten(1)
        return made if bias is None else torch.cat([made, bias.view(size).t()], 1)

    def freeze(self) -> None:
        QuantLayer.freeze(self)
        quantizer, weight = self.quantized_weight, self._parameters["weight"]
        if not isinstance(quantizer, WeightQuantizer):
            return
        if weight is None:
            raise UnsupportedLayerError("a linear layer without weights cannot be converted")
        self.gain = self._gains()
        self.quantized_weight = quantizer.freeze(self._matrices().contiguous())
        self.weight = self.bias = None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.gain.zero_()

    def check_loaded(self) -> None:
        check_values(self.gain, "gain", True)
        shape = self.out_channels // max(self.node_channels, 1), self.sum_channels
        check_weight(self._modules.get("quantized_weight"), shape, "weight")
