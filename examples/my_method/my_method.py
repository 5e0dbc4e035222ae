"""A method: the layers that come first get more bits, since all others read what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nodebits.core.options import Range
from nodebits.methods import UniformConfig, register_method
from nodebits.nn.placement import SiteInfo


@register_method("first-wide")
@dataclass(frozen=True)
class FirstWideConfig(UniformConfig):
    """Uniform quantization with a wider first layer.

    Attributes:
        first_factor: Width of the first layer as a multiple of ``bits``, at most 8 bits.
    """

    first_factor: Annotated[float, Range(1, 8)] = 2.0

    def bits_at(self, site: SiteInfo) -> int | None:
        """Width at a site, None for float."""
        bits = super().bits_at(site)
        first = ".0." in f".{site.layer}."
        return min(8, round(bits * self.first_factor)) if bits is not None and first else bits
