"""One width for all rows, and a scale that is known: per tensor, or per column."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits.core.errors import NotCalibratedError
from nodebits.core.file_fields import BITS, SIZE, Options, Text
from nodebits.core.registry import CODINGS
from nodebits.engine.affine import Affine
from nodebits.engine.encoding import Encoding
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import Place, RowQuantizer, register_rows, scaled

# floor(v) as rne(v - FLOOR): whole v must stay whole (0/1 features sit exactly on the levels), so
# the offset is a 1/2048 of a step short of a half.
FLOOR = 0.5 - 2.0**-11


@register_rows
class FloatRows(RowQuantizer):
    """A site that a configuration leaves in float."""

    kind = "float"
    granularity = "float"

    formats: ClassVar[tuple[str, ...]] = ("float",)

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> Rows:
        """See :meth:`RowQuantizer.pack`: the float rows."""
        return Rows.of_floats(scaled(x, row_factor))

    @classmethod
    def build(cls, config: dict[str, Any]) -> FloatRows:
        return cls()

    def scale_values(self, num_rows: int) -> int:
        return 0


@register_rows
class UnusedRows(RowQuantizer):
    """A site that saw no data before conversion, such as that of targets of their own."""

    kind = "unused"
    granularity = "unused"
    formats: ClassVar[tuple[str, ...]] = ()

    @property
    def unused(self) -> bool:
        return True

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> Rows:
        """Refuses.

        Raises:
            NotCalibratedError: Always; the message names the site.
        """
        raise NotCalibratedError(
            f"site {self.site_name!r} got data, but saw none before the model was converted: train "
            "or calibrate the prepared model with such inputs too (pairs (x_src, x_dst), edge "
            "weights), then convert it again"
        )

    @classmethod
    def build(cls, config: dict[str, Any]) -> UnusedRows:
        return cls()

    def scale_values(self, num_rows: int) -> int:
        return 0


@register_rows
class StaticRows(RowQuantizer):
    """Fixed scale and zero point, per tensor or per column.

    Args:
        scale: float32 ``[1]`` or ``[C]``.
        zero_point: float32, same shape.
        bits: 1 to 8.
    """

    kind = "static"
    options: ClassVar[Options] = {"bits": BITS, "num_scales": SIZE}
    positive: ClassVar[tuple[str, ...]] = ("scale",)
    finite: ClassVar[tuple[str, ...]] = ("zero_point",)
    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", scale.detach().clone().view(-1).contiguous())
        self.register_buffer("zero_point", zero_point.detach().expand_as(scale).clone().view(-1))
        self.axis = -1 if scale.numel() == 1 else 1
        self.granularity = "tensor" if self.axis == -1 else "column"

    @property
    def made_with(self) -> Tensor:
        """Zero point with which codes are made, shaped like ``scale``."""
        return self.zero_point

    @property
    def coding(self) -> int:
        """Number of the coding of the fields (:mod:`nodebits.core.codings`)."""
        return 0

    def encoding(self, place: Place, x: Tensor | None = None) -> Encoding:
        affine = Affine(self.scale, self.zero_point, self.axis)
        return Encoding(affine, self.made_with, int(self.bits or 0), coding=self.coding)

    def made(self, rows: Rows) -> bool:
        # Rows packed ahead by this very quantizer share its tensors; a file's are on the CPU.
        return super().made(rows) and all(
            own is theirs or torch.equal(own, theirs.to(own.device))
            for own, theirs in ((self.scale, rows.scale), (self.zero_point, rows.zero_point))
        )

    def reread(self, rows: Rows) -> Rows:
        return Rows(rows.data, Affine(self.scale, self.zero_point, self.axis))

    def config(self) -> dict[str, Any]:
        return {**super().config(), "num_scales": self.scale.numel()}

    @classmethod
    def build(cls, config: dict[str, Any]) -> StaticRows:
        blank = torch.empty(int(config["num_scales"]))
        return cls(blank, blank, int(config["bits"]))

    def scale_values(self, num_rows: int) -> int:
        return self.scale.numel()


@register_rows
class ShiftedRows(StaticRows):
    """Codes are made with another zero point than they are read with (BT*, see core).

    Args:
        scale: float32 ``[1]`` or ``[C]``.
        zero_point: float32, same shape, for reading.
        bits: 1 to 8.
        shift: float32, same shape, added to the zero point where codes are made.
    """

    kind = "shifted"
    finite: ClassVar[tuple[str, ...]] = ("zero_point", "shift")
    shift: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, bits: int, shift: Tensor) -> None:
        super().__init__(scale, zero_point, bits)
        self.register_buffer("shift", shift.detach().expand_as(scale).clone().view(-1))

    @property
    def made_with(self) -> Tensor:
        return self.zero_point + self.shift

    @classmethod
    def build(cls, config: dict[str, Any]) -> ShiftedRows:
        blank = torch.empty(int(config["num_scales"]))
        return cls(blank, blank, int(config["bits"]), blank)


@register_rows
class FloorRows(StaticRows):
    """Values stand for the lower ends of their cells (SGQuant's published quantizer)."""

    kind = "floor"

    @property
    def made_with(self) -> Tensor:
        return self.zero_point - FLOOR


@register_rows
class CodedRows(StaticRows):
    """Fields of a coding of their own, such as ``ternary``.

    Args:
        scale: float32 ``[1]`` or ``[C]``.
        zero_point: float32, same shape.
        bits: 1 to 8, a width that the coding has.
        coding: Its name.

    Raises:
        UnknownNameError: If there is no such coding.
        CodingError: If it has not this width.
    """

    kind = "coded"
    options: ClassVar[Options] = {**StaticRows.options, "coding": Text()}

    def __init__(self, scale: Tensor, zero_point: Tensor, bits: int, coding: str) -> None:
        super().__init__(scale, zero_point, bits)
        self.coding_name = coding
        CODINGS.get(coding).check_width(bits)

    @property
    def coding(self) -> int:
        number: int = CODINGS.get(self.coding_name).number
        return number

    def config(self) -> dict[str, Any]:
        return {**super().config(), "coding": self.coding_name}

    @classmethod
    def build(cls, config: dict[str, Any]) -> CodedRows:
        blank = torch.empty(int(config["num_scales"]))
        return cls(blank, blank, int(config["bits"]), str(config["coding"]))
