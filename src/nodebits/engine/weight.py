"""Weights of packed layers: signed codes, one scale per output channel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import BITS, FLAG, SIZE, ListOf, Optional, Options, check_fields
from nodebits.core.recorded import recorded
from nodebits.engine.loaded import check_values


class PackedWeight(nn.Module):
    """Weights of a packed layer.

    Args:
        packed: uint8 ``[M, ceil(K * bits / 8)]``, two's complement fields, low bits first; float32
            ``[M, K]`` where ``bits`` is None.
        scale: float32 ``[M]``.
        bits: 1 to 8, or None.
        num_cols: K.
        midrise: Whether a field c stands for ``2c + 1``.

    Attributes:
        folded: Whether version 1 of files multiplied a norm into the scales: some are negative.
    """

    options: ClassVar[Options] = {
        "bits": Optional(BITS),
        "shape": ListOf(SIZE, 2),
        "midrise": FLAG,
        "folded": Optional(FLAG, absent=True),
    }
    folded: bool = False
    packed: Tensor
    scale: nn.Parameter
    col_sum: Tensor

    def __init__(
        self,
        packed: Tensor,
        scale: Tensor,
        *,
        bits: int | None,
        num_cols: int,
        midrise: bool,
        col_sum: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.bits, self.num_cols, self.midrise = bits, num_cols, midrise
        self._transposed: dict[int, tuple[Tensor, Tensor]] = {}
        self.register_buffer("packed", packed)
        # A parameter, though nothing trains it: models ask next(self.parameters()) for a device.
        self.set_scale(scale)
        # Sum of the codes over K per output channel: the zero point's share of every product.
        self.register_buffer("col_sum", self.codes().sum(1) if col_sum is None else col_sum)

    def set_scale(self, scale: Tensor) -> None:
        """Sets the scales, float32 ``[M]``."""
        self.scale = nn.Parameter(scale.detach(), requires_grad=False)

    @property
    def num_rows(self) -> int:
        """Output channels."""
        return self.packed.size(0)

    @property
    def max_magnitude(self) -> int:
        """Largest magnitude of a decoded code; 0 where weights are float."""
        if self.bits is None:
            return 0
        return max_code(self.bits) if self.midrise else 1 << (self.bits - 1)

    def codes(self) -> Tensor:
        """Decoded integer weights, float32 ``[M, K]`` (a transient copy)."""
        if self.bits is None:
            return self.packed
        return self._decoded(self.packed)

    def _decoded(self, packed: Tensor) -> Tensor:
        """Integer weights of some packed rows, float32."""
        assert self.bits is not None
        fields = ops.unpack(packed, self.bits, self.num_cols).to(torch.int16)
        signed = torch.where(fields >= 1 << (self.bits - 1), fields - (1 << self.bits), fields)
        return (2 * signed + 1 if self.midrise else signed).float()

    def rows(self, ids: Tensor) -> Tensor:
        """Values of some rows, float32 ``[len(ids), K]``.

        Args:
            ids: int64 ``[*]``.
        """
        if self.bits is None:
            scale = self.scale.index_select(0, ids).view(-1, 1)
            return self.packed.index_select(0, ids) * scale

        def run() -> Tensor:
            scale = self.scale.index_select(0, ids).view(-1, 1)
            some = PackedWeight(
                self.packed.index_select(0, ids),
                scale,
                bits=self.bits,
                num_cols=self.num_cols,
                midrise=self.midrise,
                col_sum=scale,
            )
            return some.codes() * scale

        table = self.packed, self.scale.detach(), self.bits, self.num_cols, self.midrise
        return recorded("embedding", run, ids, *table)

    def dequantize(self) -> Tensor:
        """What the codes stand for, float32 ``[M, K]`` (a transient copy)."""
        return self.codes() if self.bits is None else self.codes() * self.scale.view(-1, 1)

    def transposed(self, bits: int) -> Tensor:
        """Unsigned fields ``c + 2^(b-1)`` of the transposed weight, packed: uint8 ``[K, *]``.

        Made at the first call and kept: the table of a product with sparse rows.

        Args:
            bits: Width that a field takes there, at least the weight's own.
        """
        assert self.bits is not None
        made = self._transposed.get(bits)
        if made is None or made[0] is not self.packed:
            fields = ops.unpack(self.packed, self.bits, self.num_cols)
            unsigned = (fields ^ (1 << (self.bits - 1))).t().contiguous()
            made = (self.packed, ops.pack(unsigned, bits))
            self._transposed[bits] = made
        return made[1]

    def check_loaded(self) -> None:
        """Refuses values, read from a file, that no weight has.

        Raises:
            FileFormatError: Names the tensor, the value and its position.
        """
        check_values(self.scale, "scale", not self.folded)
        if self.bits is None:
            return
        step = max(1, (1 << 20) // max(1, self.num_cols))
        for first in range(0, self.num_rows, step):
            part = slice(first, first + step)
            if not torch.equal(self._decoded(self.packed[part]).sum(1), self.col_sum[part]):
                raise FileFormatError("col_sum is not the sum of the weight's codes")

    def config(self) -> dict[str, Any]:
        """JSON that, with the state dict, rebuilds this weight."""
        config: dict[str, Any] = {
            "bits": self.bits,
            "shape": [self.num_rows, self.num_cols],
            "midrise": self.midrise,
        }
        return {**config, "folded": True} if self.folded else config

    @classmethod
    def build(cls, config: dict[str, Any]) -> PackedWeight:
        """Inverse of :meth:`config`; buffers are filled by ``load_state_dict``."""
        check_fields(config, cls.options, "weight")
        rows, cols = (int(v) for v in config["shape"])
        if config["midrise"] and config["bits"] == 8:
            raise FileFormatError("a weight of 8 bits is midrise: 2c + 1 must fit int8")
        bits = None if config["bits"] is None else int(config["bits"])
        if bits is None:
            packed = torch.empty(rows, cols)
        else:
            packed = torch.empty(rows, (cols * bits + 7) // 8, dtype=torch.uint8)
        blank = torch.empty(rows)
        midrise = bool(config["midrise"])
        made = cls(packed, blank, bits=bits, num_cols=cols, midrise=midrise, col_sum=blank.clone())
        made.folded = bool(config.get("folded", False))
        return made
