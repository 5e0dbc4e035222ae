"""Which column of a table is what: guessed from its name, or said."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nodebits.core.errors import FileFormatError
from nodebits.data.own.options import SPLITS
from nodebits.data.own.tables import Table

_IDS = ("id", "node", "node_id", "nodeid", "index")
_GRAPH_IDS = ("graph", "graph_id", "graphid", "batch")
_SPLITS = ("split", "set", "subset", "partition")
_TARGETS = ("label", "labels", "y", "target", "class", "edge_label")
_SOURCES = ("source", "src", "from", "u", "head", "node1", "source_id")
_ENDS = ("target", "dst", "to", "v", "tail", "node2", "target_id")
_WEIGHTS = ("weight", "edge_weight")
_NUMBERED = re.compile(r"(?:y|label|target|task)_?\d+", re.IGNORECASE)
_WORDS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}
# A row in no split.
UNUSED = -1


def one_of(table: Table, names: Iterable[str]) -> str | None:
    """The first column of a table that has one of these names, whatever its case."""
    lowered = {name.lower(): name for name in reversed(table.columns)}
    return next((lowered[name] for name in names if name in lowered), None)


def id_column(table: Table, graphs: bool = False) -> str | None:
    """The column of ids of nodes, or of graphs."""
    return one_of(table, (*_GRAPH_IDS, "id") if graphs else _IDS)


def graph_column(table: Table) -> str | None:
    """The column that says which graph a row is of."""
    return one_of(table, _GRAPH_IDS)


def end_columns(table: Table) -> tuple[str, str]:
    """The columns of the two nodes of an edge: by name, else the first two.

    Raises:
        FileFormatError: There are fewer than two columns.
    """
    source, target = one_of(table, _SOURCES), one_of(table, _ENDS)
    if source is not None and target is not None:
        return source, target
    if len(table.columns) < 2:
        raise FileFormatError(f"{table.path} needs two columns, such as source and target")
    first, second = list(table.columns)[:2]
    return first, second


def weight_column(table: Table) -> str | None:
    """The column of weights of edges."""
    return one_of(table, _WEIGHTS)


def split_column(table: Table, taken: Iterable[str] = ()) -> str | None:
    """The column that says train, val or test; one that holds anything else is none."""
    name = one_of(table, _SPLITS)
    if name is None or name in taken:
        return None
    words = {str(cell).lower() for cell in set(table.columns[name].tolist())}
    return name if words <= {*_WORDS, ""} and words & set(_WORDS) else None


def split_numbers(table: Table, name: str) -> list[int]:
    """0, 1, 2 for rows of training, validation and test; -1 for those of none.

    Raises:
        FileFormatError: Names the first line with another word.
    """
    found = []
    for row, cell in enumerate(table.column(name).tolist()):
        word = cell.lower()
        if word and word not in _WORDS:
            raise FileFormatError(
                f"{table.place(row)}: {name!r} is {cell!r}: write {', '.join(SPLITS)}, or nothing"
            )
        found.append(_WORDS.get(word, UNUSED))
    return found


def target_columns(table: Table, taken: Iterable[str] = ()) -> tuple[str, ...]:
    """The column to predict, or columns ``y_0``, ``y_1`` and so on."""
    taken = set(taken)
    name = one_of(table, [name for name in _TARGETS if name not in {t.lower() for t in taken}])
    if name is not None:
        return (name,)
    return tuple(n for n in table.columns if n not in taken and _NUMBERED.fullmatch(n))
