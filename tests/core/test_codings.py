"""Every coding of the registry: codes to fields and back, what it has not, and its header."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from nodebits.core.codings import base
from nodebits.core.codings.base import Coding, coding_of
from nodebits.core.errors import CodingError, ConfigError, ShapeError, UnknownNameError
from nodebits.core.packing import pack, unpack
from nodebits.core.registry import CODINGS

ALL = [(name, bits) for name in CODINGS.names() for bits in CODINGS.get(name).widths]
OTHER = [(name, bits) for name, bits in ALL if name != "unsigned"]


class _Own(Coding):
    """A coding of this file alone, in four bits: code c is field 6 - c modulo 7."""

    name, number, widths = "own", 99, (4,)
    fields: ClassVar[list[int]] = [6, 0, 5, 4, 3, 2, 1]

    def top(self, bits: int) -> int:
        return len(self.fields) - 1

    def field(self, code: int, bits: int) -> int:
        return self.fields[code]


def _codes(top: int, cols: int, rows: int = 9) -> torch.Tensor:
    g = torch.Generator().manual_seed(cols)
    codes = torch.randint(0, top + 1, (rows, cols), generator=g, dtype=torch.uint8)
    codes.view(-1)[: top + 1] = torch.arange(top + 1, dtype=torch.uint8)[: codes.numel()]
    return codes


@pytest.mark.parametrize(("coding", "bits"), [*((CODINGS.get(n), b) for n, b in ALL), (_Own(), 4)])
@pytest.mark.parametrize("cols", [0, 1, 3, 8, 9, 33])
def test_rows_come_back_and_padding_is_zero(coding: Coding, bits: int, cols: int) -> None:
    codes = _codes(coding.top(bits), cols)
    plain = pack(codes, bits)
    packed = coding.encode(plain, bits, cols)
    assert torch.equal(coding.decode(packed, bits, cols), plain)
    fields = torch.tensor([coding.field(c, bits) for c in range(coding.top(bits) + 1)])
    assert torch.equal(packed, pack(fields[codes.long()].to(torch.uint8), bits))
    assert torch.equal(unpack(packed, bits, cols).long(), fields[codes.long()])


@pytest.mark.parametrize("name", CODINGS.names())
def test_numbers_and_names_are_those_of_the_headers(name: str) -> None:
    kernels = pytest.importorskip("nodebits._kernels")
    coding = CODINGS.get(name)
    assert coding.name == name and coding_of(coding.number) is coding
    assert kernels.codings()[coding.number] == name
    assert sorted(kernels.codings()) == CODINGS.names()


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(CodingError, match=r"coding is 77.*0 \(unsigned\)"):
        coding_of(77)
    with pytest.raises(UnknownNameError, match="unsigned"):
        CODINGS.get("unsinged")


def test_codes_and_fields_that_a_coding_has_not() -> None:
    own = _Own()
    good = own.encode(pack(_codes(6, 5), 4), 4, 5)
    for row, column in ((0, 0), (8, 4), (3, 1)):
        codes = _codes(6, 5)
        codes[row, column] = 7
        with pytest.raises(CodingError, match=rf"packed\[{row}\] has the code 0b0111 in column "):
            own.encode(pack(codes, 4), 4, 5)
        bad = unpack(good, 4, 5)
        bad[row, column] = 15
        with pytest.raises(CodingError, match=rf"x\[{row}\].*0b1111 in column {column}: .* 0 to 6"):
            own.check_fields(pack(bad, 4), 4, 5, "x")
    with pytest.raises(CodingError, match=r"'own'.*exists in 4 bits"):
        own.encode(good, 2, 10)
    for wrong in (good[:, :2], good.view(-1), good.float()):
        with pytest.raises(ShapeError, match="packed must be uint8 rows of 3 bytes"):
            own.decode(wrong, 4, 5)


def test_padding_is_no_field() -> None:
    good = _Own().encode(pack(_codes(6, 5), 4), 4, 5)
    padded = good.clone()
    padded[:, -1] |= 0xF0
    assert torch.equal(_Own().decode(padded, 4, 5), _Own().decode(good, 4, 5))


def test_rows_are_looked_at_again_after_a_write() -> None:
    own = _Own()
    rows = own.encode(pack(_codes(6, 5), 4), 4, 5)
    own.check_fields(rows, 4, 5)
    rows[2, 0] = 0xFF
    with pytest.raises(CodingError, match=r"packed\[2\]"):
        own.check_fields(rows, 4, 5)


@pytest.mark.parametrize(
    ("fields", "bits"), [([1, 2, 3], 4), ([0, 1, 1], 4), ([0, 16], 4), ([0, -1], 4), ([0, 1], 3)]
)
def test_a_coding_that_is_none_is_refused(fields: list[int], bits: int) -> None:
    class Bad(_Own):
        name, widths = "bad", (bits,)

    Bad.fields = fields
    with pytest.raises(ConfigError, match="coding 'bad'"):
        Bad().encode(pack(_codes(1, 8), bits), bits, 8)


@pytest.mark.parametrize("cols", (0, 1, 5, 64))
def test_rows_on_a_device_are_mapped_there(cols: int) -> None:
    """In torch, which is as good on the CPU."""
    for coding in map(CODINGS.get, CODINGS.names()):
        for bits in coding.widths:
            rows = torch.randint(0, 256, (7, (cols * bits + 7) // 8), dtype=torch.uint8)
            table = torch.randint(0, 256, (256,), dtype=torch.uint8).numpy()
            expected = base._mapped(rows, table, bits, cols)
            assert torch.equal(base._mapped_there(rows, table, bits, cols), expected)
