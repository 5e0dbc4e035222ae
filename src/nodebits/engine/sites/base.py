"""Frozen activation quantizers: what a packed model keeps of a site.

A kind is a module whose buffers are its parameters and whose :meth:`RowQuantizer.config` is the
JSON that rebuilds it. It joins two strategies: where widths come from (``widths.py``) and where
scales come from (``scales.py``). Files name the kind; new kinds register themselves with
:func:`register_rows`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from nodebits.core.errors import ConfigError, UnknownNameError
from nodebits.core.file_fields import (
    Choice,
    ListOf,
    Number,
    Optional,
    Options,
    Text,
    check_fields,
)
from nodebits.core.observer import FEATURES, check_finite
from nodebits.core.row_layout import RowLayout
from nodebits.engine.encoding import Encoding
from nodebits.engine.loaded import check_values
from nodebits.engine.rows import Rows
from nodebits.engine.use import Ends

_kinds: dict[str, type[RowQuantizer]] = {}
T = TypeVar("T", bound="type[RowQuantizer]")


def register_rows(cls: T) -> T:
    """Class decorator: makes ``cls.kind`` loadable from files."""
    _kinds[cls.kind] = cls
    return cls


class Place(NamedTuple):
    """Widths of the rows of one forward.

    Attributes:
        layout: Where rows lie that have widths of their own; None where all have one.
        group: int64 ``[N]``, which of the site's groups every row is in; None where the rows are
            the groups, or there are none.
    """

    layout: RowLayout | None = None
    group: Tensor | None = None


def scaled(x: Tensor, row_factor: Tensor | None) -> Tensor:
    """``x`` ``[N, C]`` with its rows times ``row_factor`` ``[N]``."""
    return x if row_factor is None else x * row_factor.view(-1, 1)


class RowQuantizer(nn.Module):
    """Base: float rows in, packed rows out.

    Attributes:
        formats: Names of the formats of rows that it makes.
        ends: How much of its data had the end codes before conversion; None where that is not
            known.
    """

    kind: ClassVar[str]
    # What a file may say in the config, besides the kind; see core/file_fields.py.
    options: ClassVar[Options] = {"bits": Choice((None,))}
    # Buffers whose values a file may not give otherwise: above zero, or just finite.
    positive: ClassVar[tuple[str, ...]] = ()
    finite: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[tuple[str, ...]] = ("dense",)
    # Whether the codes of a row follow from its values, whatever node it is of.
    of_values: ClassVar[bool] = True
    bits: int | None = None
    granularity: str = "tensor"
    signed: bool = False
    site_name: str = ""
    ends: Ends | None = None

    # --- widths and scales: the two strategies answer these ---

    def place(self, num_rows: int) -> Place | None:
        """Widths of ``num_rows`` rows; None where they depend on the values."""
        return Place()

    def place_of(self, x: Tensor) -> Place:
        """Widths of rows by their values."""
        raise NotImplementedError

    def encoding(self, place: Place, x: Tensor | None = None) -> Encoding | None:
        """What rows are made with; None without ``x`` where that depends on the values.

        Args:
            place: Their widths.
            x: float32 ``[N, C]``.
        """
        return None

    # --- what a site tells of itself ---

    @property
    def unused(self) -> bool:
        """Whether the site saw no data before conversion, so that it takes none."""
        return False

    @property
    def own_scales(self) -> bool:
        """Whether every row brings its own scale at the one width there is."""
        return False

    @property
    def bound(self) -> bool:
        """Whether rows have parameters because of which node they are, not of what they hold."""
        return False

    @property
    def own_layout(self) -> RowLayout | None:
        """Where the rows of the site's own nodes lie; None where it is not :attr:`bound`."""
        return None

    def bound_to(self, layout: RowLayout | None) -> bool:
        """Whether these are the widths of this site's own nodes."""
        return False

    def bound_rows(self, packed: Tensor, num_cols: int) -> Rows:
        """Codes of this site's own nodes, with its widths and scales.

        Raises:
            ConfigError: If the site is not :attr:`bound`.
        """
        raise ConfigError(f"site {self.site_name!r} has no rows of its own: it reads any nodes")

    def serve_other_graphs(self, allow: bool) -> None:
        """Lets a :attr:`bound` site serve other nodes by the nearest of its own; else nothing."""

    def fixed(self, num_rows: int) -> Encoding | None:
        """What ``num_rows`` rows are made with, where that does not depend on their values.

        A fused operator then packs rows that never exist in float.
        """
        place = self.place(num_rows)
        return None if place is None else self.encoding(place)

    # --- rows ---

    def pack(self, x: Tensor, row_factor: Tensor | None = None) -> Rows:
        """Quantizes and packs.

        Args:
            x: float32 ``[N, C]``.
            row_factor: float32 ``[N]``; rows are multiplied by it first.

        Raises:
            GraphMismatchError: If the site is :attr:`bound` to another graph.
        """
        place = self.place(x.size(0))
        found = None if place is None else self.encoding(place)
        if found is None:
            x, row_factor = scaled(x, row_factor), None
            found = self.encoding(self.place_of(x) if place is None else place, x)
        assert found is not None
        return found.pack(x, row_factor)

    def pack_features(self, x: Tensor, sparse: bool) -> Rows:
        """Checks and packs raw features.

        Args:
            x: float32 ``[N, C]``.
            sparse: Whether the result may be sparse, where that is smaller.

        Raises:
            NonFiniteError: If ``x`` holds NaN or infinity.
        """
        check_finite(x, FEATURES)
        return self.pack(x)

    def wait_features(self, x: Tensor) -> Rows | None:
        """Raw features as rows that a product packs as it goes; None where others are better.

        The product then has to find out whether they are finite.
        """
        return None

    def made(self, rows: Rows) -> bool:
        """Whether ``rows``, packed ahead, may be what this quantizer makes."""
        return rows.data.name in self.formats and rows.bits == self.bits

    def reread(self, rows: Rows) -> Rows:
        """``rows`` of this site with its own tensors in place of equal ones."""
        return rows

    # --- files ---

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
