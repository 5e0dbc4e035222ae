"""A method: uniform quantization whose weights have a share of the width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nodebits.core.options import Range
from nodebits.methods import UniformConfig, register_method
from nodebits.nn.placement import SiteInfo


@register_method("half-weights")
@dataclass(frozen=True)
class HalfWeightsConfig(UniformConfig):
    """Weights of a share of the width, all else as in the uniform method.

    Attributes:
        weight_share: Width of weights as a share of ``bits``, rounded up.
    """

    weight_share: Annotated[float, Range(0, 1)] = 0.5

    def bits_at(self, site: SiteInfo) -> int | None:
        """Width at a site, None for float."""
        bits = super().bits_at(site)
        if bits is None or site.kind != "weight":
            return bits
        return max(1, -int(-bits * self.weight_share // 1))
