"""Codes of constant inputs, remembered: raw features are quantized once, not once per epoch."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.distributed import world_size
from nodebits.graph.csr import Graph

# Up to this share of codes that are not zero a gather of weights is faster than a dense product.
_SPARSE_DENSITY = 0.1


class CodesMemo:
    """Remembers the codes of the last tensor that carries no gradient.

    A tensor counts as the same while it is the same object and was not written to. ``state`` is
    whatever else the codes depend on.
    """

    def __init__(self) -> None:
        self._entry: tuple[Any, int, Any, Codes, bool] | None = None

    def recall(self, x: Tensor, state: Any = None, observing: bool = False) -> Codes | None:
        """The codes of ``x``, if they are remembered.

        Args:
            x: The tensor.
            state: See the class.
            observing: Whether ranges may be updated: then only codes of a tensor that was observed
                will do.
        """
        entry = self._entry
        if entry is None or x.is_inference() or entry[0]() is not x:
            return None
        # Ranks of a distributed training observe equally often, whatever each of them remembers.
        if observing and (not entry[4] or world_size() > 1):
            return None
        return entry[3] if entry[1] == x._version and entry[2] == state else None

    def remember(self, x: Tensor, codes: Codes, state: Any = None, observing: bool = False) -> None:
        """Keeps the codes of ``x`` if neither carries a gradient."""
        if x.requires_grad or x.is_inference() or codes.codes.requires_grad:
            return
        self._entry = (weakref.ref(x), x._version, state, codes, observing)

    def forget(self) -> None:
        """Drops what is remembered."""
        self._entry = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_entry": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> CodesMemo:
        return CodesMemo()


class SparseMemo:
    """Remembers the sparse rows of the last constant input, or that it is dense."""

    def __init__(self) -> None:
        self._entry: tuple[Any, int, Graph | None] | None = None

    def rows(self, x: Tensor, codes: Tensor) -> Graph | None:
        """Sparse rows of ``codes``, made from ``x``; None where dense or not constant."""
        if x.requires_grad or codes.requires_grad or x.is_inference() or x.dim() != 2:
            return None
        entry = self._entry
        if entry is None or entry[0]() is not x or entry[1] != x._version:
            entry = (weakref.ref(x), x._version, sparse_rows(codes))
            self._entry = entry
        return entry[2]

    def __getstate__(self) -> dict[str, Any]:
        return {"_entry": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseMemo:
        return SparseMemo()


def sparse_rows(codes: Tensor) -> Graph | None:
    """Rows of ``codes`` ``[N, K]`` as a graph from columns to rows; None where dense."""
    if codes.numel() == 0 or int(codes.count_nonzero()) > _SPARSE_DENSITY * codes.numel():
        return None
    rows, cols = codes.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=codes.size(0))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Graph(indptr, cols.int(), codes.size(1), None, codes[rows, cols])
