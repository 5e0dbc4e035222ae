"""Codes of constant inputs, remembered: raw features are quantized once, not once per epoch."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.distributed import world_size
from nodebits.graph.csr import Graph
from nodebits.graph.memo import Memo

# Up to this share of codes that are not zero a gather of weights is faster than a dense product.
_SPARSE_DENSITY = 0.1


class CodesMemo:
    """Remembers the codes of the last tensor that carries no gradient and did not change since.

    ``state`` is whatever else the codes depend on. See :class:`nodebits.graph.Memo` for what
    counts as a change.
    """

    def __init__(self) -> None:
        self._memo = Memo(1)

    def recall(self, x: Tensor, state: Hashable = None, observing: bool = False) -> Codes | None:
        """The codes of ``x``, if they are remembered.

        Args:
            x: The tensor.
            state: See the class.
            observing: Whether ranges may be updated: then only codes of a tensor that was observed
                will do.
        """
        if x.requires_grad or x.is_inference():
            return None
        known: tuple[Codes, bool] | None = self._memo.get(x, state)
        if known is None:
            return None
        # Ranks of a distributed training observe equally often, whatever each of them remembers.
        return None if observing and (not known[1] or world_size() > 1) else known[0]

    def remember(
        self, x: Tensor, codes: Codes, state: Hashable = None, observing: bool = False
    ) -> None:
        """Keeps the codes of ``x`` if neither carries a gradient."""
        if x.requires_grad or x.is_inference() or codes.codes.requires_grad:
            return
        self._memo.put(x, state, (codes, observing))

    def forget(self) -> None:
        """Drops what is remembered."""
        self._memo.forget()


class SparseMemo:
    """Remembers the sparse rows of the last constant codes, or that they are dense."""

    def __init__(self) -> None:
        self._memo = Memo(1)

    def rows(self, codes: Tensor, owned: bool = True) -> Graph | None:
        """Sparse rows of ``codes``; None where dense or not constant.

        Args:
            codes: float32 ``[N, K]``.
            owned: Whether only the library writes to ``codes``: not where they are the features.
        """
        if codes.requires_grad or codes.is_inference() or codes.dim() != 2:
            return None
        made = self._memo.recall(codes, None, lambda: (sparse_rows(codes),), owned)
        return made[0]


def sparse_rows(codes: Tensor) -> Graph | None:
    """Rows of ``codes`` ``[N, K]`` as a graph from columns to rows; None where dense."""
    if codes.numel() == 0 or int(codes.count_nonzero()) > _SPARSE_DENSITY * codes.numel():
        return None
    rows, cols = codes.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=codes.size(0))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Graph(indptr, cols.int(), codes.size(1), None, codes[rows, cols])
