"""Uniform quantization: post-training, quantization-aware, and with quantization noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nodebits.core.errors import ConfigError
from nodebits.core.observer import GridObserver, MinMaxObserver, SymmetricGridObserver
from nodebits.core.options import Choices
from nodebits.methods.base import QuantConfig, raw_features_quantizer, register_method
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import (
    LearnedQuantizer,
    LearnedWeightQuantizer,
    ObservedQuantizer,
    ObservedWeightQuantizer,
    Quantizer,
    WeightQuantizer,
)
from nodebits.ops.autograd import Gradient


@register_method("uniform")
@dataclass(frozen=True)
class UniformConfig(QuantConfig):
    """One width everywhere, or one per kind of site.

    ``mode="qat"`` (and ``"nqat"``) learns scales with the weights (LSQ, initialised by an MSE
    grid): per output channel for weights, per column for messages, per tensor for hidden inputs.
    Raw features bring a scale per row. At one and two bits weights are midrise and messages
    centered: no level is wasted on zero. ``mode="ptq"`` takes ranges from an MSE grid during
    ``calibrate``. The published preset is the baseline of the Degree-Quant paper: one range per
    tensor, moving average of the extremes, straight-through everywhere.

    Attributes:
        mode: Train (qat, nqat) or calibrate only (ptq).
        noise: Share of weights rounded in a training step of nQAT, in (0, 1]; published: 0.5 to
            0.95.
    """

    spares = True

    mode: Annotated[str, Choices("qat", "ptq", "nqat")] = "qat"
    noise: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.noise <= 1.0:
            raise ConfigError(f"noise is {self.noise}: the share of rounded weights is in (0, 1]")

    @property
    def trains(self) -> bool:
        return self.mode != "ptq"

    @property
    def _keep_share(self) -> float:
        return 1.0 - self.noise if self.mode == "nqat" else 0.0

    def quantizer(self, site: SiteInfo, bits: int) -> Quantizer:
        if self.preset == "published":
            return ObservedQuantizer(bits, MinMaxObserver(momentum=0.01), gradient=Gradient.PASS)
        raw = raw_features_quantizer(site, bits)
        if raw is not None:
            return raw
        if self.mode == "ptq":
            columns = site.kind == "message" and site.num_cols != 0
            observer = GridObserver(bits, axis=1 if columns else -1, tails=True)
            return ObservedQuantizer(bits, observer)
        by_column = site.kind == "message" and site.num_cols > 0
        return LearnedQuantizer(bits, site.num_cols if by_column else None, centered=bits <= 2)

    def weight_quantizer(self, site: SiteInfo, bits: int) -> WeightQuantizer:
        keep = self._keep_share
        if self.preset == "published":
            return ObservedWeightQuantizer(
                bits, MinMaxObserver(momentum=0.01), gradient=Gradient.PASS, keep_share=keep
            )
        if self.mode == "ptq":
            if bits <= 2:
                return ObservedWeightQuantizer(bits, GridObserver(bits, axis=0), midrise=True)
            return ObservedWeightQuantizer(bits, SymmetricGridObserver(bits, axis=0))
        return LearnedWeightQuantizer(bits, site.num_channels, midrise=bits <= 2, keep_share=keep)
