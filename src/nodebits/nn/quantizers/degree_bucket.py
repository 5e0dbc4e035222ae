"""Widths by degree (SGQuant's topology-aware granularity): nodes in buckets of their in-degree.

Bucket j holds the nodes of in-degree ``splits[j-1] <= d < splits[j]``, before self loops are added.
Which node is in which bucket follows from the graph of the forward, so nothing is stored per node
and any graph can be run.

* Rows that enter a product have a range per bucket (:class:`DegreeBucketQuantizer`), or, where they
  are raw features, one per row at the bucket's width (:class:`DegreeBucketDynamicQuantizer`).
* Messages must stay summable as integers over nodes of different buckets. They share one scale per
  column (or tensor) and a bucket's range is that of its width times a power of two
  (:mod:`.degree_bucket_message`): ``(u - z_b) * 2^k_b * scale``, so a sum over neighbours
  is the integer sum of shifted codes.

Codes are unsigned from 0 where no value was negative; else their levels lie evenly around zero,
``z_b = (2^b - 1) / 2``, which one and two bits need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.affine import MIN_SCALE, Codes
from nodebits.core.distributed import on_any_rank
from nodebits.core.errors import NotCalibratedError
from nodebits.core.grid import grid_qparams
from nodebits.core.observer import check_finite
from nodebits.core.seen import SeenParts
from nodebits.engine.buckets import Buckets
from nodebits.engine.by_width import row_extent, scale_of, zero_points
from nodebits.engine.sites import (
    DegreeBucketDynamicRows,
    DegreeBucketRows,
    RowQuantizer,
)
from nodebits.graph.csr import Graph
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.memo import CodesMemo, SparseMemo
from nodebits.ops.autograd import FakeQuantize, Gradient, ScaleGradient


class _Bucketed(Quantizer):
    """What the three quantizers share: buckets, sign and state.

    Ranges are found from the rows of every bucket, a list of float32 ``[n, C]``.
    """

    signed: Tensor
    initialized: Tensor

    def __init__(self, splits: Sequence[int], widths: Sequence[int], where: str) -> None:
        super().__init__()
        self.buckets = Buckets(splits, widths, where)
        self.bits = max(widths)
        self.where = where
        self.seen = SeenParts(len(self.buckets.widths))
        self.register_buffer("signed", torch.zeros((), dtype=torch.bool))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    def _zero_points(self) -> list[float]:
        """Zero point of each bucket."""
        table = zero_points(bool(self.signed), self.signed.device).tolist()
        return [table[width - 1] for width in self.buckets.widths]

    @property
    def known(self) -> bool:
        return bool(self.initialized)

    def row_top(self, x: Tensor) -> Tensor | None:
        widths = self.buckets.layout(self.buckets.graph(x.size(0), self.where)).widths
        return torch.exp2(widths.float()).view(-1, 1) - 1

    @property
    def _settled(self) -> bool:
        """Whether no training batch could tell anything more."""
        return self.known and bool(self.signed) and not self.seen

    def _show(self, x: Tensor, nodes: list[Tensor]) -> None:
        """Observes ``x`` by bucket, where ranges may be updated."""
        if self.observing and not (self.training and self._settled):
            x = x.detach()
            self.observe(x, [x.index_select(0, rows) for rows in nodes])

    def _check_calibrated(self) -> None:
        if not bool(self.initialized):
            raise NotCalibratedError(
                f"site {self.where!r} has seen no data: train the prepared model or call "
                "nodebits.calibrate(model, x, edge_index) before evaluating or converting it"
            )

    def reset(self) -> None:
        super().reset()
        self.initialized.fill_(False)

    def describe(self) -> str:
        return "degree bucket"


def bucket_grid(x: Tensor, bits: int, axis: int, signed: bool) -> Tensor:
    """Scale of least error; levels evenly around zero where ``signed``.

    Where all values are zero it is that of the others, at most: signed codes have no level at zero.
    """
    if not signed:
        return grid_qparams(x, bits, axis, "unsigned")[0]
    scale = grid_qparams(torch.cat([x, -x]), bits, axis, "centered")[0]
    zero = ~(x.any(0) if axis == 1 else x.any().view(1))
    least = MIN_SCALE if bool(zero.all()) else float(scale[~zero].min())
    return torch.where(zero, least, scale)


class LearnedBuckets(_Bucketed):
    """A learned scale per bucket or column, and what later batches do to it."""

    scale: nn.Parameter
    waiting: Tensor

    @property
    def _settled(self) -> bool:
        return super()._settled and not bool(self.waiting.any())

    def _add_scales(self, count: int) -> None:
        self.scale = nn.Parameter(torch.ones(count))
        # Scales of which only zeros were seen.
        self.register_buffer("waiting", torch.zeros(count, dtype=torch.bool))

    def _start(self, parts: list[Tensor]) -> None:
        """Scales of the rows of all buckets; ``signed`` is known."""
        raise NotImplementedError

    def _zeros(self, parts: list[Tensor]) -> Tensor:
        """Scales for which there are only zeros, bool."""
        raise NotImplementedError

    @torch.no_grad()
    def estimate(self, x: list[Tensor]) -> None:
        self.signed.fill_(any(bool((part < 0).any()) for part in x))
        self._start(x)
        self.waiting.copy_(self._zeros(x))
        self.initialized.fill_(True)

    @torch.no_grad()
    def follow(self, x: list[Tensor]) -> None:
        """See :meth:`Quantizer.follow`: codes get a sign, and scales that saw only zeros start."""
        turned = not bool(self.signed) and any(bool((part < 0).any()) for part in x)
        fresh = self.waiting & ~self._zeros(x) if bool(self.waiting.any()) else self.waiting
        if not turned and not bool(fresh.any()):
            return
        before = self.scale.abs()
        if turned:  # half of the codes are negative now: twice the step covers what it did
            self.signed.fill_(True)
            before = 2 * before
        self._start(x)
        kept = before if not turned else torch.maximum(before, self.scale)
        self.scale.copy_(torch.where(fresh, self.scale, kept))
        self.waiting.logical_and_(~fresh)

    @torch.no_grad()
    def widen(self, x: list[Tensor]) -> None:
        """See :meth:`Quantizer.widen`: where values lie beyond twice the range."""
        self.follow(x)
        before = self.scale.clone()
        self._start(x)
        found = torch.where(self._zeros(x), before, self.scale)
        self.scale.copy_(torch.where(found > 2 * before.abs(), found, before))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # Checkpoints of earlier versions do not say.
        if prefix + "scale" in state_dict:
            state_dict.setdefault(prefix + "waiting", torch.zeros_like(self.waiting))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class DegreeBucketQuantizer(LearnedBuckets):
    """One learned scale per degree bucket, initialised by a grid on the bucket's rows.

    Args:
        splits: Degrees at which buckets begin, rising; one fewer than ``widths``.
        widths: Bits of each bucket, lowest degrees first.
        where: Name of the site, for errors.
    """

    axis = 0

    def __init__(self, splits: Sequence[int], widths: Sequence[int], where: str = "") -> None:
        super().__init__(splits, widths, where)
        self._add_scales(len(widths))

    def _start(self, parts: list[Tensor]) -> None:
        for bucket, (width, part) in enumerate(zip(self.buckets.widths, parts, strict=True)):
            # A bucket without nodes here may have some in another graph.
            seen = part if part.numel() else torch.cat(parts)
            self.scale[bucket] = bucket_grid(seen, width, -1, bool(self.signed))[0]

    def _zeros(self, parts: list[Tensor]) -> Tensor:
        return torch.tensor([not bool(part.any()) for part in parts], device=self.scale.device)

    def forward(self, x: Tensor) -> Codes:
        graph = self.buckets.graph(x.size(0), self.where)
        nodes, place = self.buckets.rows(graph)
        self._show(x, nodes)
        self._check_calibrated()
        # A clone: a second call in the same step may find another range.
        scale = self.scale.clone().abs().clamp_min(MIN_SCALE)
        parts = []
        zeros = self._zero_points()
        for bucket, (width, rows) in enumerate(zip(self.buckets.widths, nodes, strict=True)):
            own = scale[bucket : bucket + 1]
            if self.training:
                factor = (max(rows.numel() * x.size(1), 1) * ((1 << width) - 1)) ** -0.5
                own = ScaleGradient.apply(own, factor)
            zero = x.new_full((1,), zeros[bucket])
            parts.append(
                FakeQuantize.apply(
                    x.index_select(0, rows), own, zero, -1, width, int(Gradient.CLIP)
                )
            )
        codes = torch.cat(parts).index_select(0, place)
        bucket_of = self.buckets.of(graph)
        row_scale = scale.index_select(0, bucket_of).view(-1, 1)
        row_zero = x.new_tensor(zeros).index_select(0, bucket_of).view(-1, 1)
        return Codes(codes, row_scale, row_zero, self.bits)

    def freeze(self) -> RowQuantizer:
        self._check_calibrated()
        scale = self.scale.detach().abs().clamp_min(MIN_SCALE)
        return DegreeBucketRows(self.buckets, scale, bool(self.signed))


class DegreeBucketDynamicQuantizer(_Bucketed):
    """Every row brings its own scale, at the width of its bucket: for raw features.

    Args:
        splits: As in :class:`DegreeBucketQuantizer`.
        widths: Likewise.
        where: Likewise.
    """

    axis = 0

    def __init__(self, splits: Sequence[int], widths: Sequence[int], where: str = "") -> None:
        super().__init__(splits, widths, where)
        self._memo = CodesMemo()
        self._sparse = SparseMemo()

    def forward(self, x: Tensor) -> Codes:
        graph = self.buckets.graph(x.size(0), self.where)
        state = (bool(self.signed), graph)
        remembered = self._memo.recall(x, state, self.observing)
        if remembered is not None:
            return remembered
        if self.observing:
            check_finite(x, self.described)
            self.signed.fill_(bool(self.signed) | on_any_rank(bool((x < 0).any()), x.device))
            self.initialized.fill_(True)
        self._check_calibrated()
        layout = self.buckets.layout(graph)
        signed = bool(self.signed)
        with torch.no_grad():
            scale = scale_of(row_extent(x, signed), layout.widths, signed)
            zero = zero_points(signed, x.device)[layout.widths.long() - 1]
        nodes, place = self.buckets.rows(graph)
        parts = [
            FakeQuantize.apply(x[rows], scale[rows], zero[rows], 0, width, int(Gradient.PASS))
            for width, rows in zip(self.buckets.widths, nodes, strict=True)
        ]
        codes = torch.cat(parts).index_select(0, place)
        row_zero = zero.view(-1, 1) if signed else zero.new_zeros(1)
        result = Codes(codes, scale.view(-1, 1), row_zero, self.bits)
        self._memo.remember(x, result, (signed, graph), self.observing)
        return result

    def show(self, x: Tensor, codes: Codes) -> None:
        """See :meth:`Quantizer.show`: nothing to tell, every row fits its own scale."""

    def sparse(self, x: Tensor) -> Graph | None:
        """See :meth:`Quantizer.sparse`. A zero point would fill the zeros."""
        known = self._memo.recall(x, (bool(self.signed), current_scope().graph))
        return None if known is None or bool(self.signed) else self._sparse.rows(known.codes)

    def freeze(self) -> RowQuantizer:
        self._check_calibrated()
        return DegreeBucketDynamicRows(self.buckets, bool(self.signed))

    def reset(self) -> None:
        super().reset()
        self._memo.forget()
