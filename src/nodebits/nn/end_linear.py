"""A linear map of rows of nodes and of edges, taken apart into one of each.

``W [x, e] + b`` is ``(W_1 x + b) + W_2 e``: the product of an edge's node is made once for all of
its edges.
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
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear


@register_layer()
class QuantEndLinear(QuantSplitLinear):
    """A linear map ``[M, K + D]`` of nodes and of edges.

    Attributes:
        edge_channels: D, the last columns.
        input_edge: Site of the rows of edges.
    """

    options: ClassVar[Options] = {
        "in_channels": SIZE,
        "out_channels": SIZE,
        "bias": FLAG,
        "edge_channels": SIZE,
    }
    input_edge: Quantizer | RowQuantizer
    edge_channels: int = 0

    def parts(self) -> dict[str, int]:
        nodes = self.in_channels - self.edge_channels
        return {"quantized_weight": nodes, "edge_weight": self.edge_channels}

    def split(self, weight: Tensor) -> Sequence[Tensor]:
        made: Sequence[Tensor] = weight.split([*self.parts().values()], 1)
        return made

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), 1)

    def place_quantizers(self, place: Placement, path: str) -> None:
        nodes, edges = self.parts().values()
        self.input = self.place_input(place, path, "input", nodes)
        self.input_edge = self.place_input(place, path, "input_edge", edges)
        self.place_weights(place, path, (self.input, self.input_edge))
        # Its results are summands, and have no meaning alone.
        self.output = FloatQuantizer()

    def forward(self, x: Features) -> Tensor:  # type: ignore[override]
        """The map of nodes, ``W_1 x + b``.

        Args:
            x: float32 ``[N, K]``.
        """
        rows = product_rows(self.input, as_features(x, self))
        bias = self._parameters.get("bias")
        return linear(rows, self.weights()[0], bias, layer=self)

    def of_edges(self, features: Tensor) -> Tensor:
        """The map of edges, ``W_2 e``.

        Args:
            features: float32 ``[E, D]``.
        """
        rows = product_rows(self.input_edge, as_features(features, self))
        return linear(rows, self.weights()[1], None, layer=self)
