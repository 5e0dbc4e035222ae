"""Every row brings its own scale, read from the row when it is packed; one width for all."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits.core.file_fields import BITS, FLAG, Optional, Options
from nodebits.core.observer import FEATURES, check_finite
from nodebits.core.own_scale import OwnScale
from nodebits.core.recorded import is_recording, recorded
from nodebits.engine.affine import Affine
from nodebits.engine.encoding import Encoding
from nodebits.engine.formats.base import Format
from nodebits.engine.formats.floats import PLAIN
from nodebits.engine.formats.raw import Raw
from nodebits.engine.formats.sparse import Sparse
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import Place, RowQuantizer, register_rows, scaled
from nodebits.ops.backends.cpu.kernels import current_isa
from nodebits.ops.features import FeatureScan, sample_density, scan_features

# Up to this share of codes that are not zero a sparse product is faster than the dense one; less
# where tiles multiply the dense one.
SPARSE_DENSITY = 0.15
_SPARSE_DENSITY_TILES = 0.1
# How much larger than dense rows faster ones may be.
_SPARSE_SIZE = 1.05


def probably_sparse(x: Tensor, bits: int) -> bool:
    """Whether a sample of rows would be faster and not larger as sparse rows."""
    return sample_density(x) <= sparse_share(bits)


def sparse_share(bits: int) -> float:
    """Largest share of values other than zero at which sparse rows are worth it.

    A code takes four bytes for its column, and one where a row has several.
    """
    faster = _SPARSE_DENSITY_TILES if current_isa() == "amx" else SPARSE_DENSITY
    return min(faster, _SPARSE_SIZE * bits / 40)


@register_rows
class DynamicRows(RowQuantizer):
    """Every row brings its own scale, read from the row when it is packed.

    Args:
        bits: 1 to 8.
        signed: Whether codes stand for both signs.
        trim: Whether ranges are cut, see :class:`nodebits.core.own_scale.OwnScale`.
    """

    kind = "dynamic_row"
    # Files of older versions cut no ranges.
    options: ClassVar[Options] = {
        "bits": BITS,
        "signed": FLAG,
        "trim": Optional(FLAG, absent=True),
    }
    granularity = "row"
    formats: ClassVar[tuple[str, ...]] = ("dense", "sparse")

    def __init__(self, bits: int, signed: bool, trim: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.trim = trim

    @property
    def own(self) -> OwnScale:
        """How rows become codes."""
        return OwnScale(int(self.bits or 0), self.signed, self.trim)

    @property
    def own_scales(self) -> bool:
        return True

    def encoding(self, place: Place, x: Tensor | None = None) -> Encoding | None:
        if x is None:
            return None
        own = self.own
        scale = own.scale(x)
        zero_point = scale.new_full((1,), own.zero_point)
        rounding = zero_point.expand_as(scale).contiguous()
        return Encoding(Affine(scale, zero_point, 0), rounding, own.bits)

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> Rows:
        """See :meth:`RowQuantizer.pack`; scales and codes in one pass where that is possible."""
        x = scaled(x, row_factor)
        if is_recording():
            return self._one_step(x)
        scan = scan_features(x, self.own, 0.0)
        return self._scanned(scan, x.size(1)) or super().pack(x)

    def pack_features(self, x: Tensor, sparse: bool) -> Rows:
        """See :meth:`RowQuantizer.pack_features`; a zero point would fill the zeros."""
        if is_recording():
            check_finite(x, FEATURES)
            return self._one_step(x)
        bits = int(self.bits or 0)
        density = sample_density(x) if sparse and not self.signed else 1.0
        share = SPARSE_DENSITY if density <= sparse_share(bits) else 0.0
        scan = scan_features(x, self.own, share, density)
        if not scan.finite:
            check_finite(x, FEATURES)
        if scan.sparse is not None:
            return Rows(
                Sparse.of(scan.sparse, bits, x.size(1)),
                Affine(scan.scale, scan.scale.new_zeros(1), 0),
            )
        return self._scanned(scan, x.size(1)) or self.pack(x)

    def wait_features(self, x: Tensor) -> Rows | None:
        bits = int(self.bits or 0)
        if is_recording():  # a plan decides anew in every run
            return Rows(Raw(x, self.own, self._packed), PLAIN)
        if not self.signed and sample_density(x) <= sparse_share(bits):
            return None
        return Rows(Raw(x, self.own, self._packed), PLAIN)

    def _packed(self, x: Tensor) -> tuple[Format, Affine]:
        rows = self.pack_features(x, False)
        return rows.data, rows.affine

    def _one_step(self, x: Tensor) -> Rows:
        """Dense rows, as a step of a plan."""
        own = self.own

        def run() -> tuple[Tensor, Tensor]:
            scan = scan_features(x, own, 0.0)
            rows = self._scanned(scan, x.size(1)) or super(DynamicRows, self).pack(x)
            return rows.data.parts(rows.affine)[1]["packed"], rows.scale

        packed, scale = recorded("pack_own", run, x, own.bits, own.signed, *own.trims)
        zero_point = torch.full((1,), own.zero_point, device=x.device)
        return Rows.dense(packed, own.bits, x.size(1), scale, zero_point, 0)

    def _scanned(self, scan: FeatureScan, num_cols: int) -> Rows | None:
        """The packed rows of a scan; None where it took other scales than these rows have."""
        if scan.packed is None or not scan.finite or (scan.negative and not self.signed):
            return None  # an unsigned row's scale is that of its positive values
        own = self.own
        zero_point = scan.scale.new_full((1,), own.zero_point)
        return Rows.dense(scan.packed, own.bits, num_cols, scan.scale, zero_point, 0)

    def made(self, rows: Rows) -> bool:
        return super().made(rows) and (rows.data.packs_zeros or not self.signed)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "signed": self.signed, "trim": self.trim}

    @classmethod
    def build(cls, config: dict[str, Any]) -> DynamicRows:
        return cls(int(config["bits"]), bool(config["signed"]), bool(config.get("trim")))

    def scale_values(self, num_rows: int) -> int:
        return num_rows
