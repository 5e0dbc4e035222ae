"""Integer weights of the edges of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EdgeCodes:
    """Integer weights of the edges.

    Attributes:
        codes: ``[E, H]`` in CSR order; float32 (training, centred on ``zero_point``) or uint8.
        row_sum: ``[num_dst, H]``, sums of the (centred) codes, float32.
        scale: ``[1]``, or None for 1.
        zero_point: 0, or ``2**(bits-1)`` where weights may be negative (uint8 codes only).
        max_code: Largest code; 0 where the weights stayed in float.
        row_scale: ``[num_dst, 1]``, the scale of every target's weights, or None for 1.
    """

    codes: Tensor
    row_sum: Tensor
    scale: Tensor | None
    zero_point: int
    max_code: int
    row_scale: Tensor | None = None

    @property
    def are_codes(self) -> bool:
        """Whether the weights are uint8 codes, as a kernel reads them."""
        return self.codes.dtype == torch.uint8

    def centred(self) -> Tensor:
        """Codes minus their zero point, float32 ``[E, H]``."""
        return self.codes.float() - self.zero_point if self.zero_point else self.codes.float()
