"""Linear maps with an ``input`` and a ``weight`` site: ``torch.nn.Linear`` and PyG's ``Linear``."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch_geometric.nn.dense.linear import Linear as PyGLinear
from torch_geometric.nn.dense.linear import reset_bias_, reset_weight_

from nodebits.core.errors import ConfigError, FileFormatError, ShapeError, UnsupportedLayerError
from nodebits.core.file_fields import FLAG, SIZE, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.decoded import weight_values
from nodebits.nn.functional import (
    check_product,
    dequantize_rows,
    linear,
    product_rows,
    quantize_rows,
)
from nodebits.nn.inputs import Features, as_features
from nodebits.nn.layer import QuantLayer, lazy_reason
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import FloatWeightQuantizer, WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.translation import refuse_translation


@register_layer(nn.Linear, PyGLinear, NonDynamicallyQuantizableLinear)
class QuantLinear(QuantLayer):
    """``y = x W^T + b`` on codes, rescaled once per output.

    ``weight`` read by other code is the parameter in training (and before the layer saw data), and
    the values of its codes outside of it, in the prepared layer as in the packed one
    (:mod:`nodebits.nn.decoded`).

    Attributes:
        in_channels: K.
        out_channels: M.
        bias: float32 ``[M]`` or None.
        weight_initializer: PyG's name of the initialiser, for ``reset_parameters``.
        bias_initializer: Likewise.

    Shapes:
        input ``[*, K]`` (or packed rows in the packed form), output ``[*, M]``.
    """

    layer_type = "Linear"
    options: ClassVar[Options] = {"in_channels": SIZE, "out_channels": SIZE, "bias": FLAG}
    derived_options: ClassVar = {
        "in_channels": lambda module: module.weight.size(1),
        "out_channels": lambda module: module.weight.size(0),
    }
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    packed_parameters: ClassVar[tuple[str, ...]] = ("weight",)
    input: Quantizer | RowQuantizer
    output: Quantizer | RowQuantizer
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    quantized_weight: WeightQuantizer | PackedWeight
    in_channels: int
    out_channels: int
    weight_initializer: str | None = None
    bias_initializer: str | None = None

    def __getattr__(self, name: str) -> Any:
        # Models ask for a weight's dtype or device, and some multiply by it themselves.
        if name == "weight" and not self._unseen():
            quantizer = self._modules.get("quantized_weight")
            if isinstance(quantizer, WeightQuantizer | PackedWeight):
                return weight_values(quantizer, self._parameters["weight"], self.described)
        return super().__getattr__(name)

    def _unseen(self) -> bool:
        """Whether the layer never ran: conversion refuses it, or leaves its weight in float."""
        sites = (self._modules.get("input"), self._modules.get("output"))
        return any(isinstance(site, Quantizer) and not site.known for site in sites)

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        return lazy_reason(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        def site(kind: str, num_cols: int, num_channels: int = 0) -> SiteInfo:
            return SiteInfo(path, "Linear", kind, kind, num_cols, num_channels)

        self.input = place.activation(site("input", self.in_channels))
        self.quantized_weight = place.weight(site("weight", self.in_channels, self.out_channels))
        self.output = place.activation(site("output", self.out_channels))
        check_product(self.input, self.quantized_weight, self.in_channels, path)

    def forward(self, x: Features, site: Quantizer | RowQuantizer | None = None) -> Tensor:
        """Applies the map.

        Args:
            x: float32 ``[*, K]``, or packed rows in the packed form.
            site: Where the rows are quantized, if they are others than those of ``input``.
        """
        refuse_translation("a quantized linear layer")
        site = self.input if site is None else site
        x = as_features(x, self)
        if x.shape[-1] != self.in_channels:
            raise ShapeError(
                f"layer {self.described} got features of shape {list(x.shape)}, expected rows of "
                f"{self.in_channels}"
            )
        lead = x.shape[:-1]
        if isinstance(x, Tensor) and x.dim() != 2:
            x = x.reshape(-1, self.in_channels)
        rows = product_rows(site, x)
        sparse = None
        # Sums of floats depend on their order: in evaluation it is that of the packed layer.
        exact = not (site.bits is None or isinstance(self.quantized_weight, FloatWeightQuantizer))
        if isinstance(site, Quantizer) and isinstance(x, Tensor) and (self.training or exact):
            sparse = site.sparse(x)
        weight = (
            self.quantized_weight
            if isinstance(self.quantized_weight, PackedWeight)
            else self.quantized_weight(self._parameters["weight"])
        )
        y = linear(rows, weight, self._parameters.get("bias"), sparse=sparse, layer=self)
        y = requantize(self.output, y)
        return y if len(lead) == 1 else y.view(*lead, self.out_channels)

    def freeze(self) -> None:
        super().freeze()
        quantizer = self.quantized_weight
        if isinstance(quantizer, WeightQuantizer):
            weight = self._parameters["weight"]
            if weight is None:
                raise UnsupportedLayerError("a linear layer without weights cannot be converted")
            self.weight = None
            self.quantized_weight = quantizer.freeze(weight)

    def check_loaded(self) -> None:
        check_weight(self.quantized_weight, (self.out_channels, self.in_channels), "weight")

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.input]

    def adopt(self, module: Any) -> None:
        """See :meth:`QuantLayer.adopt`; the widths must fit."""
        weight: Any = getattr(module, "weight", None)
        unknown = weight is None or isinstance(weight, nn.parameter.UninitializedParameter)
        if not unknown and weight.shape != (self.out_channels, self.in_channels):
            raise ConfigError(
                f"a linear layer of the module maps {weight.size(1)} to {weight.size(0)} channels, "
                f"that of the file {self.in_channels} to {self.out_channels}"
            )
        super().adopt(module)

    def reset_parameters(self) -> None:
        """Draws weights anew (as PyG does) and forgets ranges."""
        super().reset_parameters()
        if isinstance(self.quantized_weight, WeightQuantizer):
            reset_weight_(self._parameters["weight"], self.in_channels, self.weight_initializer)
            reset_bias_(self.bias, self.in_channels, self.bias_initializer)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}, bias={self.bias is not None}"


def check_weight(weight: object, shape: tuple[int, int], name: str) -> None:
    """Refuses a weight of a file whose shape is not that of its layer.

    Raises:
        FileFormatError: Names both shapes.
    """
    if isinstance(weight, PackedWeight) and (weight.num_rows, weight.num_cols) != shape:
        raise FileFormatError(
            f"the {name} is [{weight.num_rows}, {weight.num_cols}], but the layer maps {shape[1]} "
            f"to {shape[0]} channels"
        )


def width_of(linear: nn.Module) -> int:
    """Columns that a linear map reads, also one that stayed in float."""
    return int(getattr(linear, "in_channels", getattr(linear, "in_features", 0)))


def input_sites_of(*linears: nn.Module | None) -> list[Quantizer | RowQuantizer]:
    """Input sites of the quantized ones among ``linears``."""
    return [linear.input for linear in linears if isinstance(linear, QuantLinear)]


def requantize(site: Quantizer | RowQuantizer, y: Tensor) -> Tensor:
    """A result that passes an ``output`` site: rounded to its codes and back, or untouched."""
    return dequantize_rows(quantize_rows(site, y)) if site.bits is not None else y
