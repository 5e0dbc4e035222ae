"""Frozen rows that have a width and a scale each: bound to a graph's nodes, or found by search.

The zero point follows from the width: 0 where codes are unsigned, ``(2^b - 1) / 2`` where they
stand for both signs (levels evenly around zero, which one and two bits need).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.affine import MIN_SCALE
from nodebits.core.bucketed import BucketedRows, RowLayout, pack_widths, unpack_widths
from nodebits.core.errors import FileFormatError, GraphMismatchError
from nodebits.core.file_fields import FLAG, SIZE, Choice, Integer, Options
from nodebits.core.observer import check_finite
from nodebits.core.packing import pack, row_bytes, unpack
from nodebits.core.qtensor import QTensor
from nodebits.core.sparse_rows import SparseRows
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.rows import (
    FEATURES,
    FixedParameters,
    RowQuantizer,
    register_rows,
)
from nodebits.ops.features import pack_checked

# Groups that stand in for the pairs of a bound graph: as many as A2Q's released scripts use.
FALLBACK_GROUPS = 1000


_ZEROS = torch.zeros(8)
_MIDDLES = torch.tensor([((1 << bits) - 1) / 2 for bits in range(1, 9)])


def zero_points(signed: bool) -> Tensor:
    """Zero point of every width 1 to 8, float32 ``[8]``; shared, not to be written to."""
    return _MIDDLES if signed else _ZEROS


def row_extent(x: Tensor, signed: bool) -> Tensor:
    """Largest magnitude (largest value, where codes are unsigned) of every row, float32 ``[N]``."""
    if x.size(1) == 0:
        return x.new_zeros(x.size(0))
    return x.abs().amax(1) if signed else x.amax(1).clamp_min(0)


def extent_of(scale: Tensor, widths: Tensor, signed: bool) -> Tensor:
    """Largest value that a row of this scale and width holds: ``s (2^b - 1)``, or half of it."""
    top = scale * (torch.exp2(widths.float()) - 1)
    return top / 2 if signed else top


def scale_of(extent: Tensor, widths: Tensor, signed: bool) -> Tensor:
    """Inverse of :func:`extent_of`; 1 where the row is (as good as) zero.

    The least scale there is where codes are signed: they have no level at zero.
    """
    top = torch.exp2(widths.float()) - 1
    scale = (2 * extent if signed else extent) / top
    return torch.where(scale < MIN_SCALE, MIN_SCALE if signed else 1.0, scale)


def fixed_rows(layout: RowLayout, scale: Tensor, signed: bool) -> FixedParameters:
    """What rows of ``layout``'s widths with ``scale`` ``[N]`` are packed with."""
    zeros = zero_points(signed)
    return FixedParameters(scale, zeros, zeros, 0, 8, layout)


def pack_rows(x: Tensor, layout: RowLayout, scale: Tensor, signed: bool) -> BucketedRows:
    """Quantizes ``x`` ``[N, C]`` at ``layout``'s widths with ``scale`` ``[N]``."""
    zeros = zero_points(signed)
    packed = ops.quantize_pack_bucketed(x, scale, zeros, 0, layout.widths, layout.position, None)
    return BucketedRows(packed, layout, scale, zeros, x.size(1), 0)


def spread_order(limits: Tensor, most: int) -> Tensor:
    """Positions in ascending order of ``limits``, at most ``most``, evenly spread."""
    order = limits.argsort(stable=True)
    if order.numel() > most:
        order = order[torch.linspace(0, order.numel() - 1, most).round().long()]
    return order


def _check_rising(limits: Tensor) -> None:
    if bool((limits[1:] < limits[:-1]).any()):
        raise FileFormatError("limits must not fall")


def groups_bytes(num_rows: int, groups: int) -> int:
    """Scale, range and width of every group, and the number of each row's group."""
    number = max((groups - 1).bit_length(), 1)
    return 8 * groups + row_bytes(groups, 3) + row_bytes(num_rows, number)


class _MixedRows(RowQuantizer):
    """Rows of several widths; ``bits`` is the largest, which int32 bounds are checked with."""

    granularity = "row"
    bits = 8

    def made(self, rows: QTensor | BucketedRows | SparseRows) -> bool:
        return isinstance(rows, BucketedRows)


