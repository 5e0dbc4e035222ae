"""A linear map of both ends of every edge, taken apart into a map of targets and one of sources.

``W [x_i, x_j] + b`` is ``(W_1 x_i + b) + W_2 x_j``, and ``W [x_i, x_j - x_i] + b`` is
``((W_1 - W_2) x_i + b) + W_2 x_j``: products of N rows in place of one of E rows. What is constant
in a neighbourhood then leaves its sum, mean or extreme, which is taken of the codes of ``W_2 x_j``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.weight import PackedWeight
from nodebits.nn.functional import linear, product_rows
from nodebits.nn.inputs import Features, as_features
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear, plain_map


@register_layer()
class QuantPairLinear(QuantSplitLinear):
    """A linear map ``[M, 2K]`` of the rows of targets and of sources.

    Attributes:
        difference: Whether the second half of the map reads ``x_j - x_i``.
        target_weight: Of ``x_i``, ``[M, K]``.
        quantized_weight: Of ``x_j``, ``[M, K]``.
    """

    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "bias": FLAG,
        "difference": FLAG,
    }
    target_weight: WeightQuantizer | PackedWeight
    difference: bool

    def parts(self) -> dict[str, int]:
        width = self.in_channels // 2
        return {"target_weight": width, "quantized_weight": width}

    def split(self, weight: Tensor) -> Sequence[Tensor]:
        first, second = weight.chunk(2, 1)
        return first - second if self.difference else first, second

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        first, second = parts
        return torch.cat([first + second if self.difference else first, second], 1)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.input = self.place_input(place, path, "input", self.in_channels // 2)
        self.place_weights(place, path, (self.input, self.input))

    def forward(self, target: Features, source: Features) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Applies both maps.

        Args:
            target: float32 ``[num_dst, K]``.
            source: float32 ``[num_src, K]``, the same object where targets are the sources.

        Returns:
            ``W x_i + b`` and ``W x_j``.
        """
        target, source = as_features(target, self), as_features(source, self)
        rows = product_rows(self.input, source)
        mine = rows if target is source else product_rows(self.input, target)
        ours, theirs = self.weights()
        bias = self._parameters.get("bias")
        return linear(mine, ours, bias, layer=self), linear(rows, theirs, None, layer=self)


def pair_map(module: nn.Module | None, width: int = 0) -> bool:
    """Whether a module is a plain linear map whose inputs fall into two equal parts.

    Args:
        module: What is asked for.
        width: Of one end; 0 where it is not known.
    """
    if not plain_map(module, 2 * width):
        return False
    columns: Any = getattr(module, "in_channels", getattr(module, "in_features", 1))
    return int(columns) % 2 == 0
