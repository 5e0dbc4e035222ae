"""Raw features at a width per row, chosen once: a constant tensor needs no training to know it.

A2Q's local gradient descends a row's own quantization error against a price per bit. For a constant
row that optimum can be computed: every width's best scale and error are tabulated, and a row takes
the least width whose error is within a tolerance (equal absolute error is where the slopes of error
against bits are equal, as error falls by half per bit). A 0/1 row, or one divided by its sum, is
exact at one bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.row_layout import WIDTH_BITS
from nodebits.engine.by_width import row_extent, scale_of, zero_points
from nodebits.engine.sites import PerNodeRows, RowQuantizer
from nodebits.graph.csr import Graph
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.dynamic import DynamicRowQuantizer
from nodebits.nn.quantizers.memo import CodesMemo, SparseMemo
from nodebits.nn.quantizers.per_node import PerNode, codes_of
from nodebits.nn.quantizers.row_gradients import RowFakeQuantize

_SHARES = (1.0, 0.85, 0.7, 0.55, 0.4)  # ranges tried, as shares of the largest value
_BLOCK = 1 << 22  # values worked on at once


class RawNodeQuantizer(PerNode):
    """Per-row widths and scales of a constant feature matrix, for ``input`` sites.

    Rows of batches of graphs, which are no constant, bring their own scale at one width instead.

    Args:
        mean_bits: Largest mean width; fewer are used where that loses nothing.
        fallback: Whether other graphs are served by nearest pairs.
    """

    widths: Tensor
    scale: Tensor

    def __init__(self, mean_bits: float, *, fallback: bool = False) -> None:
        super().__init__(fallback, ("widths", "scale"))
        self.limit = mean_bits
        self.register_buffer("widths", torch.empty(0, dtype=torch.uint8))
        self.register_buffer("scale", torch.empty(0))
        self.batched = DynamicRowQuantizer(max(1, min(8, int(mean_bits))))
        self._memo, self._sparse = CodesMemo(), SparseMemo()
        self._estimates = 0  # tells tables of scales apart, as the id of a tensor does not

    def _load_from_state_dict(self, *state: Any) -> None:
        self._estimates += 1
        super()._load_from_state_dict(*state)

    @property
    def num_rows(self) -> int:
        return self.widths.numel()

    def _state(self) -> tuple[int, int]:
        return self._estimates, self.scale._version

    def row_top(self, x: Tensor) -> Tensor | None:
        if self.widths.numel() != x.size(0):
            return None
        return torch.exp2(self.widths.float()).view(-1, 1) - 1

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        if not self.known:
            self._note_graph()
        self._estimates += 1
        self.signed.fill_(bool((x < 0).any()))
        error, scale = width_table(x, bool(self.signed))
        widths = widths_within(error, self.limit)
        self.widths = widths.to(torch.uint8)
        self.scale = scale.gather(1, widths.view(-1, 1) - 1).view(-1)

    def follow(self, x: Tensor) -> None:
        """See :meth:`Quantizer.follow`: features that turn negative are looked at anew."""
        if not bool(self.signed) and bool((x < 0).any()):
            self.estimate(x)

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`. Not protectable: rows share no range here."""
        if current_scope().batch is not None:
            codes: Codes = self.batched(x)
            return codes
        remembered = self._memo.recall(x, self._state(), self.observing)
        if remembered is not None:
            return remembered
        if self.observing and (not self.known or x.size(0) == self.widths.numel()):
            self.observe(x.detach())
        if not self.known:
            if not self.observing or x.size(0) == 0:
                self._refuse_unseen()
        if x.size(0) != self.widths.numel():
            self._check_graph(x)
            return codes_of(self.freeze(), x)
        widths = self.widths.float().view(-1, 1)
        zero_point = zero_points(bool(self.signed), self.widths.device)[
            self.widths.long() - 1
        ].view(-1, 1)
        step = self.scale.view(-1, 1)
        made: Tensor = RowFakeQuantize.apply(
            x, x.new_ones(1), step, zero_point, torch.exp2(widths) - 1
        )
        result = Codes(made, step, zero_point if bool(self.signed) else x.new_zeros(1), self.bits)
        self._memo.remember(x, result, self._state(), self.observing)
        return result

    def sparse(self, x: Tensor) -> Graph | None:
        """See :meth:`Quantizer.sparse`. A zero point would fill the zeros."""
        if current_scope().batch is not None:
            return self.batched.sparse(x)
        known = self._memo.recall(x, self._state())
        return None if known is None or bool(self.signed) else self._sparse.rows(known.codes)

    def mean_bits(self) -> float:
        """Mean width over nodes."""
        if self.widths.numel() == 0:
            return float(self.batched.bits)
        return float(self.widths.float().mean())

    def scale_cost(self, num_rows: int) -> int:
        """Bits of scales and widths for ``num_rows`` rows."""
        return num_rows * (32 + (WIDTH_BITS if self.widths.numel() else 0))

    def freeze(self) -> RowQuantizer:
        if self.widths.numel() == 0:
            return self.batched.freeze()
        return PerNodeRows(
            self.widths,
            bool(self.signed),
            scale=self.scale,
            fingerprint=int(self.fingerprint),
            fallback=self.fallback,
        )

    def reset(self) -> None:
        super().reset()
        self.widths, self.scale = self.widths.new_empty(0), self.scale.new_empty(0)
        self.batched.reset()
        self._memo.forget()


