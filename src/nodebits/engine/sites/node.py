"""Rows that have a width and a scale each: bound to a graph's nodes, or found by nearest range."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import FLAG, SIZE, Choice, Integer, Options
from nodebits.core.observer import FEATURES, check_finite
from nodebits.core.packing import pack, row_bytes, unpack
from nodebits.core.recorded import recorded
from nodebits.core.row_layout import pack_widths, unpack_widths
from nodebits.engine.by_width import extent_of, groups_bytes, zero_points
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import Place, register_rows
from nodebits.engine.sites.own_nodes import fields_at
from nodebits.engine.sites.scales import GroupScales, ShiftedScales
from nodebits.engine.sites.widths import NearestWidths, NodeWidths, check_rising
from nodebits.graph.scope import current_scope
from nodebits.ops.features import pack_checked


@register_rows
class NearestRows(GroupScales, NearestWidths):
    """Every row takes the scale and width of the group whose range is nearest to its own.

    Args:
        scale: float32 ``[m]``.
        widths: ``[m]``, 1 to 8.
        signed: Whether codes stand for both signs.
        limits: float32 ``[m]``, ascending: the range of each group, what rows are compared with.
    """

    kind = "nearest"
    options: ClassVar[Options] = {"groups": Integer(1), "signed": FLAG}
    positive = ("scale",)
    finite = ("limits",)
    scale: Tensor
    widths: Tensor
    limits: Tensor

    def __init__(self, scale: Tensor, widths: Tensor, signed: bool, limits: Tensor) -> None:
        super().__init__()
        self.signed = signed
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("widths", widths.detach().to(torch.uint8).clone())
        self.register_buffer("limits", limits.detach().clone())

    def check_loaded(self) -> None:
        super().check_loaded()
        check_rising(self.limits)
        if bool(((self.widths < 1) | (self.widths > 8)).any()):
            raise FileFormatError("a value of widths is outside 1 to 8")

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "groups": self.scale.numel(), "signed": self.signed}

    @classmethod
    def build(cls, config: dict[str, Any]) -> NearestRows:
        blank = torch.ones(int(config["groups"]))
        return cls(blank, blank, bool(config["signed"]), blank)

    def scale_values(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_values`: those of the groups."""
        return self.scale.numel()

    def scale_bytes(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_bytes`: the groups, and which one each row is in."""
        return groups_bytes(num_rows, self.scale.numel())


@register_rows
class PerNodeRows(GroupScales, NodeWidths):
    """A width and a scale for every node of one graph.

    The widths take three bits each. Scales are float32, or numbers of ``scale_bits`` bits that
    point into a table. The layout made from the widths is kept while the process runs.

    Args:
        widths: ``[N]``, 1 to 8.
        signed: Whether codes stand for both signs.
        scale: float32 ``[N]``, with ``scale_bits`` 32.
        scale_bits: 32, or the width of ``scale_index``.
        scale_index: uint8 ``[N]``, positions in ``scale_table``.
        scale_table: float32 ``[2^scale_bits]``.
        fingerprint: int64 ``[1]`` of the graph (:attr:`nodebits.graph.Graph.fingerprint`); -1 where
            no graph was known.
        fallback: Whether other graphs are served by the nearest of this graph's pairs.
    """

    kind = "per_node"
    options: ClassVar[Options] = {
        "num_nodes": SIZE,
        "signed": FLAG,
        "scale_bits": Choice((*range(1, 9), 32)),
        "fallback": FLAG,
    }
    positive = ("node_scale", "scale_table")

    def __init__(
        self,
        widths: Tensor,
        signed: bool,
        *,
        scale: Tensor | None = None,
        scale_bits: int = 32,
        scale_index: Tensor | None = None,
        scale_table: Tensor | None = None,
        fingerprint: int = -1,
        fallback: bool = False,
    ) -> None:
        super().__init__()
        self.num_nodes, self.signed = widths.numel(), signed
        self.scale_bits, self.fallback = scale_bits, fallback
        self.register_buffer("packed_widths", pack_widths(widths.to(torch.uint8)))
        self.register_buffer(
            "fingerprint", torch.tensor([fingerprint], dtype=torch.int64, device=widths.device)
        )
        if scale_bits == 32:
            assert scale is not None
            self.register_buffer("node_scale", scale.detach().clone())
        else:
            assert scale_index is not None and scale_table is not None
            index = pack(scale_index.to(torch.uint8).view(1, -1), scale_bits).view(-1)
            self.register_buffer("scale_index", index)
            self.register_buffer("scale_table", scale_table.detach().clone())
        self._scales: Tensor | None = None  # read from the table once, like the layout

    def scales(self) -> Tensor:
        """Scale of every node, float32 ``[N]``."""
        if self.scale_bits == 32:
            return self.get_buffer("node_scale")
        if self._scales is None:
            packed = self.get_buffer("scale_index").view(1, -1)
            index = unpack(packed, self.scale_bits, self.num_nodes).view(-1)
            self._scales = self.get_buffer("scale_table").index_select(0, index.int())
        return self._scales

    def _forget(self) -> None:
        super()._forget()
        self._scales = None

    def row_scales(self, group: Tensor) -> Tensor:
        if self.scale_bits == 32:
            return super().row_scales(group)
        return recorded(
            "table_at",
            lambda: super(PerNodeRows, self).row_scales(group),
            self.get_buffer("scale_table"),
            self.get_buffer("scale_index"),
            self.scale_bits,
            group,
        )

    def pair_limits(self) -> Tensor:
        return extent_of(self.scales(), self.layout.widths, self.signed)

    def pack_features(self, x: Tensor, sparse: bool) -> Rows:
        """See :meth:`RowQuantizer.pack_features`; one pass checks and packs."""
        if not current_scope().example and self.fits(x.size(0)):
            packed = pack_checked(x, self.scales(), zero_points(self.signed, x.device), self.layout)
            if packed is not None:
                return self.bound_rows(packed, x.size(1))
        check_finite(x, FEATURES)
        return self.pack(x)

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "num_nodes": self.num_nodes,
            "signed": self.signed,
            "scale_bits": self.scale_bits,
            "fallback": self.fallback,
        }

    @classmethod
    def build(cls, config: dict[str, Any]) -> PerNodeRows:
        count, scale_bits = int(config["num_nodes"]), int(config["scale_bits"])
        blank = torch.ones(count)
        table = torch.ones(0 if scale_bits == 32 else 1 << scale_bits)
        return cls(
            blank,
            bool(config["signed"]),
            scale=blank,
            scale_bits=scale_bits,
            scale_index=blank,
            scale_table=table,
            fallback=bool(config["fallback"]),
        )

    def scale_values(self, num_rows: int) -> int:
        return num_rows

    def scale_bytes(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_bytes`: widths and scales."""
        table = 0 if self.scale_bits == 32 else 4 << self.scale_bits
        return row_bytes(num_rows, 3) + row_bytes(num_rows, self.scale_bits) + table


@register_rows
class PerNodeMessageRows(ShiftedScales, NodeWidths):
    """A scale per column, and a width and a power of two for every node, or every group.

    Widths and powers take three bits each.

    Args:
        scale: float32 ``[C]``.
        widths: ``[N]`` (``[m]`` for groups), 1 to 8.
        shift: ``[N]``, exponents of two, ``width + shift <= 8``.
        limits: float32 ``[N]``, ranges in units of the column scales; stored for groups only.
        signed: Whether codes stand for both signs.
        nearest: Whether rows choose the group of nearest range instead of being nodes.
        fingerprint: See :class:`PerNodeRows`.
        fallback: See :class:`PerNodeRows`.
    """

    kind = "per_node_message"
    options: ClassVar[Options] = {
        "num_nodes": SIZE,
        "num_cols": SIZE,
        "signed": FLAG,
        "nearest": FLAG,
        "fallback": FLAG,
    }
    positive = ("scale",)
    finite = ("limits",)
    granularity = "column"
    scale: Tensor
    packed_shift: Tensor

    def __init__(
        self,
        scale: Tensor,
        widths: Tensor,
        shift: Tensor,
        limits: Tensor,
        signed: bool,
        *,
        nearest: bool = False,
        fingerprint: int = -1,
        fallback: bool = False,
    ) -> None:
        super().__init__()
        self.num_nodes, self.signed = widths.numel(), signed
        self.nearest, self.fallback = nearest, fallback
        if nearest:
            order = limits.argsort(stable=True)
            widths, shift, limits = widths[order], shift[order], limits[order]
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("packed_widths", pack_widths(widths.to(torch.uint8)))
        self.register_buffer("packed_shift", pack_widths(shift.to(torch.uint8) + 1))
        self.register_buffer("limits", limits.detach().clone() if nearest else None)
        self.register_buffer(
            "fingerprint", torch.tensor([fingerprint], dtype=torch.int64, device=widths.device)
        )
        self._shifts: Tensor | None = None  # unpacked once, like the layout

    def check_loaded(self) -> None:
        super().check_loaded()
        if bool((self.layout.widths + self.shifts() > 8).any()):
            raise FileFormatError("packed_shift moves codes out of 8 bits: width + shift <= 8")
        if self.nearest:
            if self.num_nodes == 0:
                raise FileFormatError("num_nodes is 0: rows have no group to choose")
            check_rising(self.get_buffer("limits"))

    def shifts(self) -> Tensor:
        if self._shifts is None:
            self._shifts = unpack_widths(self.packed_shift, self.num_nodes) - 1
        return self._shifts

    def _forget(self) -> None:
        super()._forget()
        self._shifts = None

    def row_shifts(self, place: Place) -> Tensor:
        group = place.group
        if group is None:
            return self.shifts()
        return fields_at(self.shifts, self.packed_shift, group, 0)

    def pair_limits(self) -> Tensor:
        power = torch.exp2(self.shifts().float())
        return extent_of(power, self.layout.widths, self.signed)

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "num_nodes": self.num_nodes,
            "num_cols": self.scale.numel(),
            "signed": self.signed,
            "nearest": self.nearest,
            "fallback": self.fallback,
        }

    @classmethod
    def build(cls, config: dict[str, Any]) -> PerNodeMessageRows:
        blank = torch.ones(int(config["num_nodes"]))
        return cls(
            torch.ones(int(config["num_cols"])),
            blank,
            blank,
            blank,
            bool(config["signed"]),
            nearest=bool(config["nearest"]),
            fallback=bool(config["fallback"]),
        )

    def scale_bytes(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_bytes`: column scales, widths and powers of two."""
        columns = 4 * self.scale.numel()
        if self.nearest:
            return columns + groups_bytes(num_rows, self.num_nodes)
        return columns + 2 * row_bytes(num_rows, 3)
