"""Rows with a width per bucket of in-degree, and the three ways their scales come about."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import BITS, FLAG, SIZE, Integer, ListOf, Options
from nodebits.engine.buckets import Buckets
from nodebits.engine.sites.base import Place, register_rows
from nodebits.engine.sites.scales import GroupScales, OwnScales, ShiftedScales
from nodebits.engine.sites.widths import BucketWidths
from nodebits.graph.scope import current_scope


class _BucketRows(BucketWidths):
    """What the kinds say of buckets; ``bits`` is the largest width."""

    def __init__(self, buckets: Buckets, signed: bool) -> None:
        super().__init__()
        self.buckets, self.signed = buckets, signed
        self.bits = max(buckets.widths)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "signed": self.signed, **self.buckets.config()}


_BUCKET_OPTIONS: Options = {"signed": FLAG, "splits": ListOf(Integer(1)), "widths": ListOf(BITS)}


def _buckets_of(config: dict[str, Any]) -> Buckets:
    return Buckets(
        [int(s) for s in config["splits"]], [int(w) for w in config["widths"]], "a model file"
    )


@register_rows
class DegreeBucketRows(GroupScales, _BucketRows):
    """A scale per bucket, float32 ``[B]``."""

    kind = "degree_bucket"
    options: ClassVar[Options] = _BUCKET_OPTIONS
    positive = ("scale",)
    scale: Tensor

    def __init__(self, buckets: Buckets, scale: Tensor, signed: bool) -> None:
        super().__init__(buckets, signed)
        self.register_buffer("scale", scale.detach().clone())

    @classmethod
    def build(cls, config: dict[str, Any]) -> DegreeBucketRows:
        buckets = _buckets_of(config)
        return cls(buckets, torch.ones(len(buckets.widths)), bool(config["signed"]))

    def scale_values(self, num_rows: int) -> int:
        return self.scale.numel()


@register_rows
class DegreeBucketDynamicRows(OwnScales, _BucketRows):
    """Every row brings its own scale, at the width of its bucket."""

    kind = "degree_bucket_row"
    options: ClassVar[Options] = _BUCKET_OPTIONS

    @classmethod
    def build(cls, config: dict[str, Any]) -> DegreeBucketDynamicRows:
        return cls(_buckets_of(config), bool(config["signed"]))


@register_rows
class DegreeBucketMessageRows(ShiftedScales, _BucketRows):
    """A scale ``[C]`` or ``[1]``, times a power of two per bucket, ``[B]``."""

    kind = "degree_bucket_message"
    options: ClassVar[Options] = {**_BUCKET_OPTIONS, "num_scales": SIZE}
    positive = ("scale",)
    scale: Tensor
    shift: Tensor

    def __init__(self, buckets: Buckets, scale: Tensor, shift: Tensor, signed: bool) -> None:
        super().__init__(buckets, signed)
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().to(torch.uint8).clone())
        self.axis = -1 if scale.numel() == 1 else 1

    def check_loaded(self) -> None:
        super().check_loaded()
        widths = torch.tensor(self.buckets.widths, dtype=torch.int16, device=self.shift.device)
        if bool((widths + self.shift > 8).any()):
            raise FileFormatError("shift moves codes out of 8 bits: width + shift <= 8")

    def shifts(self) -> Tensor:
        return self.shift

    def row_shifts(self, place: Place) -> Tensor:
        graph, shift, of_rows = current_scope().graph, self.shift, place.group
        assert graph is not None and of_rows is not None
        made: Tensor = graph.cached_for(
            shift, "shift of rows", lambda: shift.index_select(0, of_rows), owned=True
        )
        return made

    def config(self) -> dict[str, Any]:
        return {**super().config(), "num_scales": self.scale.numel()}

    @classmethod
    def build(cls, config: dict[str, Any]) -> DegreeBucketMessageRows:
        buckets = _buckets_of(config)
        blank = torch.zeros(len(buckets.widths), dtype=torch.uint8)
        return cls(buckets, torch.ones(int(config["num_scales"])), blank, bool(config["signed"]))

    def scale_bytes(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_bytes`: a byte per bucket for its power."""
        return super().scale_bytes(num_rows) + self.shift.numel()
