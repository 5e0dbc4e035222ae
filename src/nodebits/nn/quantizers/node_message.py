"""Messages of A2Q: a width and a power of two per row, a scale per column."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.affine import MIN_SCALE, Codes
from nodebits.core.errors import NotCalibratedError
from nodebits.core.row_layout import WIDTH_BITS
from nodebits.engine.by_width import groups_bytes
from nodebits.engine.sites import PerNodeMessageRows, RowQuantizer
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.node import NOTHING, NodeQuantizer
from nodebits.nn.quantizers.per_node import codes_of
from nodebits.nn.quantizers.row_gradients import RowFakeQuantize
from nodebits.ops.autograd import ScaleGradient


class NodeMessageQuantizer(NodeQuantizer):
    """A width per row and a scale per column times a power of two per row; for ``message`` sites.

    ``(u - z) 2^e_i s_j``: the part of a row's scale that its neighbours' sum must carry is a power
    of two, so the sum stays an exact sum of integers, shifted in place; the rest is per column and
    leaves the sum. The column scales get the task's gradient (LSQ), range and width of a row the
    local one. ``e_i + b_i <= 8``.

    Args:
        num_columns: C.
        **options: See :class:`NodeQuantizer`.
    """

    def __init__(self, num_columns: int, initial_bits: float = 4.0, **options: Any) -> None:
        super().__init__(initial_bits, **options)
        self.scale = nn.Parameter(torch.ones(num_columns))

    def collect(self, x: Tensor) -> Tensor:
        """See :meth:`Quantizer.collect`: ``[N, k, C]`` of k calls, as columns have scales."""
        columns = x.size(1)
        if current_scope().batch is not None:
            rows: Tensor = self.seen.add(x)
            return rows.view(-1, 1, columns)
        calls: Tensor = self.seen.add(x.reshape(1, -1))
        return calls.view(calls.size(0), -1, columns).transpose(0, 1)

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        """See :meth:`Quantizer.estimate`: the columns' scales first, then the rows'."""
        extent = x.abs().amax(tuple(range(x.dim() - 1)))
        extent = torch.where(extent > 0, extent, torch.ones_like(extent))
        top = 127.5 if bool((x < 0).any()) else 255.0
        self.scale.data = (extent / top).clamp_min(MIN_SCALE)
        super().estimate((x / self.scale).flatten(1))

    @torch.no_grad()
    def follow(self, x: Tensor) -> None:
        if bool((self.log_range <= NOTHING).all()):
            self.estimate(x)
            return
        if not bool(self.signed) and bool((x < 0).any()):
            # Half of the codes are negative now: twice the step covers what it did.
            wider = torch.maximum(2 * self.columns(), x.abs().amax(0) / 127.5)
            self.scale.copy_(wider)
            self.log_range.sub_(1.0)
        super().follow(x / self.columns())

    @torch.no_grad()
    def widen(self, x: Tensor) -> None:
        """See :meth:`Quantizer.widen`: columns that hold more than twice as much, then rows."""
        top = 127.5 if bool(self.signed) or bool((x < 0).any()) else 255.0
        needed = x.abs().amax(0) / top
        self.scale.copy_(torch.where(needed > 2 * self.columns(), needed, self.scale))
        super().widen(x / self.columns())

    def _stored(self, log_step: Tensor, widths: Tensor) -> Tensor:
        exponent = log_step.detach().round().clamp_min(0).minimum(8 - widths.detach())
        return torch.exp2(exponent) * torch.exp2(log_step - log_step.detach())

    def columns(self) -> Tensor:
        """Scale per column, positive, ``[C]``."""
        return self.scale.abs().clamp_min(MIN_SCALE)

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`; codes are shifted, with a zero point per row."""
        if not self._ready(x):
            self._top = None
            return codes_of(self.freeze(), x)
        column = self.columns()
        log_range, widths = self._select(x / column.detach())
        step, zero_point, top = self._steps(log_range, widths)
        if self.training:
            self._learn(x.detach() / column.detach(), step, zero_point, top, widths)
            count = max(x.size(0), 1) * 15
            column = ScaleGradient.apply(column, count**-0.5)
        step, zero_point, top = step.detach(), zero_point.detach(), top.detach()
        self._top = top * step
        codes: Tensor = RowFakeQuantize.apply(x, column, step, zero_point, top)
        if self.training:
            self._watch(codes, column.detach() * step, x)
        codes = self._protect(codes, x / (column * step) + zero_point)
        return self.touch(Codes(codes * step, column, zero_point * step, self.bits))

    @torch.no_grad()
    def freeze(self) -> RowQuantizer:
        if self.num_rows == 0:
            raise NotCalibratedError("a width per row needs data: train or calibrate the model")
        widths = self.rounded_widths()
        shift = self._steps(self.log_range, widths)[0].log2().round().view(-1)
        limits = torch.exp2(self.log_range)
        return PerNodeMessageRows(
            self.columns(),
            widths,
            shift,
            limits,
            bool(self.signed),
            nearest=bool(self.nearest),
            fingerprint=int(self.fingerprint),
            fallback=self.fallback,
        )

    def scale_cost(self, num_rows: int) -> int:
        columns = 32 * self.scale.numel()
        if bool(self.nearest):
            return columns + 8 * groups_bytes(num_rows, self.num_rows)
        return columns + 2 * WIDTH_BITS * num_rows
