"""GCN2Conv (GCNII, Chen et al. 2020): initial residual and identity mapping."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import GCN2Conv

from nodebits.core.file_fields import FLAG, SIZE, Number, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.functional import check_product, linear, quantize_rows
from nodebits.nn.linear import check_weight, requantize
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.propagation import Propagation
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer


@register_layer(GCN2Conv)
class QuantGCN2Conv(Propagation):
    """``P = (1-alpha) A_hat Q(X) + alpha X_0``, out ``(1-beta) P + beta Q(P) Q(W_1)``.

    The identity keeps ``P`` in float, only the product reads its codes. Without shared weights the
    two terms of ``P`` have a product each.
    """

    layer_type = "GCN2Conv"
    options: ClassVar[Options] = {
        "channels": SIZE,
        "alpha": Number(),
        "beta": Number(),
        "shared_weights": FLAG,
        "add_self_loops": FLAG,
        "normalize": FLAG,
    }
    derived_options: ClassVar = {
        "steps": lambda _: 1,
        "shared_weights": lambda module: module.weight2 is None,
    }
    packed_parameters = ("weight1", "weight2")
    steps = 1
    channels: int
    alpha: float
    beta: float
    shared_weights: bool
    input: Quantizer | RowQuantizer
    initial: Quantizer | RowQuantizer
    weight1: nn.Parameter | None
    weight2: nn.Parameter | None
    quantized_weight1: WeightQuantizer | PackedWeight
    quantized_weight2: WeightQuantizer | PackedWeight

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_steps(place, path, self.channels)
        for site, weight in self._products():
            self._place(place, path, "input", site, self.channels, computed=True)
            shape = self.channels, self.channels
            quantizer = place.weight(SiteInfo(path, self.layer_type, "weight", weight, *shape))
            setattr(self, f"quantized_{weight}", quantizer)
            check_product(getattr(self, site), quantizer, self.channels, path)

    def _products(self) -> list[tuple[str, str]]:
        """(input site, weight) of every product."""
        products = [("input", "weight1")]
        return products if self.shared_weights else [*products, ("initial", "weight2")]

    def forward(
        self, x: Tensor, x_0: Tensor, edge_index: Any, edge_weight: Tensor | None = None
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, channels]``.
            x_0: float32 ``[N, channels]``, the first layer's input.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[N, channels]``.
        """
        x, graph = self.enter(x, edge_index, edge_weight)
        with self.layer_scope(graph):
            operator = self.operator(graph)
            x = operator(self.site("message", 0), x, times=1 - self.alpha)
            x_0 = (x_0 if x_0.size(0) == x.size(0) else x_0[: x.size(0)]) * self.alpha
            if self.shared_weights:
                out = self._mapped("input", "weight1", x + x_0)
            else:
                first = self._mapped("input", "weight1", x)
                out = first + self._mapped("initial", "weight2", x_0)
            return requantize(self.output, out)

    def _mapped(self, site: str, name: str, x: Tensor) -> Tensor:
        quantizer = getattr(self, f"quantized_{name}")
        if not isinstance(quantizer, PackedWeight):
            quantizer = quantizer(getattr(self, name).t())
        product = linear(quantize_rows(getattr(self, site), x), quantizer, None)
        return x * (1.0 - self.beta) + product * self.beta

    def freeze(self) -> None:
        super().freeze()
        for _, name in self._products():
            weight, quantizer = getattr(self, name), getattr(self, f"quantized_{name}")
            if not isinstance(quantizer, WeightQuantizer):
                continue
            packed = quantizer.freeze(weight.t().contiguous())
            setattr(self, f"quantized_{name}", packed)
            setattr(self, name, None)

    def required_sites(self) -> set[str]:
        names = super().required_sites()
        return names - {"initial", "quantized_weight2"} if self.shared_weights else names

    def check_loaded(self) -> None:
        for _, weight in self._products():
            found = getattr(self, f"quantized_{weight}")
            check_weight(found, (self.channels, self.channels), weight)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.channels}, alpha={self.alpha}, beta={self.beta:.3f}"
