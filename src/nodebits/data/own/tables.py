"""Tables of text: CSV files, and Parquet files where pyarrow is installed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nodebits.core.errors import DataNotFoundError, FileFormatError
from nodebits.data.extras import require
from nodebits.data.own.options import SUFFIXES

Cells = np.ndarray[Any, Any]
# What programs write in place of commas, above all where numbers have decimal commas.
_OTHER_SEPARATORS = (";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: Of the file, for messages.
        columns: By name, texts ``[rows]``; an empty text is a missing value.
        lines: Line of the file that each row is on, ``[rows]``.
    """

    path: Path
    columns: dict[str, Cells]
    lines: Cells

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def place(self, row: int) -> str:
        """Names a row, for messages."""
        return f"{self.path}, line {int(self.lines[row])}"

    def column(self, name: str) -> Cells:
        """The texts of a column.

        Raises:
            FileFormatError: There is none of that name.
        """
        if name not in self.columns:
            raise FileFormatError(
                f"{self.path} has no column {name!r}; it has {', '.join(self.columns)}"
            )
        return self.columns[name]

    def numbers(self, name: str, missing: bool = False) -> Cells:
        """A column as float64.

        Args:
            name: Of the column.
            missing: Whether empty cells are NaN, instead of being refused.

        Raises:
            FileFormatError: Names the first line that holds something else.
        """
        cells = self.column(name)
        empty = cells == ""
        if empty.any() and not missing:
            raise FileFormatError(
                f"{self.place(int(empty.argmax()))}: {name!r} is empty: fill it, or leave the "
                f"column out (ignore {name})"
            )
        try:
            return np.where(empty, "nan", cells).astype(np.float64)
        except ValueError:
            row = next(row for row, cell in enumerate(cells) if not is_number(cell))
            raise FileFormatError(
                f"{self.place(row)}: {name!r} is {str(cells[row])!r}, not a number"
            ) from None


def find_table(folder: Path, name: str) -> Path | None:
    """The file of a table in a folder, ``NAME.csv`` or ``NAME.parquet``; None without.

    Raises:
        FileFormatError: There are both.
    """
    found = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    found = [path for path in found if path.is_file()]
    if len(found) > 1:
        raise FileFormatError(f"{folder} has {found[0].name} and {found[1].name}: keep one of them")
    return found[0] if found else None


def read_table(path: Path) -> Table:
    """Reads a table by the suffix of its name.

    Raises:
        DataNotFoundError: There is no such file.
        FileFormatError: It is no table, its columns are not separated by commas, two of them have
            one name, or a row has more or fewer cells than the header.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        raise DataNotFoundError(f"there is no data file {path}")
    return _parquet(path) if path.suffix == ".parquet" else _csv(path)


def _csv(path: Path) -> Table:
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path} cannot be read as CSV: {error}") from error
    if not rows:
        raise FileFormatError(f"{path} is empty: a header and a row each are expected")
    header = [name.strip() for name in rows[0]]
    _check_separator(path, header)
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise FileFormatError(
                f"{path}, line {line}: {len(row)} values under {len(header)} columns "
                f"({', '.join(header)})"
            )
    _check_header(path, header)
    cells = np.array(rows[1:], dtype=str).reshape(len(rows) - 1, len(header))
    columns = {name: np.char.strip(cells[:, place]) for place, name in enumerate(header)}
    return Table(path, columns, np.array(lines[1:], dtype=np.int64))


def _check_separator(path: Path, header: list[str]) -> None:
    """Refuses a header that is one cell only because its names are not separated by commas."""
    if len(header) > 1:
        return
    for sign in _OTHER_SEPARATORS:
        names = [name.strip() for name in header[0].split(sign)]
        if len(names) > 1:
            raise FileFormatError(
                f"{path}, line 1: {header[0]!r} looks like {len(names)} columns that are "
                f"separated by {sign!r}, and a table here has commas: write it with them, for "
                f"instance pandas.read_csv(file, sep={sign!r}).to_csv(file, index=False), with "
                "decimal=',' in read_csv where numbers have decimal commas"
            )


def _parquet(path: Path) -> Table:
    parquet = require("pyarrow.parquet", extra="parquet")
    try:
        table = parquet.read_table(path)
    except Exception as error:  # pyarrow has errors of its own for what is no Parquet
        raise FileFormatError(f"{path} cannot be read as Parquet: {error}") from error
    _check_header(path, table.column_names)
    columns = {}
    for name in table.column_names:
        values = ["" if value is None else _text(value) for value in table[name].to_pylist()]
        columns[name] = np.array(values, dtype=str)
    return Table(path, columns, np.arange(table.num_rows) + 1)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def _check_header(path: Path, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        what = f"the name {twice[0]!r} twice" if twice else "a column without a name"
        raise FileFormatError(f"{path}, line 1: the header has {what}")


def is_number(cell: Any) -> bool:
    """Whether a text is a number, or empty."""
    try:
        float(cell)
    except ValueError:
        return str(cell) == ""
    return True
