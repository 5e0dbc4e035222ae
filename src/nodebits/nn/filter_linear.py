"""A linear map that makes a matrix for every edge: ``W(h) = sum_d h_d W_d + B`` is linear in h."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.nn.outer_map import OuterMap
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import FloatQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear


@register_layer()
class QuantFilterLinear(OuterMap, QuantSplitLinear):
    """A linear map ``[F * M, D]`` whose results are matrices ``[F, M]`` that rows are mapped with.

    Attributes:
        node_channels: F.
        plain: Whether the map has a bias: a matrix that all edges have alike.
    """

    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "node_channels": SIZE,
        "plain": FLAG,
    }
    packed_parameters = ("weight", "bias")
    counts_factors = "in_channels"
    node_channels: int = 1
    plain: bool = False

    def shape_of_matrices(self) -> tuple[int, int]:
        rows = max(self.node_channels, 1)
        return self.out_channels // rows, (self.in_channels + int(self.plain)) * rows

    def parts(self) -> dict[str, int]:
        return {"quantized_weight": self.shape_of_matrices()[1]}

    def __getattr__(self, name: str) -> Any:
        # Of the map itself nothing is rounded.
        return nn.Module.__getattr__(self, name)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_outer(place, path, "Linear", self.in_channels)
        self.output = FloatQuantizer()

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """What the map would read: it is applied by :meth:`of_sums`."""
        return features

    def matrices(self, gain: Tensor) -> Tensor:
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        size = self.node_channels, self.out_channels // self.node_channels
        by_column = weight.view(*size, self.in_channels).permute(1, 2, 0)
        made = (by_column * gain.view(1, -1, 1)).flatten(1)
        return made if bias is None else torch.cat([made, bias.view(size).t()], 1)
