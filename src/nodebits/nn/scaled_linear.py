"""A linear map of rows beside several multiples of others, whose factors are numbers per row.

``W [x, s_1 a, .., s_n a] + b`` is ``W_0 x + b + s_1 (W_1 a) + ..``: a factor of a row commutes with
the map, so the codes of ``a`` serve all multiples, and no matrix of them exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.functional import linear, product_rows
from nodebits.nn.inputs import Features, as_features
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear


@register_layer()
class QuantScaledLinear(QuantSplitLinear):
    """A linear map of ``x`` and of ``multiples`` of other rows, as a sum of integer products.

    Attributes:
        own_channels: Columns of ``x``.
        multiples: How often the other rows are read.
        input_scaled: Site of the other rows.
    """

    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "bias": FLAG,
        "own_channels": SIZE,
        "multiples": SIZE,
    }
    input_scaled: Quantizer | RowQuantizer
    own_channels: int = 0
    multiples: int = 0

    @property
    def _others(self) -> int:
        """Columns of the other rows."""
        return (self.in_channels - self.own_channels) // max(self.multiples, 1)

    def parts(self) -> dict[str, int]:
        scaled = {f"scaled_weight_{i}": self._others for i in range(self.multiples)}
        return {"quantized_weight": self.own_channels, **scaled}

    def split(self, weight: Tensor) -> Sequence[Tensor]:
        made: Sequence[Tensor] = weight.split([*self.parts().values()], 1)
        return made

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), 1)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.input = self.place_input(place, path, "input", self.own_channels)
        self.input_scaled = self.place_input(place, path, "input_scaled", self._others, True)
        scaled = [self.input_scaled] * self.multiples
        self.place_weights(place, path, (self.input, *scaled))

    def forward(  # type: ignore[override]
        self, x: Features, others: Tensor, factors: Sequence[Tensor | None]
    ) -> Tensor:
        """Applies the map.

        Args:
            x: float32 ``[N, own_channels]``.
            others: float32 ``[N, K]``.
            factors: For every multiple float32 ``[N, 1]``, or None for 1.

        Returns:
            float32 ``[N, M]``.
        """
        x = as_features(x, self)
        rows, scaled = product_rows(self.input, x), product_rows(self.input_scaled, others)
        first, *rest = self.weights()
        y = linear(rows, first, self._parameters.get("bias"), layer=self)
        for weight, factor in zip(rest, factors, strict=True):
            y = y + linear(scaled, weight, None, layer=self, row_factor=factor)
        return y
