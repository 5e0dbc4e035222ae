"""A linear map of both ends of an edge and of the edge, taken apart into a map of each.

``W [x_i, x_j, e_ij] + b`` is ``(W_1 x_i + b) + W_2 x_j + W_3 e_ij``: nodes are mapped once, and
only the few columns of an edge once per edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.functional import linear, product_rows
from nodebits.nn.inputs import Features, as_features
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear


@register_layer()
class QuantEndsLinear(QuantSplitLinear):
    """A linear map ``[M, K_i + K_j + D]`` of the rows of targets, of sources and of edges.

    Attributes:
        target_channels: Columns of ``x_i``.
        edge_channels: Columns of ``e_ij``, 0 for none.
        target_weight: Of ``x_i``.
        quantized_weight: Of ``x_j``.
        edge_weight: Of ``e_ij``.
        input_edge: Site of the rows of edges.
    """

    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "bias": FLAG,
        "target_channels": SIZE,
        "edge_channels": SIZE,
    }
    absent_sites: ClassVar[tuple[str, ...]] = ("input_edge", "edge_weight")
    target_weight: WeightQuantizer | PackedWeight
    edge_weight: WeightQuantizer | PackedWeight
    input_edge: Quantizer | RowQuantizer
    target_channels: int = 0
    edge_channels: int = 0

    def parts(self) -> dict[str, int]:
        sources = self.in_channels - self.target_channels - self.edge_channels
        ends = {"target_weight": self.target_channels, "quantized_weight": sources}
        return {**ends, "edge_weight": self.edge_channels} if self.edge_channels else ends

    def split(self, weight: Tensor) -> Sequence[Tensor]:
        made: Sequence[Tensor] = weight.split([*self.parts().values()], 1)
        return made

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), 1)

    def place_quantizers(self, place: Placement, path: str) -> None:
        widths = [*self.parts().values()]
        self.input = self.place_input(place, path, "input", widths[1])
        inputs = [self.input, self.input]
        if self.edge_channels:
            self.input_edge = self.place_input(place, path, "input_edge", self.edge_channels)
            inputs.append(self.input_edge)
        self.place_weights(place, path, inputs)

    def forward(  # type: ignore[override]
        self, target: Features, source: Features, edges: Tensor | None
    ) -> list[Tensor]:
        """Applies the maps.

        Args:
            target: float32 ``[num_dst, K_i]``.
            source: float32 ``[num_src, K_j]``, the same object where targets are the sources.
            edges: float32 ``[E, D]``, or None.

        Returns:
            ``W_2 x_j``, ``W_1 x_i + b`` and, where edges have rows, ``W_3 e``.
        """
        target, source = as_features(target, self), as_features(source, self)
        rows = product_rows(self.input, source)
        mine = rows if target is source else product_rows(self.input, target)
        ours, theirs, *rest = self.weights()
        bias = self._parameters.get("bias")
        made = [linear(rows, theirs, None, layer=self), linear(mine, ours, bias, layer=self)]
        for weight in rest:
            assert edges is not None
            made.append(linear(product_rows(self.input_edge, edges), weight, None, layer=self))
        return made
