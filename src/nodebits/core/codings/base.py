"""What a coding is, and how rows change from one to the other: bytes through a table of 256."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodebits.core.errors import CodingError, ConfigError, ShapeError
from nodebits.core.packing import row_bytes
from nodebits.core.proven import recall, remember
from nodebits.core.registry import CODINGS

# Bytes looked up at once: numpy makes eight of each.
_CHUNK = 1 << 20


class _Tables(NamedTuple):
    """Of bytes with the fields of one width: what each becomes, and whether it can."""

    encoded: NDArray[np.uint8]
    has_codes: NDArray[np.bool_]
    decoded: NDArray[np.uint8]
    has_fields: NDArray[np.bool_]


class Coding(ABC):
    """A coding. Derive in one file, decorate with :func:`register_coding`.

    Attributes:
        name: What it is registered as.
        number: What operators are told, the same as in its header.
        widths: Bits of a field for which it exists, of 1, 2, 4 and 8: no field lies in two bytes.
    """

    name: ClassVar[str]
    number: ClassVar[int]
    widths: ClassVar[tuple[int, ...]]

    @abstractmethod
    def top(self, bits: int) -> int:
        """The largest code; there are all from 0 to it."""

    @abstractmethod
    def field(self, code: int, bits: int) -> int:
        """The field of a code, 0 to ``2**bits - 1``; one code has field 0, since padding is 0."""

    def check_width(self, bits: int, name: str = "packed") -> None:
        """Raises CodingError unless the coding exists in this width."""
        if bits not in self.widths:
            widths = ", ".join(map(str, self.widths))
            raise CodingError(
                f"{name} has fields of {bits} bits in coding {self.name!r}, which exists in "
                f"{widths} bits: pack it so, or use coding 'unsigned'"
            )

    def encode(self, packed: Tensor, bits: int, num_cols: int) -> Tensor:
        """Rows in this coding.

        Args:
            packed: uint8 ``[N, ceil(num_cols * bits / 8)]``, fields that are their codes.
            bits: Of a field.
            num_cols: Fields of a row.

        Raises:
            CodingError: If the coding has not this width, or a code is above :meth:`top`.
            ShapeError: If ``packed`` has another shape.
        """
        self.check_width(bits)
        tables = _tables_of(self, bits)
        self._check(packed, tables.has_codes, bits, num_cols, "packed", "code")
        return _mapped(packed, tables.encoded, bits, num_cols)

    def saturate(self, packed: Tensor, bits: int, num_cols: int) -> Tensor:
        """:meth:`encode` with codes above :meth:`top` taken for it, as a quantizer clamps.

        By operators of torch alone, which whoever watches a forward can see.
        """
        self.check_width(bits)
        if num_cols == 0:
            return packed
        table = torch.from_numpy(_saturating(self, bits)).to(packed.device)
        made = table.index_select(0, packed.reshape(-1).int()).view(packed.shape)
        made[:, -1].bitwise_and_(_used(bits, num_cols))  # padding is 0, whatever that stands for
        return made

    def decode(self, packed: Tensor, bits: int, num_cols: int) -> Tensor:
        """The inverse of :meth:`encode`; raises CodingError where a field stands for no code."""
        self.check_fields(packed, bits, num_cols)
        return _mapped(packed, _tables_of(self, bits).decoded, bits, num_cols)

    def check_fields(self, packed: Tensor, bits: int, num_cols: int, name: str = "packed") -> None:
        """Looks, once per tensor, whether every field stands for a code.

        Args:
            packed: uint8 ``[N, ceil(num_cols * bits / 8)]``.
            bits: Of a field.
            num_cols: Fields of a row.
            name: Of ``packed``, for messages.

        Raises:
            CodingError: Names the first field that does not, or the width that is none.
            ShapeError: If ``packed`` has another shape.
        """
        self.check_width(bits, name)
        question = f"{bits}-bit {self.name} of {num_cols} columns"
        if recall(question, packed) is None:
            known = _tables_of(self, bits).has_fields
            self._check(packed, known, bits, num_cols, name, "field")
            remember(question, True, packed)

    def _check(
        self,
        packed: Tensor,
        known: NDArray[np.bool_],
        bits: int,
        num_cols: int,
        name: str,
        what: str,
    ) -> None:
        rows = _bytes_of(packed, bits, num_cols, name)
        fine = _looked_up(known, rows)
        if num_cols:
            fine[:, -1] = known[rows[:, -1] & _used(bits, num_cols)]
        if fine.all():
            return
        row, byte = (int(i[0]) for i in np.nonzero(~fine))
        fields = [int(rows[row, byte]) >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)]
        # A byte of one field alone: those beside it are 0, which is one.
        k = next(k for k, field in enumerate(fields) if not known[field])
        raise CodingError(
            f"{name}[{row}] has the {what} {fields[k]:#0{bits + 2}b} in column "
            f"{byte * len(fields) + k}: {bits}-bit rows of coding {self.name!r} have codes 0 to "
            f"{self.top(bits)}, in the fields that encode() makes of them"
        )


C = TypeVar("C", bound=type[Coding])
T = TypeVar("T", bound=np.generic)


def register_coding(name: str) -> Callable[[C], C]:
    """Class decorator: makes the coding known under ``name``."""

    def decorate(cls: C) -> C:
        cls.name = name
        CODINGS.add(name, cls())
        return cls

    return decorate


@functools.cache
def coding_of(number: int) -> Coding:
    """The coding of a number.

    Raises:
        CodingError: There is none.
        ConfigError: There are two.
    """
    known: dict[int, Coding] = {}
    for name in CODINGS.names():
        coding = CODINGS.get(name)
        if coding.number in known:
            raise ConfigError(
                f"codings {known[coding.number].name!r} and {name!r} both have the number "
                f"{coding.number}: give one of them another"
            )
        known[coding.number] = coding
    if number not in known:
        listed = ", ".join(f"{n} ({known[n].name})" for n in sorted(known))
        raise CodingError(f"coding is {number}: there is none of that number. Known: {listed}")
    return known[number]


@functools.cache
def _tables_of(coding: Coding, bits: int) -> _Tables:
    if 8 % bits:
        raise ConfigError(f"coding {coding.name!r} exists in {bits} bits: fields lie in two bytes")
    fields = {code: coding.field(code, bits) for code in range(coding.top(bits) + 1)}
    codes = {field: code for code, field in fields.items()}
    if len(codes) < len(fields) or 0 not in codes or min(codes) < 0 or max(codes) >> bits:
        raise ConfigError(
            f"coding {coding.name!r} has the fields {list(fields.values())} in {bits} bits: every "
            f"code needs one of its own, 0 to {(1 << bits) - 1}, and one of them must be 0"
        )
    return _Tables(*_table(fields, bits), *_table(codes, bits))


@functools.cache
def _saturating(coding: Coding, bits: int) -> NDArray[np.uint8]:
    top = coding.top(bits)
    return _table({c: coding.field(min(c, top), bits) for c in range(1 << bits)}, bits)[0]


def _table(of: dict[int, int], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """What all bytes become, field by field, and which of them have only fields in ``of``."""
    made, known = np.zeros(256, np.uint8), np.ones(256, np.bool_)
    for byte in range(256):
        for shift in range(0, 8, bits):
            field = byte >> shift & ((1 << bits) - 1)
            known[byte] &= field in of
            made[byte] |= of.get(field, 0) << shift
    return made, known


def _used(bits: int, num_cols: int) -> int:
    """Which bits of a row's last byte are no padding."""
    return (1 << (num_cols * bits - 1) % 8 + 1) - 1