def width_table(x: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Least mean absolute error and its scale, for every row and width.

    Args:
        x: float32 ``[N, C]``.
        signed: Whether codes stand for both signs.

    Returns:
        ``(error, scale)``, float32 ``[N, 8]`` each; column b - 1 is width b.
    """
    parts = [_table_of(block, signed) for block in x.split(max(1, _BLOCK // max(x.size(1), 1)))]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _table_of(x: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    error, scale = x.new_zeros(x.size(0), 8), x.new_ones(x.size(0), 8)
    largest = row_extent(x, signed)
    left = torch.arange(x.size(0), device=x.device)  # rows that are not exact yet
    for bits in range(1, 9):
        if left.numel() == 0:
            break
        rows = x[left]
        best = x.new_full((left.numel(),), torch.inf)
        width = x.new_full((left.numel(),), float(bits))
        zero_point, top = float(zero_points(signed, x.device)[bits - 1]), float((1 << bits) - 1)
        for share in _SHARES:
            step = scale_of(largest[left] * share, width, signed)
            codes = torch.round(rows / step.view(-1, 1) + zero_point).clamp(0, top)
            found = ((codes - zero_point) * step.view(-1, 1) - rows).abs().mean(1)
            better = found < best
            best = torch.where(better, found, best)
            scale[left[better], bits - 1] = step[better]
        # What is left of an exact row is the rounding of its own multiplication.
        exact = best <= 1e-6 * rows.abs().mean(1)
        best = torch.where(exact, torch.zeros_like(best), best)
        error[left, bits - 1] = best
        left = left[~exact]
    return error, scale


def widths_within(error: Tensor, mean_bits: float) -> Tensor:
    """Least width per row within the least tolerance whose mean width is at most ``mean_bits``.

    Args:
        error: float32 ``[N, 8]``; column b - 1 is width b.
        mean_bits: At least 1.

    Returns:
        int64 ``[N]``, 1 to 8.
    """
    # Error need not fall at every step: a wider code never counts as worse.
    error = error.cummin(1).values

    def widths(tolerance: float) -> Tensor:
        within = error <= tolerance
        within[:, -1] = True
        return within.int().argmax(1) + 1

    levels = torch.cat([error.new_zeros(1), error.flatten()]).unique()
    low, high = 0, levels.numel() - 1
    while low < high:
        middle = (low + high) // 2
        if float(widths(float(levels[middle])).float().mean()) <= mean_bits:
            high = middle
        else:
            low = middle + 1
    return widths(float(levels[low]))
