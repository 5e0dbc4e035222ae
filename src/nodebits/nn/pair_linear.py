"""A linear map of both ends of every edge, taken apart into a map of targets and one of sources.

``W [x_i, x_j] + b`` is ``(W_1 x_i + b) + W_2 x_j``, and ``W [x_i, x_j - x_i] + b`` is
``((W_1 - W_2) x_i + b) + W_2 x_j``: products of N rows in place of one of E rows. What is constant
in a neighbourhood then leaves its sum, mean or extreme, which is taken of the codes of ``W_2 x_j``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from nodebits.core.errors import UnsupportedLayerError
from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.weight import PackedWeight
from nodebits.nn.decoded import weight_values
from nodebits.nn.functional import check_product, linear, product_rows
from nodebits.nn.inputs import Features, as_features
from nodebits.nn.layer import QuantLayer, stand_in
from nodebits.nn.linear import QuantLinear, check_weight
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer


@register_layer()
class QuantPairLinear(QuantLinear):
    """A linear map ``[M, 2K]`` of the rows of targets and of sources.

    Its parameter stays that of the float layer; what becomes codes are the two halves.

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

    @classmethod
    def of(cls, module: Any, path: str, place: Placement, difference: bool) -> QuantPairLinear:
        """The successor of a linear map of both ends.

        Args:
            module: It, float or with sites.
            path: Its path.
            place: Gives the quantizers.
            difference: See above.
        """
        kind = module.float_type if isinstance(module, QuantLayer) else type(module)
        made: Any = stand_in(cls, kind)
        layer: QuantPairLinear = made()
        layer._take(module)
        weight: Any = module._parameters["weight"]
        layer.out_channels, layer.in_channels = weight.shape
        layer.difference = difference
        layer.layer_name = path
        layer.place_quantizers(place, path)
        for child in layer.children():
            child.train(module.training)
        return layer

    def place_quantizers(self, place: Placement, path: str) -> None:
        width = self.in_channels // 2

        def site(kind: str, name: str, num_cols: int, num_channels: int = 0) -> SiteInfo:
            return SiteInfo(path, "Linear", kind, name, num_cols, num_channels)

        self.input = place.activation(site("input", "input", width))
        self.quantized_weight = place.weight(site("weight", "weight", width, self.out_channels))
        self.target_weight = place.weight(site("weight", "target_weight", width, self.out_channels))
        self.output = place.activation(site("output", "output", self.out_channels))
        check_product(self.input, self.quantized_weight, width, path)
        check_product(self.input, self.target_weight, width, path)

    def __getattr__(self, name: str) -> Any:
        if name != "weight" or "target_weight" not in self._modules or self._unseen():
            return nn.Module.__getattr__(self, name)
        parts = []
        given = self._parameters["weight"]
        halves = (None, None) if given is None else self._halves(given)
        for site, half in zip((self.target_weight, self.quantized_weight), halves, strict=True):
            parts.append(weight_values(site, half, self.described))
        first = parts[0] + parts[1] if self.difference else parts[0]
        return torch.cat([first, parts[1]], 1)

    def _halves(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The map of targets and that of sources."""
        first, second = weight.chunk(2, 1)
        return first - second if self.difference else first, second

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
        ours, theirs = self._weights()
        bias = self._parameters.get("bias")
        return linear(mine, ours, bias, layer=self), linear(rows, theirs, None, layer=self)

    def _weights(self) -> tuple[Any, Any]:
        ours, theirs = self.target_weight, self.quantized_weight
        if isinstance(ours, PackedWeight) or isinstance(theirs, PackedWeight):
            return ours, theirs
        weight: Any = self._parameters["weight"]
        first, second = self._halves(weight)
        return ours(first), theirs(second)

    def freeze(self) -> None:
        QuantLayer.freeze(self)
        ours, theirs = self.target_weight, self.quantized_weight
        if not isinstance(ours, WeightQuantizer) or not isinstance(theirs, WeightQuantizer):
            return
        weight = self._parameters["weight"]
        if weight is None:
            raise UnsupportedLayerError("a linear layer without weights cannot be converted")
        first, second = self._halves(weight)
        self.weight = None
        self.target_weight, self.quantized_weight = ours.freeze(first), theirs.freeze(second)

    def check_loaded(self) -> None:
        shape = self.out_channels, self.in_channels // 2
        check_weight(self.target_weight, shape, "weight of targets")
        check_weight(self.quantized_weight, shape, "weight of sources")


def hooked(module: nn.Module) -> bool:
    """Whether someone looks at what a module is called with or returns."""
    return any(
        bool(value)
        for name, value in vars(module).items()
        if name.endswith("_hooks") and "state_dict" not in name
    )


def plain_map(module: nn.Module | None, width: int = 0) -> bool:
    """Whether a module is torch's or PyG's linear map, float or with sites, and nothing is hooked.

    Args:
        module: What is asked for.
        width: Its columns; 0 where they are not known.
    """
    kind = module.float_type if isinstance(module, QuantLayer) else type(module)
    if module is None or kind not in (nn.Linear, PyGLinear) or hooked(module):
        return False
    if isinstance(module, QuantLinear):
        return not width or module.in_channels == width
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() == 2 and weight.size(1) == (width or weight.size(1))


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
