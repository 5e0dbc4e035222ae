"""How a site uses its codes, read from a sample of rows: at the ends, all alike, lost.

A code at an end may stand for a value beyond it. How many do is a property of the data a range was
made for (at one bit all of them do), so a packed model compares with the share that the quantizer
had before it was converted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import max_code

_ROWS, _COLUMNS = 256, 64
# Calls of calibration whose samples are kept.
_CALLS = 16
# An end code that calibration hardly used: if data does, values lie beyond it.
_HARDLY = 0.05
# Shares of rows without a trace in the codes above which a site is reported.
_LOST_FEW_LEVELS, _LOST = 0.9, 0.5
# Rounding that is this large beside a row, in squares, leaves no trace of it. Where there are few
# levels, that is so of rows of harmless data.
_TRACE, _FEW_LEVELS = 0.25, 8


class Ends(NamedTuple):
    """Shares of values at the lowest and the highest code, and the rows they were counted on."""

    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class SiteUse:
    """Codes of one site in one forward; see :meth:`nodebits.PackedModel.watch`.

    Attributes:
        site: Path of the site.
        saturated: Share of sampled values at an end of the range.
        expected: That share when the model was converted; None where it is not known.
        rows: Rows that were sampled.
    """

    site: str
    saturated: float
    expected: float | None
    rows: int

    @property
    def excess(self) -> float:
        """Share beyond what was expected, less what that varies by.

        That is two standard errors, and a third of the share itself: where widths are low, end
        codes are levels like others.
        """
        if self.expected is None:
            return 0.0
        share = min(max(self.expected, 1.0 / max(self.rows, 1)), 1.0)
        error = (share * (1.0 - share) / max(self.rows, 1)) ** 0.5
        excess: float = self.saturated - self.expected - 2.0 * error
        return max(0.0, excess)


def use_of(site: str, now: Ends, centred: bool, before: Ends | None) -> SiteUse:
    """Compares two counts.

    Code 0 is an end where codes stand for both signs, or where it was hardly used before: at a site
    without negative values it is simply zero, which many values are.

    Args:
        site: Path.
        now: Count of this forward.
        centred: Whether code 0 stands for a negative value.
        before: Count before conversion.
    """
    low = centred or (before is not None and before.low <= _HARDLY)
    expected = None if before is None else before.high + (before.low if low else 0.0)
    return SiteUse(site, now.high + (now.low if low else 0.0), expected, now.rows)


def row_sample(num_rows: int) -> slice:
    """Evenly spread rows, at most about 256."""
    return slice(None, None, max(num_rows // _ROWS, 1))


def column_sample(num_cols: int) -> slice:
    """Evenly spread columns, at most about 64."""
    return slice(None, None, max(num_cols // _COLUMNS, 1))


def count_ends(codes: Tensor, top: Tensor | float) -> Ends:
    """Counts the codes of sampled rows ``[n, c]`` at 0 and at ``top`` (a number, or ``[n, 1]``)."""
    if codes.numel() == 0:
        return Ends(0.0, 0.0, 0)
    low, high = (codes <= 0).float().mean(), (codes >= top).float().mean()
    return Ends(float(low), float(high), codes.size(0))


def _larger(one: Ends, other: Ends) -> Ends:
    return Ends(max(one.low, other.low), max(one.high, other.high), max(one.rows, other.rows))


class SampledCodes(NamedTuple):
    """A sample of a tensor and of its codes.

    Attributes:
        x: float32 ``[n, c]``.
        codes: float32 ``[n, c]``.
        scale: float32, broadcastable.
        zero_point: Likewise.
        top: Largest code, a number or ``[n, 1]``.
        columns: Which columns of the tensor these are.
    """

    x: Tensor
    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    top: Tensor | float
    columns: slice

    @classmethod
    def of(
        cls,
        x: Tensor,
        codes: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        bits: int,
        top: Tensor | None,
    ) -> SampledCodes | None:
        """Takes the sample; None where there is nothing to take.

        Args:
            x: float32 ``[N, C]``.
            codes: float32 ``[N, C]``.
            scale: ``[1]``, ``[C]`` or ``[N, 1]``.
            zero_point: Likewise.
            bits: Width.
            top: Largest code of every row ``[N, 1]``, where rows have their own.
        """
        if x.dim() != 2 or x.numel() == 0:
            return None
        rows, cols = row_sample(x.size(0)), column_sample(x.size(1))

        def part(parameter: Tensor) -> Tensor:
            if parameter.dim() == 2:
                parameter = parameter[rows]
            elif parameter.numel() > 1:
                parameter = parameter[cols]
            return parameter.detach().clone()

        return cls(
            x.detach()[rows, cols].clone(),
            codes.detach()[rows, cols].clone(),
            part(scale),
            part(zero_point),
            float(max_code(bits)) if top is None else top[rows].clone(),
            cols,
        )

    def ends(self) -> Ends:
        """Shares at the ends."""
        return count_ends(self.codes, self.top)

    def lost(self) -> float:
        """Share of rows that hold something, of which the codes keep nothing.

        Rows of several values: all codes of the row are the same while its values are not, or
        rounding changed it by half and more. Of one value: it became zero.
        """
        if self.x.size(1) == 1:
            counted = self.x.abs().amax(1) > 0
            lost = (self.codes == torch.round(self.zero_point)).all(1)
        else:
            counted = self.x.amax(1) > self.x.amin(1)
            lost = self.codes.amax(1) == self.codes.amin(1)
            if self._levels() > _FEW_LEVELS:
                # What is cut off at an end of the range is no matter of rounding.
                error = (self.x - self.scale * (self.codes - torch.round(self.zero_point))).abs()
                error = torch.minimum(error, self.scale / 2)
                lost |= error.square().sum(1) > _TRACE * self.x.square().sum(1)
        return float((lost & counted).sum() / counted.sum().clamp_min(1))

    def problem(self) -> str | None:
        """What is wrong with the range, in words; None where nothing is."""
        if not bool(self.x.any()):
            return "saw nothing but zeros, so that its scale says nothing"
        lost = self.lost()
        if lost > (_LOST if self._levels() > _FEW_LEVELS else _LOST_FEW_LEVELS):
            return (
                f"rounds {lost:.0%} of its rows to next to nothing: a few large values set the "
                "scale for all"
            )
        return None

    def _levels(self) -> float:
        return float(self.top.max() if isinstance(self.top, Tensor) else self.top) + 1


Recount = Callable[[SampledCodes], SampledCodes]


class Samples:
    """Samples of the tensors of several calls, whose codes are those of the final range.

    A range that later calls change codes what came before it anew: ends that were counted by the
    range of their own call would say nothing of the one that is packed.
    """

    def __init__(self) -> None:
        self._parts: list[SampledCodes] = []
        self._dropped: Ends | None = None

    def __bool__(self) -> bool:
        """Whether there is a sample."""
        return bool(self._parts)

    def clear(self) -> None:
        """Forgets all samples."""
        self.__init__()  # type: ignore[misc]

    def add(self, sample: SampledCodes | None, recount: Recount) -> None:
        """Takes a sample in; of very many calls the first are counted by the range of now.

        Args:
            sample: Of a call; None changes nothing.
            recount: A sample with the codes of the present range.
        """
        if sample is None:
            return
        self._parts.append(sample)
        if len(self._parts) > _CALLS:
            ends = recount(self._parts.pop(0)).ends()
            self._dropped = ends if self._dropped is None else _larger(self._dropped, ends)

    def ends(self, recount: Recount) -> Ends | None:
        """Shares at the ends: at each end, of the call that has most there."""
        ends = self._dropped
        for part in self._parts:
            now = recount(part).ends()
            ends = now if ends is None else _larger(ends, now)
        return ends

    def problem(self, recount: Recount) -> str | None:
        """What is wrong with the range, in words, even for the call that it serves best."""
        parts = [recount(part) for part in self._parts]
        best = min(parts, key=lambda part: (not bool(part.x.any()), part.lost()))
        return best.problem()


__all__ = [
    "Ends",
    "SampledCodes",
    "Samples",
    "SiteUse",
    "column_sample",
    "count_ends",
    "row_sample",
    "use_of",
]
