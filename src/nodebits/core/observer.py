"""Observers: from tensors seen to the range ``[low, high]`` that the codes cover.

An observer measures one batch (:meth:`Observer.measure`) and combines it with what it saw before.
``axis`` says which axis keeps its own range: -1 none (per tensor), 0 rows (a weight's output
channels), 1 columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nodebits.core.affine import max_code
from nodebits.core.errors import ConfigError, NonFiniteError, NotCalibratedError
from nodebits.core.grid import grid_qparams
from nodebits.core.memory import check_memory
from nodebits.core.outcomes import noted
from nodebits.core.recorded import recorded
from nodebits.core.sample import strided_sample

# A percentile is read from at most this many values: at rank p the standard error of the empirical
# distribution is sqrt(p (1 - p) / n), 1.2e-4 for p = 0.001, whatever the size of the tensor.
PERCENTILE_SAMPLE = 65_536
# Scales tried times values that share one, and the most that are tried.
_TRIES, _MOST_TRIES = 4096, 512


def _reduce_dims(axis: int) -> tuple[int, ...]:
    return {-1: (0, 1), 0: (1,), 1: (0,)}[axis]


def new_sides(
    low: Tensor, high: Tensor, new_low: Tensor, new_high: Tensor
) -> tuple[Tensor, Tensor]:
    """Where a batch is the first with values below zero, and the first with values above.

    Args:
        low: Lower extremes so far, float32, any shape.
        high: Upper extremes so far, same shape.
        new_low: Lower extremes of the batch, same shape.
        new_high: Upper extremes of the batch, same shape.
    """
    return (low >= 0) & (new_low < 0), (high <= 0) & (new_high > 0)


class Observer(nn.Module):
    """Base: keeps ``low`` and ``high``, combines batches by moving average or running extremes.

    Args:
        axis: -1, 0 or 1, see the module's head.
        momentum: Weight of a new batch in the moving average; None keeps running min / max.
    """

    low: Tensor
    high: Tensor

    def __init__(self, axis: int = -1, momentum: float | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.momentum = momentum
        # Tells ranges apart. The id of a tensor does not: a freed one is given out again.
        self.updates = 0
        self.register_buffer("low", torch.empty(0))
        self.register_buffer("high", torch.empty(0))

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Range of one batch.

        Args:
            x: float32 ``[N, C]``, finite, not empty.

        Returns:
            ``(low, high)``, float32, ``[1]``, ``[N]`` or ``[C]`` by ``axis``.
        """
        dims = _reduce_dims(self.axis)
        if self.axis == -1:
            low, high = torch.aminmax(x)
            return low.view(1), high.view(1)
        return x.amin(dims), x.amax(dims)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Takes a batch ``[N, C]`` into the range; an empty batch changes nothing.

        A moving average starts anew where all values were the same so far, and at once takes a
        first value below zero (or above) where there was none: such a range is not an old one that
        moves, it said nothing about that side.
        """
        if x.numel() == 0:
            return
        low, high = self.measure(x.detach())
        if self.low.numel() != low.numel():
            self._set(low.clone(), high.clone())
        elif self.momentum is None:
            self._set(torch.minimum(self.low, low), torch.maximum(self.high, high))
        else:
            flat = self.low == self.high
            below, above = new_sides(self.low, self.high, low, high)
            self._set(
                torch.where(flat | below, low, self.low + self.momentum * (low - self.low)),
                torch.where(flat | above, high, self.high + self.momentum * (high - self.high)),
            )

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        """Takes the range from ``x`` ``[N, C]`` alone, whatever was seen before."""
        self._set(*(value.clone() for value in self.measure(x.detach())))

    @torch.no_grad()
    def widen(self, x: Tensor) -> None:
        """Extends the range by that of ``x`` ``[N, C]``."""
        low, high = self.measure(x.detach())
        self._set(torch.minimum(self.low, low), torch.maximum(self.high, high))

    def _set(self, low: Tensor, high: Tensor) -> None:
        self.updates += 1
        self.low, self.high = low, high

    def range(self) -> tuple[Tensor, Tensor]:
        """Returns ``(low, high)``.

        Raises:
            NotCalibratedError: If nothing was observed.
        """
        if self.low.numel() == 0:
            raise NotCalibratedError(
                "a quantizer has no range: train the prepared model or call "
                "nodebits.calibrate(model, x, "
                "edge_index) before evaluating or converting it"
            )
        return self.low, self.high

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.updates += 1
        # The shape of a range is known only once data was seen.
        for name in ("low", "high"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class MinMaxObserver(Observer):
    """Exact extremes: running, or a moving average (Degree-Quant's ABS and MOM)."""


class MeanRowObserver(Observer):
    """Mean of the row minima and mean of the row maxima, of the last batch (SGQuant's release).

    Rows of large values are clipped; the range follows every call, as the release's does.
    """

    def __init__(self) -> None:
        super().__init__(-1, 1.0)

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.amin(1).mean().view(1), x.amax(1).mean().view(1)


class PercentileObserver(Observer):
    """Two-sided percentile, on a strided sample of the values.

    The k-th smallest with ``k = max(1, floor(n p))`` below and its mirror above (Degree-Quant,
    PER). An exact percentile of a large tensor costs more than the layer; a sample of
    ``PERCENTILE_SAMPLE`` values bounds the error of the *rank* by five standard errors, ``5 sqrt(p
    (1-p) / n)``.

    Args:
        percentile: Share of values cut on each side, in ``[0, 0.5)``; published: 0.001 at 8 bits,
            0.01 at 4.
        axis: As in :class:`Observer`.
        momentum: As in :class:`Observer`; the published recipe uses None.
        sample: Number of values to read at most.
    """

    def __init__(
        self,
        percentile: float,
        axis: int = -1,
        momentum: float | None = None,
        sample: int = PERCENTILE_SAMPLE,
    ) -> None:
        super().__init__(axis, momentum)
        if not 0.0 <= percentile < 0.5:
            raise ConfigError(f"percentile is {percentile}: it is a share per side, in [0, 0.5)")
        self.percentile = percentile
        self.sample = sample

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = strided_sample(x, self.axis, self.sample)
        n = values.size(-1)
        k_low = max(1, int(n * self.percentile))
        k_high = min(n, max(1, math.ceil(n * (1 - self.percentile))))
        low = values.kthvalue(k_low, dim=-1).values
        high = values.kthvalue(k_high, dim=-1).values
        return low.view(-1), high.view(-1)


class GridObserver(Observer):
    """Shrinks the range to the fraction of least error (:mod:`nodebits.core.grid`).

    Args:
        bits: Width the error is computed at.
        axis: As in :class:`Observer`.
        error: ``"mse"`` or ``"mae"``.
        momentum: As in :class:`Observer`.
        tails: As in :func:`nodebits.core.grid.grid_qparams`.
    """

    def __init__(
        self,
        bits: int,
        axis: int = -1,
        error: str = "mse",
        momentum: float | None = None,
        tails: bool = False,
    ) -> None:
        super().__init__(axis, momentum)
        self.bits, self.error, self.tails = bits, error, tails

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero_point = grid_qparams(
            x, self.bits, self.axis, "affine", self.error, tails=self.tails
        )
        low, high = super().measure(x)
        # Zeros have a scale by convention only; the range it covers would outlive them.
        empty = (low == 0) & (high == 0)
        return (
            torch.where(empty, low, -zero_point * scale),
            torch.where(empty, high, (max_code(self.bits) - zero_point) * scale),
        )


class SymmetricGridObserver(Observer):
    """The range around zero of least square error, of weights that are calibrated only.

    The fewer values share a scale, the more scales are tried: of 8 values the best one loses a
    third less than the one that just holds the largest, of a thousand nothing less.

    Args:
        bits: Width the error is computed at.
        axis: As in :class:`Observer`.
    """

    def __init__(self, bits: int, axis: int) -> None:
        super().__init__(axis)
        self.bits = bits

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wider = min(_TRIES // max(x.size(1 - self.axis), 1), _MOST_TRIES)
        scale, zero_point = grid_qparams(x, self.bits, self.axis, "symmetric", wider=wider)
        low, high = super().measure(x)
        top = (max_code(self.bits) - zero_point).clamp_min(1) * scale
        top = torch.where((low == 0) & (high == 0), low, top)
        return -top, top


# What features are called in errors.
FEATURES = "the feature matrix"


def check_finite(x: Tensor, what: str) -> None:
    """Refuses NaN and infinity, and tensors whose memory was freed.

    Raises:
        NonFiniteError: With the count and the first position.
        ShapeError: See :func:`nodebits.core.memory.check_memory`.
    """
    recorded("check_finite", lambda: _check_finite(x, what), x)


def _check_finite(x: Tensor, what: str) -> None:
    check_memory(x, what)
    if noted(lambda: ~torch.isfinite(x.detach()).all()):
        return
    # A sum is finite unless a value is not (or the sum overflows): one pass without a mask.
    if bool(torch.isfinite(x.detach().sum())):
        return
    bad = ~torch.isfinite(x)
    count = int(bad.sum())
    if count:
        position = [int(i) for i in bad.nonzero()[0]]
        value = x[tuple(position)].item()
        raise NonFiniteError(
            f"{what} has {count} value(s) that are NaN or infinite, the first ({value}) at "
            f"{position}: "
            "clean the tensor before quantizing it"
        )
