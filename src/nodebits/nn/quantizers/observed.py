"""A quantizer whose range is a statistic of what it saw."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import Codes, affine_qparams, check_bits, symmetric_qparams
from nodebits.core.observer import Observer
from nodebits.engine.sites import RowQuantizer, StaticRows
from nodebits.nn.quantizers.memo import CodesMemo
from nodebits.nn.quantizers.ranged import RangeQuantizer
from nodebits.ops.autograd import FakeQuantize, Gradient


class ObservedQuantizer(RangeQuantizer):
    """Range from an observer; updated in training and calibration, fixed in evaluation.

    Args:
        bits: 1 to 8.
        observer: Gives ``[low, high]``; its axis (-1 or 1) is the granularity.
        symmetric: Zero point ``2**(bits-1)`` where negative values were seen; False for affine. A
            range without negative values gets zero point 0 either way.
        gradient: What values outside the range receive.
        protectable: See :class:`Quantizer`.
    """

    def __init__(
        self,
        bits: int,
        observer: Observer,
        *,
        symmetric: bool = False,
        gradient: Gradient = Gradient.CLIP,
        protectable: bool = False,
    ) -> None:
        super().__init__()
        self.bits: int = check_bits(bits)
        self.observer = observer
        self.axis = observer.axis
        self.symmetric = symmetric
        self.gradient = gradient
        self.protectable = protectable
        self._memo = CodesMemo()

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns ``(scale, zero_point)`` of the range observed so far."""
        low, high = self.observer.range()
        if not self.symmetric:
            return affine_qparams(low, high, self.bits)
        if bool((low >= 0).all()):
            return affine_qparams(torch.zeros_like(low), high, self.bits)
        return symmetric_qparams(torch.maximum(low.abs(), high.abs()), self.bits)

    @property
    def known(self) -> bool:
        return self.observer.low.numel() > 0

    def estimate(self, x: Tensor) -> None:
        self.observer.estimate(x)

    def follow(self, x: Tensor) -> None:
        """See :meth:`Quantizer.follow`: as the observer combines batches."""
        self.observer.observe(self._fitting(x))

    def widen(self, x: Tensor) -> None:
        self.observer.widen(self._fitting(x))

    def _fitting(self, x: Tensor) -> Tensor:
        """``x``, in one column where a range per column cannot be: rows of several widths come."""
        low, high = self.observer.low, self.observer.high
        if self.axis != 1 or x.size(1) == low.numel():
            return x
        self.observer.low, self.observer.high = low.amin().view(1), high.amax().view(1)
        return x.reshape(-1, 1)

    def _state(self) -> tuple[int, int]:
        return self.observer.updates, self.observer.low._version

    def forward(self, x: Tensor) -> Codes:
        if self.protected_rows(x) is not None:
            return super().forward(x)
        remembered = self._memo.recall(x, self._state(), self.observing)
        if remembered is not None:  # the same tensor again: its range is known
            return remembered
        result = super().forward(x)
        self._memo.remember(x, result, self._state(), self.observing)
        return result

    def round(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        axis = -1 if scale.numel() == 1 else self.axis
        codes: Tensor = FakeQuantize.apply(
            x, scale, zero_point, axis, self.bits, int(self.gradient)
        )
        return codes

    def frozen(self) -> RowQuantizer:
        scale, zero_point = self.qparams()
        return StaticRows(scale, zero_point, self.bits)

    def reset(self) -> None:
        super().reset()
        self._memo.forget()
        self.observer.low = self.observer.low.new_empty(0)
        self.observer.high = self.observer.high.new_empty(0)
