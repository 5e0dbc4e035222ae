"""Columns of texts as features and targets: numbers, categories, and what is neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nodebits.core.errors import FileFormatError
from nodebits.data.own.tables import Cells, Table, is_number

_MOST_CATEGORIES = 100
_FEW = 5
_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
# A schema: what becomes of each column. None is a number, else one column per category.
Schema = Mapping[str, Sequence[str] | None]


def schema_of(table: Table, names: Sequence[str]) -> dict[str, list[str] | None]:
    """What becomes of columns that are features.

    Raises:
        FileFormatError: A column is text: neither numbers nor a few categories.
    """
    return {name: _kind(table, name) for name in names}


def _kind(table: Table, name: str) -> list[str] | None:
    cells = table.columns[name]
    own = cells[cells != ""]
    if _numeric(own) or {cell.lower() for cell in set(own.tolist())} <= set(_WORDS):
        return None
    wrong = [row for row, cell in enumerate(cells.tolist()) if cell and not is_number(cell)]
    if 2 * len(wrong) < len(own):  # a column of numbers with mistakes in it
        row = wrong[0]
        raise FileFormatError(
            f"{table.place(row)}: {name!r} is {str(cells[row])!r}, and numbers in most rows: "
            f"correct it, or leave the column out (ignore {name})"
        )
    categories = sorted(set(cells.tolist()))
    if len(categories) > _MOST_CATEGORIES or len(categories) > max(_FEW, len(cells) // 2):
        shown = str(own[0])[:30]
        raise FileFormatError(
            f"{table.path}: column {name!r} is text, {len(categories)} different ones in "
            f"{len(cells)} rows, such as {shown!r}: leave it out (ignore {name}), replace it by "
            f"numbers, such as an embedding of the text, or split by it if it is a date (split "
            f"time:{name})"
        )
    return categories


def _numeric(cells: Cells) -> bool:
    try:
        cells.astype(np.float64)
    except ValueError:
        return False
    return True


def features(table: Table, schema: Schema) -> Cells:
    """Features by a schema, float32 ``[rows, F]``; a category that it does not know is all zeros.

    Raises:
        FileFormatError: A column is missing, or holds no number where one is expected.
    """
    missing = [name for name in schema if name not in table.columns]
    if missing:
        raise FileFormatError(
            f"{table.path} lacks {', '.join(missing)}: the model was trained on the columns "
            f"{', '.join(schema)}; it has {', '.join(table.columns)}"
        )
    parts = [np.zeros((len(table), 0), dtype=np.float32)]
    for name, categories in schema.items():
        if categories is not None:
            parts.append(table.columns[name][:, None] == np.array(categories, dtype=str))
            continue
        cells = table.columns[name]
        lowered = np.char.lower(cells)
        if set(lowered.tolist()) <= {*_WORDS}:
            parts.append(np.array([_WORDS[cell] for cell in lowered.tolist()])[:, None])
            continue
        numbers = table.numbers(name)
        if not np.isfinite(numbers).all():
            row = int((~np.isfinite(numbers)).argmax())
            raise FileFormatError(
                f"{table.place(row)}: {name!r} is {str(cells[row])!r}: features are finite numbers"
            )
        parts.append(numbers[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)


def strange(table: Table, schema: Schema) -> list[str]:
    """One phrase per column with categories that the schema does not know, for people."""
    found = []
    for name, categories in schema.items():
        if categories is not None:
            cells = table.columns[name]
            others = cells[~np.isin(cells, np.array(categories, dtype=str))]
            if len(others):
                rows = "1 row" if len(others) == 1 else f"{len(others)} rows"
                found.append(
                    f"{rows} of {table.path.name} with a {name} that the model does not know, "
                    f"such as {str(others[0])[:30]!r}: zeros in its columns"
                )
    return found


def targets(
    table: Table, names: Sequence[str], classes: bool | None, known: Sequence[str] | None
) -> tuple[Cells, list[str] | None]:
    """Targets, and the labels that stand for classes.

    Args:
        table: Of the rows.
        names: Columns.
        classes: Whether a class per row is meant; None: where the column holds texts or whole
            numbers.
        known: Labels of classes, of a model that was trained.

    Returns:
        float64 ``[rows]`` or ``[rows, T]`` with NaN for empty cells; or int64 class numbers, -1 for
        empty cells, and the labels where class numbers are not those of the file.
    """
    if len(names) > 1:
        return np.stack([_booleans(table, name) for name in names], axis=1), None
    cells = table.column(names[0])
    own = cells[cells != ""]
    numeric = _numeric(own)
    if known is None and numeric and classes is not True:
        values = table.numbers(names[0], missing=True)
        whole = bool((values[~np.isnan(values)] % 1 == 0).all()) and bool(len(own))
        if classes is False or not whole or _written_as_floats(own):
            return values, None
    if classes is False:
        return _booleans(table, names[0]), None
    if known is None:
        labels = sorted(set(own.tolist()), key=float if numeric else str)
        if not numeric and len(labels) > max(_FEW, len(cells) // 2):
            raise FileFormatError(
                f"{table.path}: the target {names[0]!r} is text, {len(labels)} different ones in "
                f"{len(cells)} rows: classes are few; name another column (target)"
            )
    else:
        labels = list(known)
    place = {label: number for number, label in enumerate(labels)}
    strange = next((row for row, cell in enumerate(cells) if cell and cell not in place), None)
    if strange is not None:
        raise FileFormatError(
            f"{table.place(strange)}: {names[0]!r} is {str(cells[strange])!r}, which is none of "
            f"the model's classes: {', '.join(labels)}"
        )
    y = np.array([place.get(cell, -1) for cell in cells.tolist()], dtype=np.int64)
    plain = labels == [str(number) for number in range(len(labels))]
    return y, None if plain and known is None else labels


def _booleans(table: Table, name: str) -> Cells:
    cells = np.char.lower(table.column(name))
    if set(cells.tolist()) <= {*_WORDS, ""} and (cells != "").any():
        return np.array([_WORDS.get(cell, np.nan) for cell in cells.tolist()])
    return table.numbers(name, missing=True)


def _written_as_floats(cells: Cells) -> bool:
    return any("." in cell or "e" in cell.lower() for cell in cells.tolist())


def described(schema: Schema) -> list[str]:
    """One phrase per kind of features, for people."""
    numbers = [name for name, categories in schema.items() if categories is None]
    found = []
    if numbers:
        shown = ", ".join(numbers[:6]) + (", ..." if len(numbers) > 6 else "")
        found.append(f"{len(numbers)} numeric ({shown})")
    for name, categories in schema.items():
        if categories is not None:
            found.append(f"{name} one-hot in {len(categories)}")
    return found
