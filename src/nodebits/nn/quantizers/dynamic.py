"""A quantizer whose every row brings its own scale, read from the row itself.

Made for raw features: a 0/1 row, or one divided by its length, is exact at any width. It has no
state to train, so the codes of a constant feature matrix are computed once, and kept as sparse rows
where most are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import Codes, check_bits
from nodebits.core.distributed import on_any_rank
from nodebits.core.observer import check_finite
from nodebits.core.own_scale import OwnScale
from nodebits.engine.sites import DynamicRows, RowQuantizer
from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.memo import CodesMemo, SparseMemo
from nodebits.ops.autograd import FakeQuantize, Gradient


class DynamicRowQuantizer(Quantizer):
    """Scale ``max |x_i| / qmax`` per row; of few bits, of a range cut to serve most values.

    Args:
        bits: 1 to 8.
    """

    axis = 0
    signed: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits: int = check_bits(bits)
        self.register_buffer("signed", torch.zeros((), dtype=torch.bool))
        self._memo = CodesMemo()
        self._sparse = SparseMemo()

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`. Not protectable: rows share no range here."""
        remembered = self._memo.recall(x, bool(self.signed), self.observing)
        if remembered is not None:
            return remembered
        if self.observing and not bool(self.signed):
            check_finite(x, self.described)
            self.signed.fill_(on_any_rank(bool((x < 0).any()), x.device))
        result = self._codes(x)
        self._memo.remember(x, result, bool(self.signed), self.observing)
        return result

    def show(self, x: Tensor, codes: Codes) -> None:
        """See :meth:`Quantizer.show`: nothing to tell, every row fits its own scale."""

    def _codes(self, x: Tensor) -> Codes:
        with torch.no_grad():
            own = self._own
            scale = own.scale(x)
            zero_point = scale.new_full((1,), own.zero_point)
        codes: Tensor = FakeQuantize.apply(
            x, scale, zero_point.expand_as(scale).contiguous(), 0, self.bits, int(Gradient.PASS)
        )
        return Codes(codes, scale.view(-1, 1), zero_point, self.bits)

    @property
    def _own(self) -> OwnScale:
        return OwnScale.usual(self.bits, bool(self.signed))

    def values(self, x: Tensor) -> Tensor:
        """What the codes of ``x`` ``[N, C]`` stand for."""
        return self._codes(x).dequantize()

    def sparse(self, x: Tensor) -> Graph | None:
        """See :meth:`Quantizer.sparse`. A zero point would fill the zeros."""
        known = self._memo.recall(x, bool(self.signed))
        return None if known is None or bool(self.signed) else self._sparse.rows(known.codes)

    def freeze(self) -> RowQuantizer:
        return DynamicRows(*self._own)

    def reset(self) -> None:
        super().reset()
        self.signed.fill_(False)
        self._memo.forget()
