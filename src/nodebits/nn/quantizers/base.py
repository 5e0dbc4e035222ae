"""The quantizer at a site: codes in training, a frozen row quantizer for inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nodebits.core.affine import Codes
from nodebits.graph.csr import Graph
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.memo import SparseMemo
from nodebits.nn.quantizers.rows import FloatRows, RowQuantizer


class Quantizer(nn.Module):
    """Base of all activation quantizers.

    Attributes:
        bits: Bitwidth, None where the tensor stays in float.
        axis: -1 one scale, 1 one per column, 0 one per row.
        protectable: Whether rows that a method protects bypass rounding here (and are not
            observed).
        last_shape: Rows and columns of the last tensor that passed; None before the first.
    """

    bits: int | None
    axis: int = -1
    protectable: bool = False
    calibrating: bool = False
    last_shape: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Codes:
        """Quantizes ``x`` float32 ``[N, C]``."""
        raise NotImplementedError

    def freeze(self) -> RowQuantizer:
        """Returns the inference form, which makes the same codes."""
        raise NotImplementedError

    def sparse(self, x: Tensor) -> Graph | None:
        """The codes of a constant ``x`` as sparse rows, where most are zero; None otherwise.

        Call it after :meth:`forward`. Edge weights are the codes, sources the columns.
        """
        return None

    def reset(self) -> None:
        """Forgets what was observed."""

    def describe(self) -> str:
        """Granularity in words, for reports."""
        return {-1: "tensor", 0: "row", 1: "column"}[self.axis]

    @property
    def observing(self) -> bool:
        """Whether this forward may update ranges."""
        return self.training or self.calibrating

    def protected_rows(self, x: Tensor) -> Tensor | None:
        """Index of the rows of ``x`` that stay in float in this step, or None."""
        if not (self.protectable and self.training):
            return None
        mask = current_scope().protected
        if mask is None or mask.numel() != x.size(0):
            return None
        return mask.nonzero().view(-1)


def keep_float(codes: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, rows: Tensor) -> Tensor:
    """Replaces the codes of protected rows by ``x / scale + zero_point``, unrounded.

    ``(code - zero_point) * scale`` then gives x back, with gradient 1 for x and none for the scale.
    """
    return codes.index_copy(0, rows, x.index_select(0, rows) / scale + zero_point)


def drop_rows(x: Tensor, rows: Tensor | None) -> Tensor:
    """``x`` without the given rows: what observers may see. All of them if none would be left."""
    if rows is None or rows.numel() == 0:
        return x
    keep = torch.ones(x.size(0), dtype=torch.bool, device=x.device)
    keep[rows] = False
    return x[keep] if rows.numel() < x.size(0) else x


class FloatQuantizer(Quantizer):
    """Leaves the tensor in float: scale 1, zero point 0, no rounding."""

    bits = None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1), persistent=False)
        self.register_buffer("zero", torch.zeros(1), persistent=False)
        self._sparse = SparseMemo()

    def forward(self, x: Tensor) -> Codes:
        """Returns ``x`` as it is."""
        return Codes(x, self.get_buffer("one"), self.get_buffer("zero"), None)

    def sparse(self, x: Tensor) -> Graph | None:
        """See :meth:`Quantizer.sparse`."""
        return self._sparse.rows(x, owned=False)

    def freeze(self) -> RowQuantizer:
        """See :meth:`Quantizer.freeze`."""
        return FloatRows()

    def describe(self) -> str:
        """See :meth:`Quantizer.describe`."""
        return "float"


@contextmanager
def calibration(model: nn.Module) -> Iterator[None]:
    """Lets every quantizer of ``model`` observe while it is open, whatever the training mode."""
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer)]
    for quantizer in quantizers:
        quantizer.calibrating = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.calibrating = False
