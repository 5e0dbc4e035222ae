"""Degree-Quant (Tailor, Fernandez-Marques and Lane, ICLR 2021): protect the rows that break ranges.

High in-degree makes large sums, which widen a shared range and spoil gradients. In every training
step and layer, each node stays in float with a probability that grows with the rank of its
in-degree, and the observers see only the other rows. In evaluation everything is quantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.core.observer import PercentileObserver
from nodebits.core.options import Choices
from nodebits.graph import Graph, protection_probability
from nodebits.methods.base import QuantConfig, raw_features_quantizer, register_method
from nodebits.models.fit_config import FitConfig
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
from nodebits.tasks import Level

# Learning rate and decay for REDDIT-BINARY, by bits; the rate matters more than all else there.
_PUBLISHED_RATES = {8: (0.005, 2e-4), 4: (0.001, 4e-5)}


@dataclass(frozen=True)
class DegreeProtection:
    """Draws ``m_i ~ Bernoulli(p_i)``; p grows with the rank of the in-degree."""

    p_min: float
    p_max: float

    def draw(self, graph: Graph, batch: Tensor | None) -> Tensor | None:
        """Protected sources, bool ``[num_src]``; None for bipartite graphs (no in-degree)."""
        if graph.num_src != graph.num_dst:
            return None
        if batch is not None and batch.numel() != graph.num_src:
            batch = None  # another graph than the batch's, such as a pooled one: rank over all

        def make() -> Tensor:
            return protection_probability(graph.degree, self.p_min, self.p_max, batch)

        key = ("protection", self.p_min, self.p_max)
        probability: Tensor
        if batch is None:
            probability = graph.cached(key, make)
        else:
            probability = graph.cached_for(batch, key, make)
        return torch.rand_like(probability) < probability


@register_method("degree-quant")
@dataclass(frozen=True)
class DegreeQuantConfig(QuantConfig):
    """Stochastic protection by in-degree, percentile ranges, clipped gradients.

    The **default** preset keeps protection, percentile ranges and gradient clipping, and adds what
    makes them deployable: weight scales per output channel, message ranges per column that follow a
    moving average of the percentiles, and a scale per row for wide raw features (such rows share no
    range, so they need no protection).

    The **published** preset is the paper's recipe: one range per tensor at every site, running
    extremes of the percentiles, gradients zero at the end codes too, results quantized again at
    ``output`` sites. Two things differ because they could not be executed as integers: messages are
    quantized once per source node (with the source's share of the normalisation) instead of once
    per edge, and weights are symmetric.

    Attributes:
        p_min: Protection probability of the lowest degrees; None for the published 0.0 (8 bits) or
            0.1 (below).
        p_max: Of the highest; None for 0.1 or 0.2.
        percentile: Share of values cut per side; None for 0.001 (8 bits) or 0.01 (below).
        ranges: learned (scales trained by gradient, initialised on unprotected rows) or percentile.
        momentum: Moving average of percentile ranges in the default preset.
        protect_mlp: Whether linears inside a convolution (GIN's MLP) follow its mask; the paper's
            do not.
    """

    spares = True

    p_min: float | None = None
    p_max: float | None = None
    percentile: float | None = None
    ranges: Annotated[str, Choices("learned", "percentile")] = "learned"
    momentum: float = 0.05
    protect_mlp: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.probabilities
        if not 0.0 <= low <= high <= 1.0:
            raise ConfigError(f"p_min={low}, p_max={high}: need 0 <= p_min <= p_max <= 1")

    @property
    def probabilities(self) -> tuple[float, float]:
        """``(p_min, p_max)`` with the published values filled in."""
        low, high = (0.0, 0.1) if self.bits >= 8 else (0.1, 0.2)
        return (
            low if self.p_min is None else self.p_min,
            high if self.p_max is None else self.p_max,
        )

    def published_fit(self, fit: FitConfig, level: Level) -> FitConfig:
        fit = super().published_fit(fit, level)
        if not level.many_graphs or self.bits not in _PUBLISHED_RATES:
            return fit
        lr, weight_decay = _PUBLISHED_RATES[self.bits]
        return fit.replace(lr=lr, weight_decay=weight_decay)

    def protection(self) -> DegreeProtection:
        return DegreeProtection(*self.probabilities)

    def _percentile(self, bits: int) -> float:
        if self.percentile is not None:
            return self.percentile
        return 0.001 if bits >= 8 else 0.01

    def _protectable(self, site: SiteInfo) -> bool:
        inside_mlp = ".nn." in f".{site.layer}."
        return site.kind in ("input", "message", "output") and (self.protect_mlp or not inside_mlp)

    def quantizer(self, site: SiteInfo, bits: int) -> Quantizer:
        protectable = self._protectable(site)
        if self.preset == "published":
            return ObservedQuantizer(
                bits,
                PercentileObserver(self._percentile(bits)),
                gradient=Gradient.STRICT,
                protectable=protectable,
            )
        raw = raw_features_quantizer(site, bits)
        if raw is not None:
            return raw
        by_column = site.kind == "message" and site.num_cols > 0
        if self.ranges == "learned":
            return LearnedQuantizer(
                bits,
                site.num_cols if by_column else None,
                centered=bits <= 2,
                protectable=protectable,
            )
        return ObservedQuantizer(
            bits,
            PercentileObserver(
                self._percentile(bits), axis=1 if by_column else -1, momentum=self.momentum
            ),
            protectable=protectable,
        )

    def weight_quantizer(self, site: SiteInfo, bits: int) -> WeightQuantizer:
        if self.preset == "published":
            return ObservedWeightQuantizer(
                bits, PercentileObserver(self._percentile(bits)), gradient=Gradient.STRICT
            )
        return LearnedWeightQuantizer(bits, site.num_channels, midrise=bits <= 2)