class BoundRows(_MixedRows):
    """Rows of the nodes of one graph."""

    num_nodes: int
    fallback: bool
    fingerprint: Tensor
    packed_widths: Tensor
    _layout: RowLayout | None

    @property
    def bound(self) -> bool:
        return True

    @property
    def layout(self) -> RowLayout:
        """Which node is in which bucket; made once and kept while the process runs."""
        if self._layout is None:
            self._layout = RowLayout.of(unpack_widths(self.packed_widths, self.num_nodes))
        return self._layout

    @property
    def own_layout(self) -> RowLayout | None:
        return self.layout if self.bound else None

    def bound_to(self, layout: RowLayout) -> bool:
        return layout is self._layout

    def serve_other_graphs(self, allow: bool) -> None:
        self.fallback = allow

    def fits(self, num_rows: int) -> bool:
        """Whether the current forward runs on the graph that the widths belong to.

        Raises:
            GraphMismatchError: If it does not and the fallback is off.
        """
        graph, known = current_scope().graph, int(self.fingerprint)
        other = graph is not None and known != -1 and graph.fingerprint != known
        if num_rows == self.num_nodes and not other:
            return True
        if self.fallback:
            return False
        what = (
            f"{num_rows} nodes" if num_rows != self.num_nodes else "as many nodes but other edges"
        )
        raise GraphMismatchError(
            f"site {self.site_name!r} has a bitwidth for each of the {self.num_nodes} nodes of the "
            f"graph it was trained on, and got a graph of {what}: run it on that graph, or let the "
            "nearest of its pairs serve other graphs with model.serve_other_graphs()"
        )


