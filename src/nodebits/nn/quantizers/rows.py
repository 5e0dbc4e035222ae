"""Frozen activation quantizers: what a packed model keeps of a site.

A kind is a module whose buffers are its parameters and whose :meth:`RowQuantizer.config` is the
JSON that rebuilds it. Files name the kind; new kinds register themselves with
:func:`register_rows`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from nodebits import ops
from nodebits.core.affine import symmetric_qparams, unsigned_qparams
from nodebits.core.bucketed import AlignedRows, BucketedRows, RowLayout
from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    NotCalibratedError,
    UnknownNameError,
)
from nodebits.core.file_fields import (
    BITS,
    FLAG,
    SIZE,
    Choice,
    ListOf,
    Number,
    Optional,
    Options,
    Text,
    check_fields,
)
from nodebits.core.observer import check_finite
from nodebits.core.qtensor import QTensor
from nodebits.core.sparse_rows import SparseRows
from nodebits.nn.quantizers.use import Ends
from nodebits.ops.backends.cpu.kernels import current_isa
from nodebits.ops.features import FeatureScan, sample_density, scan_features

PackedRows = QTensor | BucketedRows | AlignedRows | SparseRows | Tensor

FEATURES = "the feature matrix"

# Up to this share of codes that are not zero a sparse product is faster than the dense one; less
# where tiles multiply the dense one.
SPARSE_DENSITY = 0.15
_SPARSE_DENSITY_TILES = 0.1
# How much larger than dense rows faster ones may be.
_SPARSE_SIZE = 1.05

_kinds: dict[str, type[RowQuantizer]] = {}
T = TypeVar("T", bound="type[RowQuantizer]")


def register_rows(cls: T) -> T:
    """Class decorator: makes ``cls.kind`` loadable from files."""
    _kinds[cls.kind] = cls
    return cls


class FixedParameters(NamedTuple):
    """What a site quantizes with, whatever the values of the rows.

    Attributes:
        scale: float32 ``[1]`` or ``[C]``; ``[N]`` with ``axis`` 0.
        zero_point: Likewise, for reading the codes; ``[8]``, one per width, beside ``shift``.
        rounding: The zero point with which codes are made: likewise; ``[8]`` beside ``layout``.
        axis: -1, 0 or 1.
        bits: Width of the codes; the largest where there is a layout.
        layout: Widths of the rows, where they have their own.
        shift: uint8 ``[N]``: codes become :class:`AlignedRows`, not :class:`BucketedRows`.
    """

    scale: Tensor
    zero_point: Tensor
    rounding: Tensor
    axis: int
    bits: int
    layout: RowLayout | None = None
    shift: Tensor | None = None

    def rows(self, packed: Tensor, num_cols: int) -> PackedRows:
        """What a fused operator made, with its parameters."""
        scale, zero_point, axis = self.scale, self.zero_point, self.axis
        if self.layout is None:
            return QTensor(packed, scale, zero_point, self.bits, num_cols, axis)
        if self.shift is None:
            return BucketedRows(packed, self.layout, scale, zero_point, num_cols, axis)
        return AlignedRows(packed, self.layout, scale, zero_point, axis, self.shift)


class RowQuantizer(nn.Module):
    """Base: float rows in, packed rows out.

    Attributes:
        ends: How much of its data had the end codes before conversion; None where that is not
            known.
    """

    kind: ClassVar[str]
    # What a file may say in the config, besides the kind; see core/file_fields.py.
    options: ClassVar[Options] = {"bits": Choice((None,))}
    # Buffers whose values a file may not give otherwise: above zero, or just finite.
    positive: ClassVar[tuple[str, ...]] = ()
    finite: ClassVar[tuple[str, ...]] = ()
    bits: int | None = None
    granularity: str = "tensor"
    site_name: str = ""
    ends: Ends | None = None

    @property
    def bound(self) -> bool:
        """Whether rows have parameters because of which node they are, not of what they hold."""
        return False

    @property
    def own_layout(self) -> RowLayout | None:
        """Where the rows of the site's own nodes lie; None where it is not :attr:`bound`."""
        return None

    def bound_to(self, layout: RowLayout) -> bool:
        """Whether these are the widths of this site's own nodes."""
        return False

    def bound_rows(self, packed: Tensor, num_cols: int) -> BucketedRows:
        """Codes of this site's own nodes, with its widths and scales.

        Raises:
            ConfigError: If the site is not :attr:`bound`.
        """
        raise ConfigError(f"site {self.site_name!r} has no rows of its own: it reads any nodes")

    def serve_other_graphs(self, allow: bool) -> None:
        """Lets a :attr:`bound` site serve other nodes by the nearest of its own; else nothing."""

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> PackedRows:
        """Quantizes and packs.

        Args:
            x: float32 ``[N, C]``.
            row_factor: float32 ``[N]``; rows are multiplied by it first.

        Returns:
            The packed rows; the float rows for the kind ``float``.
        """
        raise NotImplementedError

    def pack_features(self, x: Tensor, sparse: bool) -> PackedRows:
        """Checks and packs raw features.

        Args:
            x: float32 ``[N, C]``.
            sparse: Whether the result may be :class:`SparseRows`, where that is smaller.

        Raises:
            NonFiniteError: If ``x`` holds NaN or infinity.
        """
        check_finite(x, FEATURES)
        return self.pack(x)

    def made(self, rows: QTensor | BucketedRows | SparseRows) -> bool:
        """Whether ``rows``, packed ahead, may be what this quantizer makes."""
        return isinstance(rows, QTensor) and rows.bits == self.bits

    def fixed(self, num_rows: int) -> FixedParameters | None:
        """The parameters of ``num_rows`` rows, where they do not depend on their values.

        A fused operator then packs rows that never exist in float.
        """
        return None

    def check_loaded(self) -> None:
        """Refuses values, read from a file, that no quantizer has.

        Raises:
            FileFormatError: Names the tensor, the value and its position.
        """
        for name in (*self.positive, *self.finite):
            values: Tensor | None = getattr(self, name, None)
            if values is not None:
                check_values(values, name, name in self.positive)

    def config(self) -> dict[str, Any]:
        """JSON that, with the state dict, rebuilds this quantizer."""
        return {"kind": self.kind, "bits": self.bits}

    @classmethod
    def build(cls, config: dict[str, Any]) -> RowQuantizer:
        """Inverse of :meth:`config`; buffers are filled by ``load_state_dict``."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """:meth:`config`, and what is known of the data that the range was made for."""
        return self.config() if self.ends is None else {**self.config(), "ends": list(self.ends)}

    def scale_values(self, num_rows: int) -> int:
        """Number of float32 scales that a tensor of ``num_rows`` rows carries at this site."""
        raise NotImplementedError

    def scale_bytes(self, num_rows: int) -> int:
        """Bytes of scales, and of whatever else a tensor needs beside its codes."""
        return 4 * self.scale_values(num_rows)


def check_values(values: Tensor, name: str, positive: bool) -> None:
    """Refuses scales and zero points that came out of a file and are none.

    Raises:
        FileFormatError: Names the tensor, the value and its position.
    """
    good = values.isfinite() & (values > 0) if positive else values.isfinite()
    if bool(good.all()):
        return
    at = int((~good).view(-1).nonzero()[0])
    raise FileFormatError(
        f"{name}[{at}] is {values.view(-1)[at].item()}: it must be "
        f"{'finite and above zero' if positive else 'finite'}"
    )


def rows_from_config(config: dict[str, Any], where: str = "config") -> RowQuantizer:
    """Rebuilds a row quantizer.

    Raises:
        UnknownNameError: If this version does not know the kind.
        FileFormatError: If an option is not what the kind declares.
    """
    kind = str(config["kind"])
    if kind not in _kinds:
        raise UnknownNameError.for_name("row quantizer kind", kind, _kinds)
    check_fields(config, row_fields(kind), where)
    rows = _kinds[kind].build(config)
    ends = config.get("ends")
    if ends is not None:
        rows.ends = Ends(float(ends[0]), float(ends[1]), int(ends[2]))
    return rows


def row_fields(kind: str) -> Options:
    """What a file says of rows of this kind; ``ends`` came with version 2."""
    ends = Optional(ListOf(Number(0.0), 3), absent=True)
    return {"kind": Text(), **_kinds[kind].options, "ends": ends}


def row_kinds() -> dict[str, type[RowQuantizer]]:
    """The kinds that files may name."""
    return dict(_kinds)


@register_rows
class FloatRows(RowQuantizer):
    """A site that a configuration leaves in float."""

    kind = "float"
    granularity = "float"

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> Tensor:
        """See :meth:`RowQuantizer.pack`."""
        return x if row_factor is None else x * row_factor.view(-1, 1)

    @classmethod
    def build(cls, config: dict[str, Any]) -> FloatRows:
        """See :meth:`RowQuantizer.build`."""
        return cls()

    def scale_values(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_values`."""
        return 0


