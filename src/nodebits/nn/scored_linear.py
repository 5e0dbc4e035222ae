"""A linear map whose result only meets a vector per head, folded into a map to one number each.

``a_h . (W e)_h`` is ``(a_h W_h) e``: a product of H rows in place of one of H * F.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from nodebits.core.file_fields import SIZE, Options
from nodebits.nn.functional import check_product, linear, product_rows
from nodebits.nn.inputs import as_features
from nodebits.nn.linear import check_weight
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import FloatQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import QuantSplitLinear


@register_layer()
class QuantScoredLinear(QuantSplitLinear):
    """A linear map ``[H * F, D]`` without bias, read by the vectors of H heads.

    Attributes:
        heads: H.
        vectors: float32 ``[1, H, F]``, a parameter of the layer around; None once it is folded in.
        quantized_weight: Of the folded map, ``[H, D]``.
    """

    options: ClassVar[Options] = {"in_channels": SIZE, "out_channels": SIZE, "heads": SIZE}
    own_values: ClassVar = {}
    heads: int = 1
    vectors: nn.Parameter | None = None

    def hold(self, vectors: nn.Parameter) -> QuantScoredLinear:
        """Takes the vectors, which stay those of the layer around."""
        self.__dict__["vectors"] = vectors
        return self

    def parts(self) -> dict[str, int]:
        return {"quantized_weight": self.in_channels}

    def split(self, weight: Tensor) -> Sequence[Tensor]:
        assert self.vectors is not None
        by_head = weight.view(self.heads, -1, self.in_channels)
        return [(by_head * self.vectors.view(self.heads, -1, 1)).sum(1)]

    def __getattr__(self, name: str) -> Any:
        # Of the map itself nothing is rounded.
        return nn.Module.__getattr__(self, name)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.input = self.place_input(place, path, "input", self.in_channels)
        info = SiteInfo(path, "Linear", "weight", "weight", self.in_channels, self.heads)
        self.quantized_weight = place.weight(info)
        check_product(self.input, self.quantized_weight, self.in_channels, path)
        self.output = FloatQuantizer()

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """Scores ``[E, H]`` of features ``[E, D]``."""
        rows = product_rows(self.input, as_features(features, self))
        return linear(rows, self.weights()[0], None, layer=self)

    def freeze(self) -> None:
        super().freeze()
        self.__dict__["vectors"] = None

    def check_loaded(self) -> None:
        check_weight(
            self._modules.get("quantized_weight"), (self.heads, self.in_channels), "weight"
        )


def scored_linear(
    module: Any, vectors: nn.Parameter, heads: int, path: str, place: Placement
) -> QuantScoredLinear:
    """The successor of a linear map that only vectors of heads read.

    Args:
        module: The map.
        vectors: float32 ``[1, H, F]``.
        heads: H.
        path: Of the map.
        place: Gives the quantizers.
    """
    return QuantScoredLinear.of(module, path, place, heads=heads).hold(vectors)
