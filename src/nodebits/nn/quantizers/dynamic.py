"""A quantizer whose every row brings its own scale, read from the row itself.

Made for raw features: a 0/1 row, or one divided by its length, is exact at any width. It has no state to
train, so the codes of a constant feature matrix are computed once, and kept as sparse rows where most
are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import Codes, check_bits
from nodebits.core.observer import check_finite
from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.memo import CodesMemo
from nodebits.nn.quantizers.rows import DynamicRows, RowQuantizer, dynamic_row_scale
from nodebits.ops.autograd import FakeQuantize, Gradient

# Below this share of non-zero codes a sparse product is faster than the dense one.
SPARSE_DENSITY = 0.1


class DynamicRowQuantizer(Quantizer):
    """Scale ``max |x_i| / qmax`` per row.

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
        self._sparse: Graph | None = None

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`. Not protectable: rows share no range here."""
        remembered = self._memo.recall(x, bool(self.signed))
        if remembered is not None:
            return remembered
        if self.observing and not bool(self.signed):
            check_finite(x, "a tensor to be quantized")
            self.signed.fill_(bool((x < 0).any()))
        with torch.no_grad():
            scale, zero_point = dynamic_row_scale(x, self.bits, bool(self.signed))
        codes: Tensor = FakeQuantize.apply(
            x, scale, zero_point.expand_as(scale).contiguous(), 0, self.bits, int(Gradient.PASS)
        )
        result = Codes(codes, scale.view(-1, 1), zero_point, self.bits)
        self._memo.remember(x, result, bool(self.signed))
        if self._memo.recall(x, bool(self.signed)) is not None:
            self._sparse = None if bool(self.signed) else sparse_rows(codes)
        return result

    def sparse(self, x: Tensor) -> Graph | None:
        """The codes of ``x`` as sparse rows (weights are the codes), if remembered and sparse enough."""
        return None if self._memo.recall(x, bool(self.signed)) is None else self._sparse

    def freeze(self) -> RowQuantizer:
        """See :meth:`Quantizer.freeze`."""
        return DynamicRows(self.bits, bool(self.signed))

    def reset(self) -> None:
        """See :meth:`Quantizer.reset`."""
        self.signed.fill_(False)
        self._memo.forget()


def sparse_rows(codes: Tensor) -> Graph | None:
    """Rows of ``codes`` ``[N, K]`` as a graph from columns to rows, or None where they are dense."""
    if codes.numel() == 0 or int(codes.count_nonzero()) > SPARSE_DENSITY * codes.numel():
        return None
    rows, cols = codes.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=codes.size(0))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Graph(indptr, cols.int(), codes.size(1), None, codes[rows, cols])