@register_rows
class NearestRows(_MixedRows):
    """Every row takes the scale and width of the group whose extent is nearest to its own.

    A2Q's Nearest Neighbour Strategy: ``argmin_k |max_j |x_ij| - q_k|``, q sorted, binary search.

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

    @classmethod
    def of_pairs(cls, scale: Tensor, widths: Tensor, signed: bool, most: int) -> NearestRows:
        """Groups made of (scale, width) pairs, at most ``most``, evenly spread over the order."""
        limits = extent_of(scale, widths, signed)
        order = spread_order(limits, most)
        return cls(scale[order], widths[order], signed, limits[order])

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> BucketedRows:
        if row_factor is not None:
            x = x * row_factor.view(-1, 1)
        extent = row_extent(x, self.signed)
        group = ops.nearest_group(extent, self.limits).long()
        layout = RowLayout.of(self.widths[group])
        return pack_rows(x, layout, self.scale[group], self.signed)

    def check_loaded(self) -> None:
        super().check_loaded()
        _check_rising(self.limits)
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
class PerNodeRows(BoundRows):
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
    packed_widths: Tensor

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
        self.register_buffer("fingerprint", torch.tensor([fingerprint], dtype=torch.int64))
        if scale_bits == 32:
            assert scale is not None
            self.register_buffer("node_scale", scale.detach().clone())
        else:
            assert scale_index is not None and scale_table is not None
            index = pack(scale_index.to(torch.uint8).view(1, -1), scale_bits).view(-1)
            self.register_buffer("scale_index", index)
            self.register_buffer("scale_table", scale_table.detach().clone())
        self._layout = None
        self._scales: Tensor | None = None  # read from the table once, like the layout
        self._nearest: list[NearestRows] = []  # in a list: no part of the state

    def scales(self) -> Tensor:
        """Scale of every node, float32 ``[N]``."""
        if self.scale_bits == 32:
            return self.get_buffer("node_scale")
        if self._scales is None:
            packed = self.get_buffer("scale_index").view(1, -1)
            index = unpack(packed, self.scale_bits, self.num_nodes).view(-1)
            self._scales = self.get_buffer("scale_table").index_select(0, index.int())
        return self._scales

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> BucketedRows:
        """See :meth:`RowQuantizer.pack`.

        Raises:
            GraphMismatchError: If ``x`` belongs to another graph and the fallback is off.
        """
        if row_factor is not None:
            x = x * row_factor.view(-1, 1)
        if not self.fits(x.size(0)):
            return self._other(x)
        return pack_rows(x, self.layout, self.scales(), self.signed)

    def bound_rows(self, packed: Tensor, num_cols: int) -> BucketedRows:
        zeros = zero_points(self.signed)
        return BucketedRows(packed, self.layout, self.scales(), zeros, num_cols, 0)

    def pack_features(self, x: Tensor, sparse: bool) -> BucketedRows:
        """See :meth:`RowQuantizer.pack_features`; one pass checks and packs."""
        fits = self.fits(x.size(0))
        packed = None
        if fits:
            packed = pack_checked(x, self.scales(), zero_points(self.signed), self.layout)
        if packed is None:
            check_finite(x, FEATURES)
            return self._other(x)
        return self.bound_rows(packed, x.size(1))

    def fixed(self, num_rows: int) -> FixedParameters | None:
        if not self.fits(num_rows):
            return None
        return fixed_rows(self.layout, self.scales(), self.signed)

    def _other(self, x: Tensor) -> BucketedRows:
        if not self._nearest:
            pairs = self.scales(), self.layout.widths, self.signed
            self._nearest.append(NearestRows.of_pairs(*pairs, FALLBACK_GROUPS))
        return self._nearest[0].pack(x)

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
class PerNodeMessageRows(BoundRows):
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
    packed_widths: Tensor
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
        self.register_buffer("fingerprint", torch.tensor([fingerprint], dtype=torch.int64))
        self._layout = None
        self._unpacked: tuple[Tensor, Tensor, Tensor] | None = None

    def check_loaded(self) -> None:
        super().check_loaded()
        widths, shift, _ = self._pairs()
        if bool((widths + shift > 8).any()):
            raise FileFormatError("packed_shift moves codes out of 8 bits: width + shift <= 8")
        if self.nearest:
            if self.num_nodes == 0:
                raise FileFormatError("num_nodes is 0: rows have no group to choose")
            _check_rising(self.get_buffer("limits"))

    @property
    def bound(self) -> bool:
        return not self.nearest

    def _pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """(widths, shifts e, 2^-e), uint8 and float32 ``[N]``; unpacked once, like the layout."""
        if self._unpacked is None:
            shift = unpack_widths(self.packed_shift, self.num_nodes) - 1
            widths = unpack_widths(self.packed_widths, self.num_nodes)
            self._unpacked = widths, shift, torch.exp2(-shift.float())
        return self._unpacked

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> BucketedRows:
        """See :meth:`RowQuantizer.pack`.

        Raises:
            GraphMismatchError: If ``x`` belongs to another graph and the fallback is off.
        """
        widths, shift, power = self._pairs()
        if self.nearest or not self.fits(x.size(0)):
            if row_factor is not None:
                x = x * row_factor.view(-1, 1)
                row_factor = None
            group = self._groups(x, widths, shift)
            widths, shift, power = widths[group], shift[group], power[group]
            layout = RowLayout.of(widths)
        else:
            layout = self.layout
        # Powers of two are exact in float: x f * 2^-e / s rounds as (x f) / (s * 2^e) does.
        factor = power if row_factor is None else row_factor * power
        zero_point = zero_points(self.signed)
        packed = ops.quantize_pack_bucketed(
            x, self.scale, zero_point, 1, layout.widths, layout.position, factor
        )
        return BucketedRows(packed, layout, self.scale, zero_point, x.size(1), 1, shift)

    def bound_rows(self, packed: Tensor, num_cols: int) -> BucketedRows:
        zeros, shift = zero_points(self.signed), self._pairs()[1]
        return BucketedRows(packed, self.layout, self.scale, zeros, num_cols, 1, shift)

    def fixed(self, num_rows: int) -> FixedParameters | None:
        if self.nearest or not self.fits(num_rows):
            return None
        zeros, shift = zero_points(self.signed), self._pairs()[1]
        return FixedParameters(self.scale, zeros, zeros, 1, 8, self.layout, shift)

    def _groups(self, x: Tensor, widths: Tensor, shift: Tensor) -> Tensor:
        """Which pair each row takes: that of the nearest range."""
        extent = row_extent(x / self.scale, self.signed)
        limits = self.get_buffer("limits") if self.nearest else None
        if limits is not None:
            return ops.nearest_group(extent, limits).long()
        ranges = extent_of(torch.exp2(shift.float()), widths, self.signed)
        order = spread_order(ranges, FALLBACK_GROUPS)
        group = ops.nearest_group(extent, ranges[order]).long()
        return order[group]

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

    def scale_values(self, num_rows: int) -> int:
        return self.scale.numel()

    def scale_bytes(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_bytes`: column scales, widths and powers of two."""
        columns = 4 * self.scale.numel()
        if self.nearest:
            return columns + groups_bytes(num_rows, self.num_nodes)
        return columns + 2 * row_bytes(num_rows, 3)
