"""A quantizer whose scale (and zero point) is trained with the weights: learned step size, LSQ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.affine import MIN_SCALE, Codes, check_bits, max_code, quantize
from nodebits.core.errors import ConfigError, NotCalibratedError
from nodebits.core.grid import grid_qparams
from nodebits.engine.sites import RowQuantizer, StaticRows
from nodebits.nn.quantizers.ranged import RangeQuantizer
from nodebits.ops.autograd import FakeQuantize, Gradient, ScaleGradient
from nodebits.ops.learned import LearnedCodes


class LearnedQuantizer(RangeQuantizer):
    """Learned scale per tensor or column, initialised by a grid on the first batch.

    The gradient of the scale is LSQ's, multiplied by ``1 / sqrt(n * qmax)`` with n the values per
    scale (Esser et al. 2020, section 2.2). Without negative values the codes are unsigned (zero
    point 0) until there are some.

    Args:
        bits: 1 to 8.
        num_columns: C for one scale per column, None for one per tensor.
        centered: Learn the zero point too, starting with levels evenly around the mean; else
            symmetric.
        error: Error of the initial grid, ``"mse"`` or ``"mae"``.
        gradient: What values outside the range receive.
        protectable: See :class:`Quantizer`.
    """

    initialized: Tensor
    zero_point: Tensor
    one_sided: Tensor
    waiting: Tensor

    def __init__(
        self,
        bits: int,
        num_columns: int | None = None,
        *,
        centered: bool = False,
        error: str = "mse",
        gradient: Gradient = Gradient.CLIP,
        protectable: bool = False,
    ) -> None:
        super().__init__()
        if gradient is Gradient.PASS:
            raise ConfigError(
                "a learned scale needs a clipped gradient: use Gradient.CLIP or STRICT"
            )
        self.bits: int = check_bits(bits)
        self.axis = -1 if num_columns is None else 1
        self.centered, self.error = centered, error
        self.gradient = gradient
        self.protectable = protectable
        size = num_columns or 1
        self.scale = nn.Parameter(torch.ones(size))
        if centered:
            self.zero_point = nn.Parameter(torch.zeros(size))
        else:
            self.register_buffer("zero_point", torch.zeros(size))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        # By scale: whether it is one of values from 0 on; whether it has seen a single value only.
        self.register_buffer("one_sided", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("waiting", torch.zeros(size, dtype=torch.bool))

    @property
    def known(self) -> bool:
        return bool(self.initialized)

    @property
    def settled(self) -> bool:
        return not bool((self.waiting | self.one_sided).any())

    def fits(self, x: Tensor) -> bool:
        if bool(self.waiting.any()):
            return False
        return not bool(self.one_sided.any()) or bool(x.detach().min() >= 0)

    def codes_of(self, x: Tensor, rows: Tensor | None) -> Codes:
        if not self.training or self.centered or torch.compiler.is_compiling():
            return super().codes_of(x, rows)
        if not bool(self.initialized):
            self.qparams()  # says so
        zero_point = self.zero_point.clone()
        codes, scale = LearnedCodes.apply(
            x, self.scale, zero_point, rows, self.axis, self.bits, int(self.gradient)
        )
        return Codes(codes, scale, zero_point, self.bits)

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        """See :meth:`Quantizer.estimate`: by a grid; unsigned without negative values."""
        self.one_sided.fill_(bool((x >= 0).all()))
        scale, zero_point = self._grid(x, self.one_sided)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        low, high = self._extremes(x)
        self.waiting.copy_(low == high)
        self.initialized.fill_(True)

    @torch.no_grad()
    def follow(self, x: Tensor) -> None:
        """See :meth:`Quantizer.follow`: what the first batch could not tell is made up for.

        A scale that has seen one value only starts now. One for positive values becomes one for
        both signs when negative values come: the range grows by them, and keeps what it covered.
        """
        if self.settled:
            return
        low, high = self._extremes(x)
        fresh = self.waiting & (low < high)
        if bool(fresh.any()):
            if bool(fresh.all()):
                self.estimate(x)
                return
            one_sided = torch.where(fresh, self.one_sided & (low >= 0), self.one_sided)
            self._take(fresh, *self._grid(x, one_sided))
            self.one_sided.copy_(one_sided)
            self.waiting.logical_and_(~fresh)
        negative = self.one_sided & (low < 0)
        if bool(negative.any()):
            scale, zero_point = self.scale.abs(), self.zero_point
            top = (max_code(self.bits) - zero_point) * scale
            self.one_sided.logical_and_(~negative)
            self._take(negative, *self._merged(*self._grid(x, self.one_sided), top=top))

    @torch.no_grad()
    def widen(self, x: Tensor) -> None:
        """See :meth:`Quantizer.widen`: where a wider range halves the error on ``x``."""
        self.follow(x)
        scale, zero_point = self.qparams()
        found, level = self._grid(x, self.one_sided)
        worse = self._error(x, scale, zero_point) > 2 * self._error(x, found, level)
        low, top = -zero_point * scale, (max_code(self.bits) - zero_point) * scale
        self._take(worse & (found > scale), *self._merged(found, level, low=low, top=top))

    def _extremes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.axis == 1:
            return x.amin(0), x.amax(0)
        low, high = torch.aminmax(x)
        return low.view(1), high.view(1)

    def _grid(self, x: Tensor, one_sided: Tensor) -> tuple[Tensor, Tensor]:
        """Least error's scale and zero point, of each scale's own form."""
        forms = [("unsigned", one_sided)] if bool(one_sided.any()) else []
        if not bool(one_sided.all()):
            forms.append(("centered" if self.centered else "symmetric", ~one_sided))
        scale, zero_point = torch.ones_like(self.scale), torch.zeros_like(self.scale)
        for form, mine in forms:
            columns = x if self.axis != 1 or bool(mine.all()) else x[:, mine]
            scale[mine], zero_point[mine] = grid_qparams(
                columns, self.bits, 1 if self.axis == 1 else -1, form, self.error
            )
        return scale, zero_point

    def _merged(
        self, scale: Tensor, zero_point: Tensor, top: Tensor, low: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Parameters of a found range, extended to ``top`` (and ``low``)."""
        qmax = max_code(self.bits)
        if not self.centered:
            positive = (qmax - zero_point).clamp_min(1.0)
            return torch.maximum(scale, top / positive), zero_point
        bottom = -zero_point * scale
        bottom = bottom if low is None else torch.minimum(bottom, low)
        top = torch.maximum((qmax - zero_point) * scale, top)
        scale = (top - bottom) / qmax
        return scale, -bottom / scale

    def _error(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        values = (quantize(x, scale, zero_point, self.bits) - zero_point) * scale
        error = (values - x).square()
        return error.mean(0) if self.axis == 1 else error.mean().view(1)

    def _take(self, which: Tensor, scale: Tensor, zero_point: Tensor) -> None:
        self.scale.copy_(torch.where(which, scale, self.scale))
        self.zero_point.copy_(torch.where(which, zero_point, self.zero_point))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # Checkpoints of earlier versions do not say; a zero point at 0 is one of positive values.
        zero = state_dict.get(prefix + "zero_point")
        if zero is not None:
            state_dict.setdefault(prefix + "one_sided", zero == 0)
            state_dict.setdefault(prefix + "waiting", torch.zeros_like(zero, dtype=torch.bool))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns ``(scale, zero_point)``, the scale positive.

        Raises:
            NotCalibratedError: Before the first batch.
        """
        if not bool(self.initialized):
            raise NotCalibratedError(
                "a learned scale has seen no data: train the prepared model or call "
                "nodebits.calibrate(model, x, edge_index) before evaluating or converting it"
            )
        # Clones: a second call in the same step may find another range.
        return self.scale.clone().abs().clamp_min(MIN_SCALE), self.zero_point.clone()

    def step_size(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`RangeQuantizer.step_size`: LSQ's gradients."""
        count = max(x.numel() // scale.numel(), 1)
        factor = (count * max_code(self.bits)) ** -0.5
        scale = ScaleGradient.apply(scale, factor)
        if self.centered:
            zero_point = ScaleGradient.apply(zero_point, factor)
        return scale, zero_point

    def round(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        codes: Tensor = FakeQuantize.apply(
            x, scale, zero_point, self.axis, self.bits, int(self.gradient)
        )
        return codes

    def frozen(self) -> RowQuantizer:
        scale, zero_point = self.qparams()
        return StaticRows(scale, zero_point, self.bits)

    def reset(self) -> None:
        super().reset()
        self.initialized.fill_(False)
