"""SGQuant (Feng et al., ICTAI 2020): widths by component, degree and layer.

Component-wise (CWQ): features and attention have widths of their own (``input_bits``,
``message_bits``, ``attention_bits``). Layer-wise (LWQ): layers have (``overrides`` by layer).
Topology-aware (TAQ): nodes have, by in-degree (``degree_bits``, or a list of widths as an
override). All combine. Facts and differences: ``docs/sgquant.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from nodebits.core.errors import ConfigError
from nodebits.core.observer import GridObserver, MeanRowObserver
from nodebits.core.options import Choices
from nodebits.engine.buckets import check_splits
from nodebits.methods.base import (
    RAW_MIN_COLUMNS,
    QuantConfig,
    raw_features_quantizer,
    register_method,
)
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import (
    LearnedQuantizer,
    LearnedWeightQuantizer,
    ObservedWeightQuantizer,
    Quantizer,
    WeightQuantizer,
)
from nodebits.nn.quantizers.degree_bucket import (
    DegreeBucketDynamicQuantizer,
    DegreeBucketQuantizer,
)
from nodebits.nn.quantizers.degree_bucket_message import DegreeBucketMessageQuantizer
from nodebits.nn.quantizers.floor import FloorQuantizer

# SGQuant's split points are not known; these put about a quarter of the nodes of a citation graph
# in each of the lower buckets.
DEFAULT_SPLITS = (4, 8, 16)
_BUCKETED_SITES = ("input", "message", "output")


@register_method("sgquant")
@dataclass(frozen=True)
class SGQuantConfig(QuantConfig):
    """A bit table by site, layer and degree bucket.

    The **default** preset is deployable: weights are quantized, scales are learned (initialised by
    an error grid), per column for messages and per bucket or per raw row for inputs.

    The **published** preset is the paper's quantizer: weights in float, one range per tensor from
    the mean of the row extremes, flooring, gradients straight through. Two things differ because
    they could not be executed as integers: attention is normalised by the integer sum of its codes,
    and messages of different buckets share a scale times powers of two.

    Attributes:
        mode: Train (qat) or calibrate only (ptq).
        splits: In-degrees at which degree buckets begin, but for the first, which begins at 0.
        degree_bits: Width per degree bucket at every ``input`` and ``message`` site that no
            override names; None for the same width for all nodes.
        overrides: As in :class:`QuantConfig`; a list gives a width per degree bucket, lowest
            degrees first.
    """

    mode: Annotated[str, Choices("qat", "ptq")] = "qat"
    splits: tuple[int, ...] = DEFAULT_SPLITS
    degree_bits: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("splits", "degree_bits"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        if self.degree_bits is not None:
            check_splits(self.splits, self.degree_bits, "degree_bits")

    def check_override(self, pattern: str, value: int | Sequence[int]) -> None:
        """See :meth:`QuantConfig.check_override`; a list is a width per bucket."""
        if isinstance(value, int):
            super().check_override(pattern, value)
        else:
            check_splits(self.splits, value, f"overrides[{pattern!r}]")

    def bits_at(self, site: SiteInfo) -> int | None:
        """See :meth:`QuantConfig.bits_at`; the largest of a list. Published weights are float."""
        widths = self.widths_at(site)
        if widths is not None:
            return max(widths)
        bits = super().bits_at(site)
        weight, is_attention = site.kind == "weight", site.name.startswith("att_weight")
        if self.preset == "published" and weight and self._override(site) is None:
            return None if is_attention or self.weight_bits is None else bits
        return bits

    def widths_at(self, site: SiteInfo) -> tuple[int, ...] | None:
        """Width per degree bucket at a site, None where all nodes have the same."""
        if site.optional or site.pairs:
            return None
        value = self._override(site)
        if value is None and site.kind in ("input", "message"):
            return self.degree_bits
        if value is None or isinstance(value, int):
            return None
        if site.kind not in _BUCKETED_SITES:
            raise ConfigError(
                f"{site.path} is a {site.kind} site: widths per degree bucket are for the rows of "
                f"nodes ({', '.join(_BUCKETED_SITES)})"
            )
        return tuple(value)

    def _override(self, site: SiteInfo) -> int | Sequence[int] | None:
        found = None
        for pattern, value in self.overrides.items():
            if fnmatchcase(site.path, pattern):
                found = value
        return found

    def activation(self, site: SiteInfo) -> Quantizer:
        widths = self.widths_at(site)
        if widths is None:
            return super().activation(site)
        if site.kind == "message":
            columns = site.num_cols if site.num_cols > 0 else None
            return DegreeBucketMessageQuantizer(self.splits, widths, columns, site.path)
        if self.preset == "published" or (
            site.kind == "input" and site.num_cols >= RAW_MIN_COLUMNS
        ):
            # The paper's range is each node's own.
            return DegreeBucketDynamicQuantizer(self.splits, widths, site.path)
        return DegreeBucketQuantizer(self.splits, widths, site.path)

    def quantizer(self, site: SiteInfo, bits: int) -> Quantizer:
        if self.preset == "published":
            return FloorQuantizer(bits, MeanRowObserver())
        raw = raw_features_quantizer(site, bits)
        if raw is not None:
            return raw
        by_column = site.kind == "message" and site.num_cols > 0
        return LearnedQuantizer(bits, site.num_cols if by_column else None, centered=bits <= 2)

    def weight_quantizer(self, site: SiteInfo, bits: int) -> WeightQuantizer:
        if self.mode == "ptq" or self.preset == "published":
            return ObservedWeightQuantizer(bits, GridObserver(bits, axis=0), midrise=bits <= 2)
        return LearnedWeightQuantizer(bits, site.num_channels, midrise=bits <= 2)


__all__ = ["DEFAULT_SPLITS", "SGQuantConfig"]
