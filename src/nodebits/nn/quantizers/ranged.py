"""Quantizers with one range for all rows, or, where data says that none fits, a scale per row."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.context import current
from nodebits.core.distributed import world_size
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.use import SampledCodes
from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.base import Quantizer, drop_rows, keep_float
from nodebits.nn.quantizers.dynamic import DynamicRowQuantizer

# A scale per row is taken where one for all loses this share of a row on average, and the other
# less than half as much: not for what low widths lose anyway, but where one value outgrew the rest.
_LOSS, _GAIN = 0.25, 2.0
# A hidden result then exists in float: only where nearly all of that loss goes away.
_GAIN_HIDDEN = 8.0
# Where a scale per row costs nothing the better one is taken.
_FREE = (0.0, 1.0)
_HALVES = (0.0, 2.0)
_ROWS = 4096


class RowScales(Enum):
    """Where data may choose a scale per row."""

    OUTLIERS = "where one scale is useless for most rows"
    HIDDEN = "likewise, and in training for hidden results too"
    INPUTS = "likewise, and at inputs of the model wherever it loses less"
    HALVES = "likewise, and elsewhere where it loses less than half"
    WEIGHED = "where one scale is useless, and where it loses less than half and rows are weighed"
    ANYWHERE = "wherever it loses less: the rows exist in float in any case"


class RangeQuantizer(Quantizer):
    """Base: a range per tensor or column, found by :meth:`Quantizer.observe`.

    A site that may have a scale per row instead is told so by :meth:`offer_rows`. The first data
    decides (all of it, while calibrating): a row far outside of the others makes one scale useless
    for them, as sums with raw edge weights do. Hidden results are looked at in training where a
    product reads them: rows behind a sum differ in size as degrees do. Others keep the scale that
    they learn, with which they never exist in float.
    """

    bits: int
    by_row: Tensor
    row_form: DynamicRowQuantizer | None
    _where = RowScales.OUTLIERS
    _weighed = False
    _shared_axis = -1

    def __init__(self) -> None:
        super().__init__()
        self.row_form = None

    def offer_rows(self, where: RowScales = RowScales.OUTLIERS) -> None:
        """Allows a scale per row, chosen from data."""
        self.row_form, self._where = DynamicRowQuantizer(self.bits), where
        self._shared_axis = self.axis
        self.register_buffer("by_row", torch.zeros((), dtype=torch.bool))

    @property
    def weighed(self) -> bool:
        """Whether numbers per edge weigh the rows, of which a scale per row may be part."""
        return self._weighed and self._where is RowScales.WEIGHED

    @weighed.setter
    def weighed(self, weighed: bool) -> None:
        self._weighed = weighed

    def qparams(self) -> tuple[Tensor, Tensor]:
        """``(scale, zero_point)``.

        Raises:
            NotCalibratedError: Before the first batch.
        """
        raise NotImplementedError

    def round(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of ``x`` with these parameters."""
        raise NotImplementedError

    def step_size(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        """The parameters as training sees them: with the gradient that they shall have."""
        return scale, zero_point

    def forward(self, x: Tensor) -> Codes:
        rows = self.protected_rows(x)
        chosen = self.training and self._each is not None
        if self.observing and not chosen and not self._learns_nothing(x):
            fresh = not self.known
            data = drop_rows(x.detach(), rows)
            data = self.observe(data)
            if fresh or self.seen:
                if self.seen and not (fresh and self.training):
                    data = self.seen.kept()
                if self.training:  # without gradients nothing tells a hidden result
                    hidden = x.requires_grad or not torch.is_grad_enabled()
                else:
                    hidden = x.data_ptr() not in current().given
                free = self._where in (RowScales.INPUTS, RowScales.HALVES) and not hidden
                if free or self._where is RowScales.ANYWHERE:
                    self._choose(data, *_FREE)
                elif self._where is RowScales.HALVES or self.weighed:
                    self._choose(data, *_HALVES)
                elif not (hidden and self.training) or self._where is RowScales.HIDDEN:
                    self._choose(data, _LOSS, _GAIN_HIDDEN if hidden else _GAIN)
        each = self._each
        if each is not None:
            return self.touch(each(x))
        return self.codes_of(x, rows)

    def _learns_nothing(self, x: Tensor) -> bool:
        """Whether observing a training batch is known to leave everything as it is."""
        if not self.training or world_size() > 1 or self.seen or self._found:
            return False
        return x.numel() > 0 and self.known and self.fits(x)

    def fits(self, x: Tensor) -> bool:
        """Whether no part of ``x`` can tell a known range anything, told by less than observing."""
        return False

    def codes_of(self, x: Tensor, rows: Tensor | None) -> Codes:
        """Codes with the present range.

        Args:
            x: float32 ``[N, C]``.
            rows: Those that stay in float, or None.
        """
        scale, zero_point = self.qparams()
        if self.training:
            scale, zero_point = self.step_size(x, scale, zero_point)
        codes = self.round(x, scale, zero_point)
        if rows is not None:
            codes = keep_float(codes, x, scale, zero_point, rows)
        return Codes(codes, scale, zero_point, self.bits)

    def show(self, x: Tensor, codes: Codes) -> None:
        if self._each is None:
            super().show(x, codes)
        else:
            self.sampled.clear()

    @torch.no_grad()
    def recount(self, sample: SampledCodes) -> SampledCodes:
        scale, zero_point = (p if p.numel() == 1 else p[sample.columns] for p in self.qparams())
        codes = self.round(sample.x, scale, zero_point)
        return sample._replace(codes=codes, scale=scale, zero_point=zero_point)

    @property
    def _each(self) -> DynamicRowQuantizer | None:
        """The scale per row, where data chose it."""
        return self.row_form if self.row_form is not None and bool(self.by_row) else None

    @property
    def idle(self) -> list[Tensor]:
        return [] if self._each is None else list(self.parameters())

    @torch.no_grad()
    def _choose(self, x: Tensor, loss: float, gain: float) -> None:
        """Takes a scale per row where another loses more than ``loss``, and ``gain`` times more."""
        if self.row_form is None or x.numel() == 0:
            return
        self._set_by_row(False)
        negative = (x < 0).any()
        self.row_form.signed.logical_or_(negative)
        x = x[:: max(x.size(0) // _ROWS, 1)]
        scale, zero_point = self.qparams()
        one = self._loss(x, (self.round(x, scale, zero_point) - zero_point) * scale)
        each = self._loss(x, self.row_form.values(x))
        self._set_by_row(one > loss and each * gain < one)

    @staticmethod
    def _loss(x: Tensor, values: Tensor) -> float:
        """Mean over rows of the share of a row that is lost, at most all of it."""
        size = x.abs().sum(1)
        lost = (values - x).abs().sum(1) / size.clamp_min(1e-30)
        return float(lost[size > 0].clamp(max=1.0).mean()) if bool((size > 0).any()) else 0.0

    def _set_by_row(self, by_row: bool) -> None:
        self.by_row.fill_(by_row)
        self.axis = 0 if by_row else self._shared_axis

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if self.row_form is not None and any(key.startswith(prefix) for key in state_dict):
            # Checkpoints of earlier versions have one range at such a site.
            for name in ("by_row", "row_form.signed"):
                state_dict.setdefault(prefix + name, torch.tensor(False, device="cpu"))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.row_form is not None:
            self._set_by_row(bool(self.by_row))

    def sparse(self, x: Tensor) -> Graph | None:
        return None if self._each is None else self._each.sparse(x)

    def freeze(self) -> RowQuantizer:
        return self.frozen() if self._each is None else self._each.freeze()

    def frozen(self) -> RowQuantizer:
        """Inference form of the range."""
        raise NotImplementedError

    def reset(self) -> None:
        super().reset()
        if self.row_form is not None:
            self.row_form.reset()
            self._set_by_row(False)
