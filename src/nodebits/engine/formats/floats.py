"""Rows that stayed in float: a site that a configuration leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits.engine.affine import Affine
from nodebits.engine.formats.base import Format, register_format
from nodebits.ops.selection import take_rows

# What floats are read with: themselves.
PLAIN = Affine(torch.ones(1, device="cpu"), torch.zeros(1, device="cpu"))


@register_format
@dataclass(frozen=True)
class Floats(Format):
    """Values float32 ``[N, C]``."""

    name: ClassVar[str] = "float"
    layout: ClassVar[None] = None
    bits: ClassVar[None] = None
    values: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.size(0), self.values.size(1)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def selected(self, index: Tensor) -> Floats:
        return Floats(take_rows(self.values, index))

    def codes(self, affine: Affine) -> Tensor:
        return self.values

    def summands(self, affine: Affine) -> None:
        return None

    def parts(self, affine: Affine) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {}, {"values": self.values}

    @classmethod
    def read(cls, about: dict[str, Any], parts: dict[str, Tensor]) -> tuple[Floats, Affine]:
        return cls(parts["values"]), PLAIN
