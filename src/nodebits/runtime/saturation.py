"""Whether data fits the ranges of a packed model: end codes, counted on a sample of rows."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from nodebits.core.context import Context
from nodebits.core.errors import SaturationWarning
from nodebits.engine.pending import waiting
from nodebits.engine.rows import Rows
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.use import Ends, SiteUse, column_sample, count_ends, row_sample, use_of

# Share of values beyond what was expected, above which a site is reported.
LIMIT = 0.05
_NAMED = 3
# To look takes as long as many forwards of a small graph.
_FIRST_INPUTS, _EVERY = 8, 1024


class UseLog:
    """Collects :class:`SiteUse` of a forward; what :attr:`Context.uses` is called with."""

    def __init__(self) -> None:
        self._found: dict[str, SiteUse] = {}

    def __call__(self, site: RowQuantizer, x: Any, rows: Any) -> None:
        """Takes one tensor; of several at one site the one that fits least is kept."""
        if site.bits is None:
            return
        use = _use_of(site, x, rows)
        before = self._found.get(site.site_name)
        if use is not None and (before is None or use.excess > before.excess):
            self._found[site.site_name] = use

    def uses(self) -> list[SiteUse]:
        """What was found, the largest excess first."""
        return sorted(self._found.values(), key=lambda use: -use.excess)

    def warn(self) -> bool:
        """Warns if data lies beyond the ranges; returns whether it does."""
        if not any([use.excess > LIMIT for use in self._found.values()]):
            return False
        beyond = [use for use in self.uses() if use.excess > LIMIT]
        sites = ", ".join(
            f"{use.site!r} ({use.saturated:.0%} of its values, {use.expected:.1%} before)"
            for use in beyond[:_NAMED]
        )
        more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
        warnings.warn(
            f"values lie at the ends of the ranges of site {sites}{more}: they are cut off there, "
            "since the model was made for other data. Calibrate it on graphs like these too, "
            "nodebits.calibrate(prepared, [(x, edge_index), (other_x, other_edge_index)]), and "
            "convert it again",
            SaturationWarning,
            stacklevel=5,
        )
        return True


class Schedule:
    """When a model looks at its own use: at its first inputs, and ever more rarely after that.

    Attributes:
        done: Whether it has warned, and need not look any more.
    """

    def __init__(self) -> None:
        self.done = False
        self._calls = self._inputs = 0
        self._last: tuple[int, ...] = ()

    def due(self, inputs: tuple[Any, ...], context: Context) -> bool:
        """Whether the forward that begins on ``inputs`` in ``context`` is one to look at."""
        busy = context.uses is not None or context.recorder is not None
        if self.done or busy or torch.compiler.is_compiling():
            return False
        self._calls += 1
        inputs_now = tuple(map(id, inputs))
        if inputs_now != self._last:
            self._last = inputs_now
            self._inputs += 1
            count = self._inputs  # the first ones, powers of two, and every so many
            if count <= _FIRST_INPUTS or count & (count - 1) == 0 or count % _EVERY == 0:
                return True
        return self._calls & (self._calls - 1) == 0


def _use_of(site: RowQuantizer, x: Any, rows: Any) -> SiteUse | None:
    if site.own_scales:
        return None if site.signed else _negative(site, x)
    found = _ends_of(rows)
    if found is None:
        return None
    ends, centred = found
    return use_of(site.site_name, ends, centred, site.ends)


def _negative(site: RowQuantizer, x: Any) -> SiteUse | None:
    """Rows with a scale each fit it, but not below zero where no value was negative before."""
    rows = waiting(x)
    values = x if rows is None else rows.known
    if not isinstance(values, Tensor) or values.numel() == 0:
        return None
    sample = values[row_sample(values.size(0))]
    share = float((sample < 0).any(1).float().mean())
    return SiteUse(site.site_name, share, 0.0, sample.size(0))


def _ends_of(rows: Rows | None) -> tuple[Ends, bool] | None:
    """End codes of packed rows, and whether code 0 stands for a negative value."""
    if rows is None:
        return None
    cols = column_sample(rows.num_cols)
    sample = rows.data.sample(rows.affine, row_sample(rows.num_rows), cols)
    if sample is None:
        return None
    return count_ends(*sample), bool((rows.zero_point > 0).any())
