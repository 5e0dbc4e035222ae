"""A linear map of rows beside several multiples of others, whose factors are numbers per row.

``W [x, s_1 a, .., s_n a] + b`` is ``W_0 x + b + s_1 (W_1 a) + ..``: a factor of a row commutes with
the map, so the codes of ``a`` serve all multiples, and no matrix of them exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits.core.errors import UnsupportedLayerError
from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.decoded import weight_values
from nodebits.nn.functional import check_product, linear, product_rows
from nodebits.nn.inputs import Features, as_features
from nodebits.nn.layer import QuantLayer, stand_in
from nodebits.nn.linear import QuantLinear, check_weight
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer


@register_layer()
class QuantScaledLinear(QuantLinear):
    """A linear map of ``x`` and of ``multiples`` of other rows, as a sum of integer products.

    Its parameter stays that of the float layer; what becomes codes are its parts.

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
    own_channels: int
    multiples: int

    @classmethod
    def of(
        cls, module: Any, path: str, place: Placement, own_channels: int, multiples: int
    ) -> QuantScaledLinear:
        """The successor of a linear map of rows and of multiples of others.

        Args:
            module: It, float or with sites.
            path: Its path.
            place: Gives the quantizers.
            own_channels: See above.
            multiples: See above.
        """
        kind = module.float_type if isinstance(module, QuantLayer) else type(module)
        made: Any = stand_in(cls, kind)
        layer: QuantScaledLinear = made()
        layer._take(module)
        weight: Any = module._parameters["weight"]
        layer.out_channels, layer.in_channels = weight.shape
        layer.own_channels, layer.multiples, layer.layer_name = own_channels, multiples, path
        layer.place_quantizers(place, path)
        for child in layer.children():
            child.train(module.training)
        return layer

    @property
    def _others(self) -> int:
        """Columns of the other rows."""
        return (self.in_channels - self.own_channels) // self.multiples

    @property
    def _names(self) -> list[str]:
        return ["quantized_weight", *(f"scaled_weight_{i}" for i in range(self.multiples))]

    def place_quantizers(self, place: Placement, path: str) -> None:
        own, others = self.own_channels, self._others

        def site(kind: str, name: str, num_cols: int, num_channels: int = 0) -> SiteInfo:
            return SiteInfo(path, "Linear", kind, name, num_cols, num_channels)

        self.input = place.activation(site("input", "input", own))
        self.input_scaled = place.activation(site("input", "input_scaled", others))
        for name in self._names:
            first = name == "quantized_weight"
            width = own if first else others
            shown = "weight" if first else name
            setattr(self, name, place.weight(site("weight", shown, width, self.out_channels)))
            check_product(
                self.input if first else self.input_scaled, getattr(self, name), width, path
            )
        self.output = place.activation(site("output", "output", self.out_channels))

    def __getattr__(self, name: str) -> Any:
        known = "scaled_weight_0" in self._modules or "quantized_weight" in self._modules
        if name != "weight" or not known or self._unseen():
            return nn.Module.__getattr__(self, name)
        weight = self._parameters["weight"]
        parts = [None] * len(self._names) if weight is None else self._parts(weight)
        sites = (self._modules[name] for name in self._names)
        decoded: list[Tensor] = [
            weight_values(site, part, self.described)  # type: ignore[arg-type]
            for site, part in zip(sites, parts, strict=True)
        ]
        return torch.cat(decoded, 1)

    def _parts(self, weight: Tensor) -> Sequence[Tensor]:
        sizes = [self.own_channels, *[self._others] * self.multiples]
        made: Sequence[Tensor] = weight.split(sizes, 1)
        return made

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
        first, *rest = self._weights()
        y = linear(rows, first, self._parameters.get("bias"), layer=self)
        for weight, factor in zip(rest, factors, strict=True):
            y = y + linear(scaled, weight, None, layer=self, row_factor=factor)
        return y

    def _weights(self) -> list[Any]:
        sites: list[Any] = [self._modules[name] for name in self._names]
        if any(isinstance(site, PackedWeight) for site in sites):
            return sites
        weight: Any = self._parameters["weight"]
        return [site(part) for site, part in zip(sites, self._parts(weight), strict=True)]

    def freeze(self) -> None:
        QuantLayer.freeze(self)
        sites = [self._modules[name] for name in self._names]
        if any(isinstance(site, PackedWeight) for site in sites):
            return
        weight = self._parameters["weight"]
        if weight is None:
            raise UnsupportedLayerError("a linear layer without weights cannot be converted")
        self.weight = None
        for name, site, part in zip(self._names, sites, self._parts(weight), strict=True):
            assert isinstance(site, WeightQuantizer)
            setattr(self, name, site.freeze(part.contiguous()))

    def check_loaded(self) -> None:
        for name in self._names:
            width = self.own_channels if name == "quantized_weight" else self._others
            check_weight(self._modules.get(name), (self.out_channels, width), name)
