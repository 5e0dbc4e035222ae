"""SMP's quantizer (Wang et al., CIKM 2023): ranges that are a factor of the running extremes.

The propagation itself is APPNP, or with its constraint a layer of ``examples/nodebits-smoothness``;
this method says how its steps, or any other layer, are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodebits.core.errors import ConfigError
from nodebits.core.learned_range import SNAPS
from nodebits.core.observer import MinMaxObserver
from nodebits.methods.base import QuantConfig, raw_features_quantizer, register_method
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import (
    LearnedQuantizer,
    LearnedRangeQuantizer,
    LearnedWeightQuantizer,
    ObservedWeightQuantizer,
    Quantizer,
    WeightQuantizer,
)

RANGES = ("scale", "learned", "grid", "minmax")


@register_method("smp")
@dataclass(frozen=True)
class SMPConfig(QuantConfig):
    """Learned ranges at activations, one factor per quantizer.

    The **default** preset has message ranges per column, levels around the mean at one and two
    bits, and learned scales per output channel for weights, as the other methods. The **published**
    preset has one affine range per tensor everywhere, with the extremes of the last batch, weights
    by their own extremes.

    Attributes:
        ranges: ``"learned"``: a learned factor of the running extremes, as in the paper. ``"grid"``
            keeps the factor of the initial grid; ``"minmax"`` is the range itself, factor 1.
            ``"scale"`` learns the scale itself, independent of the extremes (LSQ); the snaps and
            the published preset have no such form and learn the factor. None is what validation
            prefers (docs/deep.md): ``"grid"``, with a snap ``"learned"``, otherwise at one and two
            bits ``"scale"``; in the published preset ``"learned"``.
        snap: 2-bit activations cut from 8-bit codes: ``"none"``, ``"bt"``, ``"bt_skew"``. None is
            ``"bt"`` where ``ranges`` is left at its default, since validation prefers it at 2 bits
            (docs/deep.md), and ``"none"`` elsewhere and in the published preset.
        momentum: Weight of a new batch in the running extremes; None for 0.1, or the published 1.
    """

    ranges: str | None = None
    snap: str | None = None
    momentum: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("ranges", (None, *RANGES)), ("snap", (None, *SNAPS))):
            if getattr(self, name) not in choices:
                known = ", ".join(filter(None, choices))
                raise ConfigError(f"{name} is {getattr(self, name)!r}: use one of {known}")
        if self.momentum is not None and not 0.0 < self.momentum <= 1.0:
            raise ConfigError(f"momentum is {self.momentum}: it is a share, in (0, 1]")

    def quantizer(self, site: SiteInfo, bits: int) -> Quantizer:
        published = self.preset == "published"
        raw = None if published else raw_features_quantizer(site, bits)
        if raw is not None:
            return raw
        snap = self._snap() if bits == 2 else "none"
        ranges = self._ranges(bits, snap)
        by_column = site.kind == "message" and site.num_cols > 0 and not published
        if ranges == "scale" and snap == "none" and not published:
            return LearnedQuantizer(
                bits, site.num_cols if by_column else None, centered=bits <= 2, error="mae"
            )
        centered = by_column and bits <= 2 and snap == "none"
        momentum = self.momentum or (1.0 if published else 0.1)
        return LearnedRangeQuantizer(
            bits,
            site.num_cols if by_column else None,
            form="centered" if centered else "affine",
            learn=ranges in ("learned", "scale"),
            grid=ranges != "minmax",
            momentum=momentum,
            snap=snap,
        )

    def _snap(self) -> str:
        if self.snap is not None:
            return self.snap
        return "bt" if self.preset == "default" and self.ranges is None else "none"

    def _ranges(self, bits: int, snap: str) -> str:
        if self.ranges is not None:
            return self.ranges
        if self.preset == "published" or snap != "none":
            return "learned"
        return "grid" if bits > 2 else "scale"

    def weight_quantizer(self, site: SiteInfo, bits: int) -> WeightQuantizer:
        if self.preset == "published":
            return ObservedWeightQuantizer(bits, MinMaxObserver(momentum=1.0))
        return LearnedWeightQuantizer(bits, site.num_channels, midrise=bits <= 2)
