"""A linear map whose columns are taken apart: products of its parts, in place of one of them all.

The parameter stays that of the float layer; what becomes codes are its parts, each with a scale per
output channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from nodebits.core.errors import UnsupportedLayerError
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.decoded import weight_values
from nodebits.nn.functional import check_product
from nodebits.nn.layer import QuantLayer, stand_in
from nodebits.nn.linear import QuantLinear, check_weight
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer

S = TypeVar("S", bound="QuantSplitLinear")


class QuantSplitLinear(QuantLinear):
    """Base of linear maps in parts."""

    def parts(self) -> dict[str, int]:
        """Columns of every part by the name of its weight site."""
        raise NotImplementedError

    def split(self, weight: Tensor) -> Sequence[Tensor]:
        """The float parts of a weight ``[M, K]``, in the order of :meth:`parts`."""
        raise NotImplementedError

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The weight whose parts these are."""
        raise NotImplementedError

    @classmethod
    def of(cls: type[S], module: Any, path: str, place: Placement, **options: Any) -> S:
        """The successor of a linear map.

        Args:
            module: It, float or with sites.
            path: Its path.
            place: Gives the quantizers.
            **options: Of the class, see there.
        """
        kind = module.float_type if isinstance(module, QuantLayer) else type(module)
        made: Any = stand_in(cls, kind)
        layer: S = made()
        layer._take(module)
        weight: Any = module._parameters["weight"]
        layer.out_channels, layer.in_channels = weight.shape
        layer.layer_name = path
        for name, value in options.items():
            setattr(layer, name, value)
        layer.place_quantizers(place, path)
        for child in layer.children():
            child.train(module.training)
        return layer

    def place_input(
        self, place: Placement, path: str, name: str, num_cols: int, computed: bool = False
    ) -> Any:
        """A site of rows; ``computed`` as in :class:`SiteInfo`."""
        info = SiteInfo(path, "Linear", "input", name, num_cols, computed=computed)
        return place.activation(info)

    def place_weights(
        self, place: Placement, path: str, inputs: Sequence[Quantizer | RowQuantizer]
    ) -> None:
        """The sites of all parts.

        Args:
            place: Gives the quantizers.
            path: Of the layer.
            inputs: The site whose rows each part reads.
        """
        for (name, width), rows in zip(self.parts().items(), inputs, strict=True):
            shown = "weight" if name == "quantized_weight" else name
            site = place.weight(SiteInfo(path, "Linear", "weight", shown, width, self.out_channels))
            setattr(self, name, site)
            check_product(rows, site, width, path)
        # What the parts make is added first, elsewhere: it is no result to be rounded again.
        self.output = FloatQuantizer()

    def __getattr__(self, name: str) -> Any:
        known = name == "weight" and all(part in self._modules for part in self.parts())
        if not known or self._unseen():
            return nn.Module.__getattr__(self, name)
        weight = self._parameters["weight"]
        floats = [None] * len(self.parts()) if weight is None else self.split(weight)
        sites: list[Any] = [self._modules[part] for part in self.parts()]
        decoded = [
            weight_values(site, part, self.described)
            for site, part in zip(sites, floats, strict=True)
        ]
        return self.joined(decoded)

    def weights(self) -> list[Any]:
        """Codes of all parts, in training or packed."""
        sites: list[Any] = [self._modules[part] for part in self.parts()]
        if any(isinstance(site, PackedWeight) for site in sites):
            return sites
        weight: Any = self._parameters["weight"]
        return [site(part) for site, part in zip(sites, self.split(weight), strict=True)]

    def freeze(self) -> None:
        QuantLayer.freeze(self)
        sites = {part: self._modules[part] for part in self.parts()}
        if any(isinstance(site, PackedWeight) for site in sites.values()):
            return
        weight = self._parameters["weight"]
        if weight is None:
            raise UnsupportedLayerError("a linear layer without weights cannot be converted")
        self.weight = None
        for (name, site), part in zip(sites.items(), self.split(weight), strict=True):
            assert isinstance(site, WeightQuantizer)
            setattr(self, name, site.freeze(part.contiguous()))

    def check_loaded(self) -> None:
        for name, width in self.parts().items():
            check_weight(self._modules.get(name), (self.out_channels, width), name)


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
