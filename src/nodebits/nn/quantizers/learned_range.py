"""A quantizer whose range is a learned factor of the running extremes (SMP's QLR, done right)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodebits.core.affine import check_bits, max_code
from nodebits.core.errors import ConfigError, NotCalibratedError
from nodebits.core.learned_range import (
    FORMS,
    SNAP_STEP,
    SNAPS,
    factor_qparams,
    initial_factor,
    skewness,
    snap_qparams,
)
from nodebits.core.observer import new_sides
from nodebits.nn.quantizers.ranged import RangeQuantizer
from nodebits.nn.quantizers.rows import RowQuantizer, ShiftedRows, StaticRows
from nodebits.ops.autograd import FakeQuantize, ScaleGradient

MIN_FACTOR = 1e-3


class LearnedRangeQuantizer(RangeQuantizer):
    """``range = factor * [low, high]``; the extremes follow the data, the factor the gradient.

    Every quantizer has its own factor, set by a grid of least mean absolute error on the first
    batch. Its gradient is that of the dequantized values (:mod:`nodebits.core.learned_range`),
    multiplied by ``1 / sqrt(n (2^b - 1))`` as LSQ does.

    Args:
        bits: 1 to 8; 2 where ``snap`` is set.
        num_columns: C for one range per column, None for one per tensor.
        form: ``"affine"`` or ``"centered"`` (levels around the running mean).
        learn: Whether the factor is trained; False keeps what the grid found.
        grid: Whether the factor starts at the grid's optimum; False starts at 1, the extremes.
        momentum: Weight of a new batch in the running extremes; 1 takes those of the batch alone.
        snap: ``"none"``, ``"bt"`` or ``"bt_skew"``: 8-bit codes cut to four levels.
        protectable: See :class:`Quantizer`.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    shift: Tensor
    initialized: Tensor

    def __init__(
        self,
        bits: int,
        num_columns: int | None = None,
        *,
        form: str = "affine",
        learn: bool = True,
        grid: bool = True,
        momentum: float = 0.1,
        snap: str = "none",
        protectable: bool = False,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigError(f"range form is {form!r}: use one of {', '.join(FORMS)}")
        if snap not in SNAPS:
            raise ConfigError(f"snap is {snap!r}: use one of {', '.join(SNAPS)}")
        if snap != "none" and (bits != 2 or form != "affine"):
            raise ConfigError(
                f"snap={snap!r} cuts affine 8-bit codes to 2 bits, got {bits} bits and a {form} "
                "range"
            )
        if not 0.0 < momentum <= 1.0:
            raise ConfigError(f"momentum is {momentum}: it is a share, in (0, 1]")
        self.bits: int = check_bits(bits)
        self.axis = -1 if num_columns is None else 1
        self.form, self.grid, self.momentum, self.snap = form, grid, momentum, snap
        self.protectable = protectable
        size = num_columns or 1
        self.factor = nn.Parameter(torch.ones(size), requires_grad=learn)
        for name in ("low", "high", "mean", "shift"):
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    @property
    def known(self) -> bool:
        return bool(self.initialized)

    @property
    def _learned(self) -> list[Tensor]:
        return []  # running extremes follow every batch

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        self._start(x, torch.ones_like(self.low, dtype=torch.bool))
        self.initialized.fill_(True)

    @torch.no_grad()
    def follow(self, x: Tensor) -> None:
        """See :meth:`Quantizer.follow`: extremes move by ``momentum``.

        A range that has seen one value only starts now, and its factor with it. One that has seen
        nothing on a side of zero takes that side as it is.
        """
        now = self._measure(x)
        fresh = (self.low == self.high) & (now[0] < now[1])
        below, above = new_sides(self.low, self.high, now[0], now[1])
        which = (below, above, below | above)
        for buffer, value, new in zip((self.low, self.high, self.mean), now, which, strict=True):
            buffer.copy_(torch.where(new, value, buffer.lerp(value, self.momentum)))
        if bool(fresh.any()):
            self._start(x, fresh)

    @torch.no_grad()
    def widen(self, x: Tensor) -> None:
        """See :meth:`Quantizer.widen`: to the extremes of both."""
        low, high, mean = self._measure(x)
        self.mean.lerp_(mean, self.momentum)
        self.low.copy_(torch.minimum(self.low, low))
        self.high.copy_(torch.maximum(self.high, high))

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.axis == 1:
            return x.amin(0), x.amax(0), x.mean(0)
        return x.amin().view(1), x.amax().view(1), x.mean().view(1)

    def _start(self, x: Tensor, which: Tensor) -> None:
        """Range and factor of the given scales from ``x`` alone."""
        for buffer, value in zip((self.low, self.high, self.mean), self._measure(x), strict=True):
            buffer.copy_(torch.where(which, value, buffer))
        if self.snap == "bt_skew":
            skew = torch.round(skewness(x)) / SNAP_STEP
            self.shift.copy_(torch.where(which, skew, self.shift))
        if self.grid:
            factor = initial_factor(x, self.bits, 1 if self.axis == 1 else -1, self.form, self.snap)
            self.factor.copy_(torch.where(which, factor, self.factor))

    def qparams(self) -> tuple[Tensor, Tensor]:
        """``(scale, zero_point)`` of the codes, with the factor's gradient.

        Raises:
            NotCalibratedError: Before the first batch.
        """
        if not bool(self.initialized):
            raise NotCalibratedError(
                "a learned range has seen no data: train the prepared model or call "
                "nodebits.calibrate(model, x, edge_index) before evaluating or converting it"
            )
        bits = 8 if self.snap != "none" else self.bits
        # Clones: the values move on before the gradient is taken.
        factor = self.factor.clone().abs().clamp_min(MIN_FACTOR)
        low, high, mean = self.low.clone(), self.high.clone(), self.mean.clone()
        scale, zero_point = factor_qparams(factor, low, high, mean, bits, self.form)
        return (scale, zero_point) if self.snap == "none" else snap_qparams(scale, zero_point)

    def step_size(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`RangeQuantizer.step_size`: LSQ's gradients, for the factor."""
        if not scale.requires_grad:
            return scale, zero_point
        count = max(x.numel() // scale.numel(), 1)
        weight = (count * max_code(self.bits)) ** -0.5
        scale = ScaleGradient.apply(scale, weight)
        if zero_point.requires_grad:
            zero_point = ScaleGradient.apply(zero_point, weight)
        return scale, zero_point

    def round(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        made_with = zero_point + self.shift if self.snap == "bt_skew" else zero_point
        codes: Tensor = FakeQuantize.apply(x, scale, made_with, self.axis, self.bits, 0)
        return codes

    @torch.no_grad()
    def frozen(self) -> RowQuantizer:
        scale, zero_point = self.qparams()
        if self.snap == "bt_skew":
            return ShiftedRows(scale, zero_point, self.bits, self.shift)
        return StaticRows(scale, zero_point, self.bits)

    def reset(self) -> None:
        super().reset()
        self.initialized.fill_(False)
        with torch.no_grad():
            self.factor.fill_(1.0)