@register_rows
class UnusedRows(RowQuantizer):
    """A site that saw no data before conversion, such as that of targets of their own."""

    kind = "unused"
    granularity = "unused"

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> Tensor:
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
        """See :meth:`RowQuantizer.build`."""
        return cls()

    def scale_values(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_values`."""
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

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> QTensor:
        """See :meth:`RowQuantizer.pack`."""
        bits = int(self.bits or 0)
        packed = ops.quantize_pack(x, self.scale, self.made_with, self.axis, bits, row_factor)
        return QTensor(packed, self.scale, self.zero_point, bits, x.size(1), self.axis)

    def made(self, rows: QTensor | BucketedRows | SparseRows) -> bool:
        """See :meth:`RowQuantizer.made`."""
        if not isinstance(rows, QTensor) or not super().made(rows):
            return False
        # Rows packed ahead by this very quantizer share its tensors.
        return (rows.scale is self.scale or torch.equal(rows.scale, self.scale)) and (
            rows.zero_point is self.zero_point or torch.equal(rows.zero_point, self.zero_point)
        )

    def fixed(self, num_rows: int) -> FixedParameters:
        """See :meth:`RowQuantizer.fixed`."""
        made_with = self.made_with
        return FixedParameters(
            self.scale, self.zero_point, made_with, self.axis, int(self.bits or 0)
        )

    def config(self) -> dict[str, Any]:
        """See :meth:`RowQuantizer.config`."""
        return {**super().config(), "num_scales": self.scale.numel()}

    @classmethod
    def build(cls, config: dict[str, Any]) -> StaticRows:
        """See :meth:`RowQuantizer.build`."""
        blank = torch.empty(int(config["num_scales"]))
        return cls(blank, blank, int(config["bits"]))

    def scale_values(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_values`."""
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
        """See :attr:`StaticRows.made_with`."""
        return self.zero_point + self.shift

    @classmethod
    def build(cls, config: dict[str, Any]) -> ShiftedRows:
        """See :meth:`RowQuantizer.build`."""
        blank = torch.empty(int(config["num_scales"]))
        return cls(blank, blank, int(config["bits"]), blank)


def probably_sparse(x: Tensor, bits: int) -> bool:
    """Whether a sample of rows would be faster and not larger as sparse rows."""
    return sample_density(x) <= sparse_share(bits)


def sparse_share(bits: int) -> float:
    """Largest share of values other than zero at which sparse rows are worth it.

    A code takes four bytes for its column, and one where a row has several.
    """
    faster = _SPARSE_DENSITY_TILES if current_isa() == "amx" else SPARSE_DENSITY
    return min(faster, _SPARSE_SIZE * bits / 40)


def dynamic_row_scale(x: Tensor, bits: int, signed: bool) -> tuple[Tensor, Tensor]:
    """Scale of every row from its own largest magnitude.

    Args:
        x: float32 ``[N, C]``.
        bits: 1 to 8.
        signed: Whether codes stand for both signs.

    Returns:
        ``(scale, zero_point)``: float32 ``[N]`` and ``[1]``.
    """
    if x.size(1) == 0:
        extent = x.new_zeros(x.size(0))
    else:
        extent = x.abs().amax(1) if signed else x.amax(1).clamp_min(0)
    scale, zero_point = (symmetric_qparams if signed else unsigned_qparams)(extent, bits)
    return scale, zero_point.new_full((1,), float(1 << (bits - 1)) if signed else 0.0)


class FeatureRows:
    """Raw features that a product will pack, unless someone might write to them before.

    Attributes:
        x: float32 ``[N, C]``.
        site: Who reads them.
        packed: The rows, once :meth:`settle` was called.
    """

    def __init__(self, x: Tensor, site: DynamicRows) -> None:
        self.x, self.site = x, site
        self.packed: QTensor | None = None

    def settle(self) -> QTensor:
        """Packs the features as they are now.

        Raises:
            NonFiniteError: If they hold NaN or infinity.
        """
        if self.packed is None:
            rows = self.site.pack_features(self.x, False)
            assert isinstance(rows, QTensor)
            self.packed = rows
        return self.packed


@register_rows
class DynamicRows(RowQuantizer):
    """Every row brings its own scale, read from the row when it is packed.

    Args:
        bits: 1 to 8.
        signed: Whether codes stand for both signs.
    """

    kind = "dynamic_row"
    options: ClassVar[Options] = {"bits": BITS, "signed": FLAG}
    granularity = "row"

    def __init__(self, bits: int, signed: bool) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> QTensor:
        """See :meth:`RowQuantizer.pack`."""
        bits = int(self.bits or 0)
        if row_factor is not None:
            x = x * row_factor.view(-1, 1)
        scanned = self._scanned(scan_features(x, bits, self.signed, 0.0), x.size(1))
        if scanned is not None:
            return scanned
        scale, zero_point = dynamic_row_scale(x, bits, self.signed)
        packed = ops.quantize_pack(
            x, scale, zero_point.expand_as(scale).contiguous(), 0, bits, None
        )
        return QTensor(packed, scale, zero_point, bits, x.size(1), 0)

    def pack_features(self, x: Tensor, sparse: bool) -> PackedRows:
        """See :meth:`RowQuantizer.pack_features`; a zero point would fill the zeros."""
        bits = int(self.bits or 0)
        density = sample_density(x) if sparse and not self.signed else 1.0
        share = SPARSE_DENSITY if density <= sparse_share(bits) else 0.0
        scan = scan_features(x, bits, self.signed, share, density)
        if not scan.finite:
            check_finite(x, FEATURES)
        if scan.sparse is not None:
            return scan.sparse
        return self._scanned(scan, x.size(1)) or self.pack(x)

    def wait_features(self, x: Tensor) -> FeatureRows | None:
        """Raw features for a product that packs them as it goes; None where sparse rows are better.

        The product then has to find out whether they are finite.
        """
        bits = int(self.bits or 0)
        if not self.signed and sample_density(x) <= sparse_share(bits):
            return None
        return FeatureRows(x, self)

    def _scanned(self, scan: FeatureScan, num_cols: int) -> QTensor | None:
        """The packed rows of a scan; None where it took other scales than these rows have."""
        if scan.packed is None or not scan.finite or (scan.negative and not self.signed):
            return None  # an unsigned row's scale is that of its positive values
        bits = int(self.bits or 0)
        zero_point = scan.scale.new_full((1,), float(1 << (bits - 1)) if self.signed else 0.0)
        return QTensor(scan.packed, scan.scale, zero_point, bits, num_cols, 0)

    def made(self, rows: QTensor | BucketedRows | SparseRows) -> bool:
        """See :meth:`RowQuantizer.made`."""
        if isinstance(rows, SparseRows):
            return rows.bits == self.bits and not self.signed
        return super().made(rows)

    def config(self) -> dict[str, Any]:
        """See :meth:`RowQuantizer.config`."""
        return {**super().config(), "signed": self.signed}

    @classmethod
    def build(cls, config: dict[str, Any]) -> DynamicRows:
        """See :meth:`RowQuantizer.build`."""
        return cls(int(config["bits"]), bool(config["signed"]))

    def scale_values(self, num_rows: int) -> int:
        """See :meth:`RowQuantizer.scale_values`."""
        return num_rows


__all__ = [
    "DynamicRows",
    "FeatureRows",
    "FloatRows",
    "PackedRows",
    "RowQuantizer",
    "ShiftedRows",
    "StaticRows",
    "UnusedRows",
    "check_values",
    "dynamic_row_scale",
    "register_rows",
    "row_fields",
    "row_kinds",
    "rows_from_config",
    "sparse_share",
]
