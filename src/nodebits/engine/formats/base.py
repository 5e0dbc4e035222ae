"""What a format of rows answers: how codes lie in memory, and how operators read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.core.file_fields import Options
from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.stage import Stage
from nodebits.engine.weight import PackedWeight
from nodebits.ops import Source

_formats: dict[str, type[Format]] = {}
F = TypeVar("F", bound="type[Format]")


def register_format(cls: F) -> F:
    """Class decorator: makes ``cls.name`` readable from files."""
    _formats[cls.name] = cls
    return cls


def formats() -> dict[str, type[Format]]:
    """The formats by name."""
    return dict(_formats)


class Summands(NamedTuple):
    """Rows as a neighbour sum reads them: ``(u - zero_point) * scale``, less a zero of each row.

    Attributes:
        source: Unsigned fields.
        zero_point: float32 ``[1]`` or ``[C]``; 1 beside ``row_zero``.
        row_zero: float32 ``[N, 1]``: the sum of these over neighbours takes the place of the
            degree in the epilogue; None where all rows have the same zero point.
        key: What ``row_zero`` follows from, where it is the same in every forward.
    """

    source: Source
    zero_point: Tensor
    row_zero: Tensor | None = None
    key: Tensor | None = None


class Sample(NamedTuple):
    """Codes of some rows and columns, uint8 ``[n, c]``, and the largest of each row."""

    codes: Tensor
    top: Tensor | float


class Format(ABC):
    """The codes of a matrix in memory: base of frozen dataclasses of tensors.

    Attributes:
        name: What files call the format.
        fields: What a file says of such rows beside their tensors.
        bits: Width of the codes, the largest where rows differ; None for floats.
        layout: Where rows lie that have widths of their own; None where all have the same.
        transient: Whether such rows only exist inside of a forward, and enter no file.
        packs_zeros: Whether a code takes room whatever it is; otherwise zeros are left out.
    """

    name: ClassVar[str]
    fields: ClassVar[Options] = {}
    transient: ClassVar[bool] = False
    packs_zeros: ClassVar[bool] = True

    if TYPE_CHECKING:  # fields of some, constants of others

        @property
        def bits(self) -> int | None: ...
        @property
        def layout(self) -> RowLayout | None: ...

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """``(num_rows, num_cols)``."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the codes and of what says where they are; parameters apart."""

    def check(self) -> None:  # noqa: B027  some take any parts
        """Checks that the parts fit together.

        Raises:
            ShapeError: If a shape or dtype is not as documented.
        """

    def settled(self, affine: Affine) -> tuple[Format, Affine]:
        """The rows packed, where they still wait to be; themselves otherwise."""
        return self, affine

    def selected(self, index: Tensor) -> Format:
        """The rows ``index``, int64 ``[n]``, as they are: nothing is decoded.

        Raises:
            ConfigError: If the rows are transient.
        """
        raise ConfigError("these rows are between two layers of a forward: some are not taken")

    def placed(self, place: Callable[[Tensor], Tensor]) -> Format:
        """The same rows in other memory.

        Args:
            place: From each tensor, whose entries belong to rows, to the one in its place.

        Raises:
            ConfigError: If the rows are transient.
        """
        if self.transient:
            raise ConfigError("these rows are between two layers of a forward: they stay there")
        held = {one.name: getattr(self, one.name) for one in fields(cast("Any", self))}
        made = {name: value for name, value in held.items() if not name.startswith("_")}
        for name, value in made.items():
            if isinstance(value, Tensor):
                made[name] = place(value)
            elif isinstance(value, RowLayout):
                widths, order, position = map(place, (value.widths, value.order, value.position))
                made[name] = RowLayout(widths, order, position, value.counts)
        return type(self)(**made)

    def aligned(self, affine: Affine) -> Format:
        """The rows as they are summed, for whoever sums them more than once."""
        return self

    @abstractmethod
    def codes(self, affine: Affine) -> Tensor:
        """The uint8 ``[N, C]`` codes, shifted; the float32 values themselves without a width."""

    def sample(self, affine: Affine, rows: slice, cols: slice) -> Sample | None:
        """Unshifted codes; None where the ends of a range say nothing of them."""
        return None

    def taken(self, affine: Affine, index: Tensor, begin: int, end: int) -> Tensor | None:
        """Values of the rows ``index[begin:end]``, float32; None where all are decoded instead."""
        return None

    def block(self, affine: Affine, begin: int, end: int) -> Tensor | None:
        """Values of the rows ``[begin, end)``, float32; None where all are decoded instead."""
        return None

    def product(self, affine: Affine, weight: PackedWeight, bias: Tensor | None) -> Stage | None:
        """``rows @ weight^T + bias`` on integers; None where that takes floats."""
        return None

    def summands(self, affine: Affine) -> Summands | None:
        """What a neighbour sum adds up; None for floats.

        Raises:
            ConfigError: If such rows enter no sum.
        """
        raise ConfigError(f"rows of the format {self.name!r} enter no neighbour sum")

    def parts(self, affine: Affine) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """JSON and tensors for a file.

        Raises:
            ConfigError: If the rows are transient.
        """
        raise ConfigError("these rows are between two layers of a forward: they enter no file")

    @classmethod
    def read(cls, about: dict[str, Any], parts: dict[str, Tensor]) -> tuple[Format, Affine]:
        """Inverse of :meth:`parts`."""
        raise ConfigError(f"rows of the format {cls.name!r} are in no file")


def not_by_row(affine: Affine) -> None:
    """Raises ConfigError where every row has a scale: sums over rows need a common one."""
    if affine.axis == 0:
        raise ConfigError(
            "the message site needs one scale per tensor or column: a scale per row commutes with "
            "the sum over rows only where it is a power of two (shift)"
        )