def _check_rows(packed: Tensor, bits: int, num_cols: int, name: str) -> None:
    width = row_bytes(num_cols, bits)
    if packed.dtype != torch.uint8 or packed.dim() != 2 or packed.size(1) != width:
        raise ShapeError(
            f"{name} must be uint8 rows of {width} bytes, for {num_cols} columns of {bits} bits, "
            f"got {packed.dtype} {list(packed.shape)}"
        )


def _bytes_of(packed: Tensor, bits: int, num_cols: int, name: str) -> NDArray[np.uint8]:
    _check_rows(packed, bits, num_cols, name)
    # numpy looks without an operator of torch, which a recorded forward would note.
    rows: NDArray[np.uint8] = (packed if packed.device.type == "cpu" else packed.cpu()).numpy()
    return rows


def _looked_up(table: NDArray[T], rows: NDArray[np.uint8]) -> NDArray[T]:
    made = np.empty(rows.shape, table.dtype)
    step = max(1, _CHUNK // max(1, rows.shape[1]))
    for i in range(0, rows.shape[0], step):
        made[i : i + step] = table[rows[i : i + step]]
    return made


def _mapped(packed: Tensor, table: NDArray[np.uint8], bits: int, num_cols: int) -> Tensor:
    if packed.device.type != "cpu":
        return _mapped_there(packed, table, bits, num_cols)
    made = _looked_up(table, _bytes_of(packed, bits, num_cols, "packed"))
    if num_cols:
        made[:, -1] &= _used(bits, num_cols)  # padding is 0, whatever that stands for
    return torch.from_numpy(made)


def _mapped_there(packed: Tensor, table: NDArray[np.uint8], bits: int, num_cols: int) -> Tensor:
    """:func:`_mapped` on the device of the rows, which they do not leave."""
    _check_rows(packed, bits, num_cols, "packed")
    there, made = torch.from_numpy(table).to(packed.device), torch.empty_like(packed)
    step = max(1, _CHUNK // max(1, packed.size(1)))
    for i in range(0, packed.size(0), step):
        made[i : i + step] = there[packed[i : i + step].int()]
    if num_cols:
        made[:, -1] &= _used(bits, num_cols)
    return made
