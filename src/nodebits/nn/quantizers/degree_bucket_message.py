"""Messages by degree (SGQuant): a scale per column, times a power of two per bucket of degrees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, Codes
from nodebits.engine.sites import DegreeBucketMessageRows, RowQuantizer
from nodebits.nn.quantizers.degree_bucket import LearnedBuckets, bucket_grid
from nodebits.ops.autograd import FakeQuantize, Gradient, ScaleGradient


class DegreeBucketMessageQuantizer(LearnedBuckets):
    """A learned scale per column (or tensor), times a power of two per degree bucket.

    The scale is initialised by a grid at the largest width on all rows; each bucket takes the power
    ``0 <= k_b <= 8 - width`` of least error on its own rows.

    Args:
        splits: As in :class:`DegreeBucketQuantizer`.
        widths: Likewise.
        num_columns: C for one scale per column, None for one per tensor.
        where: Name of the site, for errors.
    """

    shift: Tensor

    def __init__(
        self,
        splits: Sequence[int],
        widths: Sequence[int],
        num_columns: int | None = None,
        where: str = "",
    ) -> None:
        super().__init__(splits, widths, where)
        self.axis = -1 if num_columns is None else 1
        self._add_scales(num_columns or 1)
        self.register_buffer("shift", torch.zeros(len(widths), dtype=torch.uint8))

    def _start(self, parts: list[Tensor]) -> None:
        x = torch.cat(parts)
        self.scale.copy_(bucket_grid(x, max(self.buckets.widths), self.axis, bool(self.signed)))
        zeros = self._zero_points()
        for bucket, (width, part) in enumerate(zip(self.buckets.widths, parts, strict=True)):
            seen = part if part.numel() else x
            errors = []
            for shift in range(8 - width + 1):
                step = self.scale * 2.0**shift
                codes = torch.round(seen / step + zeros[bucket]).clamp(0, (1 << width) - 1)
                errors.append(float(((codes - zeros[bucket]) * step - seen).square().mean()))
            self.shift[bucket] = min(range(len(errors)), key=errors.__getitem__)

    def _zeros(self, parts: list[Tensor]) -> Tensor:
        x = torch.cat(parts)
        return ~(x.any(0) if self.axis == 1 else x.any().view(1))

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`; the codes are shifted."""
        graph = self.buckets.graph(x.size(0), self.where)
        nodes, place = self.buckets.rows(graph)
        self._show(x, nodes)
        self._check_calibrated()
        scale = self.scale.clone().abs().clamp_min(MIN_SCALE)  # see DegreeBucketQuantizer
        if self.training:
            count = max(x.numel() // scale.numel(), 1)
            scale = ScaleGradient.apply(
                scale, (count * ((1 << max(self.buckets.widths)) - 1)) ** -0.5
            )
        zeros, powers = self._zero_points(), [2.0**k for k in self.shift.tolist()]
        parts = []
        for bucket, (width, rows) in enumerate(zip(self.buckets.widths, nodes, strict=True)):
            power = powers[bucket]
            # A power of two divides without rounding: one order of operations or the other.
            part = x.index_select(0, rows) * (1.0 / power)
            zero = torch.full_like(scale.detach(), zeros[bucket])
            codes = FakeQuantize.apply(part, scale, zero, self.axis, width, int(Gradient.CLIP))
            parts.append(codes * power)
        codes = torch.cat(parts).index_select(0, place)
        row_zero = x.new_tensor([z * p for z, p in zip(zeros, powers, strict=True)])
        row_zero = row_zero.index_select(0, self.buckets.of(graph)).view(-1, 1)
        return Codes(codes, scale, row_zero, 8)

    def row_top(self, x: Tensor) -> Tensor | None:
        """See :meth:`Quantizer.row_top`; codes are shifted."""
        top = super().row_top(x)
        assert top is not None
        bucket = self.buckets.of(self.buckets.graph(x.size(0), self.where))
        return torch.ldexp(top, self.shift[bucket].int().view(-1, 1))

    def freeze(self) -> RowQuantizer:
        self._check_calibrated()
        scale = self.scale.detach().abs().clamp_min(MIN_SCALE)
        return DegreeBucketMessageRows(self.buckets, scale, self.shift, bool(self.signed))
