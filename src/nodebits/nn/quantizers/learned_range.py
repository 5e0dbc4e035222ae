"""A quantizer whose range is a learned factor of the running extremes (SMP's QLR, done right)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodebits.core.affine import Codes, check_bits
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
from nodebits.core.observer import check_finite
from nodebits.nn.quantizers.base import Quantizer, drop_rows, keep_float
from nodebits.nn.quantizers.rows import RowQuantizer, ShiftedRows, StaticRows
from nodebits.ops.autograd import FakeQuantize, ScaleGradient

MIN_FACTOR = 1e-3


class LearnedRangeQuantizer(Quantizer):
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

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        if self.axis == -1:
            now = (x.amin().view(1), x.amax().view(1), x.mean().view(1))
        else:
            now = (x.amin(0), x.amax(0), x.mean(0))
        if not bool(self.initialized):
            check_finite(x, "a tensor to be quantized")
            for buffer, value in zip((self.low, self.high, self.mean), now, strict=True):
                buffer.copy_(value)
            if self.snap == "bt_skew":
                self.shift.copy_(torch.round(skewness(x)) / SNAP_STEP)
            if self.grid:
                self.factor.copy_(initial_factor(x, self.bits, self.axis, self.form, self.snap))
            self.initialized.fill_(True)
            return
        for buffer, value in zip((self.low, self.high, self.mean), now, strict=True):
            buffer.lerp_(value, self.momentum)

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
        factor = self.factor.abs().clamp_min(MIN_FACTOR)
        bits = 8 if self.snap != "none" else self.bits
        # Clones: the running values move on before the gradient is taken.
        low, high, mean = self.low.clone(), self.high.clone(), self.mean.clone()
        scale, zero_point = factor_qparams(factor, low, high, mean, bits, self.form)
        return (scale, zero_point) if self.snap == "none" else snap_qparams(scale, zero_point)

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`."""
        rows = self.protected_rows(x)
        if self.observing:
            self._observe(drop_rows(x.detach(), rows))
        scale, zero_point = self.qparams()
        if self.training and scale.requires_grad:
            count = max(x.numel() // scale.numel(), 1)
            weight = (count * ((1 << self.bits) - 1)) ** -0.5
            scale = ScaleGradient.apply(scale, weight)
            if zero_point.requires_grad:
                zero_point = ScaleGradient.apply(zero_point, weight)
        made_with = zero_point + self.shift if self.snap == "bt_skew" else zero_point
        codes: Tensor = FakeQuantize.apply(x, scale, made_with, self.axis, self.bits, 0)
        if rows is not None:
            codes = keep_float(codes, x, scale, zero_point, rows)
        return Codes(codes, scale, zero_point, self.bits)

    @torch.no_grad()
    def freeze(self) -> RowQuantizer:
        """See :meth:`Quantizer.freeze`."""
        scale, zero_point = self.qparams()
        if self.snap == "bt_skew":
            return ShiftedRows(scale, zero_point, self.bits, self.shift)
        return StaticRows(scale, zero_point, self.bits)

    def reset(self) -> None:
        """See :meth:`Quantizer.reset`."""
        self.initialized.fill_(False)
        with torch.no_grad():
            self.factor.fill_(1.0)
