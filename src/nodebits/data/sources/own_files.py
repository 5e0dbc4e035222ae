"""A graph of one's own: an ``.npz`` file, or a folder of two CSV files."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodebits.core.errors import DataNotFoundError, FileFormatError
from nodebits.data.sources.base import Request, Source, register_source
from nodebits.data.sources.parts import SPLITS, build

if TYPE_CHECKING:
    from nodebits.data.base import Dataset

NODES, EDGES = "nodes.csv", "edges.csv"


def _place(name: str, root: Path | None) -> Path:
    """The path as given, else below the data root."""
    path = Path(name).expanduser()
    return path if path.exists() or root is None else root / name


@register_source("npz")
class NpzFile(Source):
    """PATH.npz with x, y, edge_index, masks if it has a split, and batch for many graphs."""

    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the file's name, for a name that ends in ``.npz``."""
        return Path(name).name if name.lower().endswith(".npz") else None

    def load(self, request: Request) -> Dataset:
        """Reads the file; see ``build`` for what is checked."""
        import numpy as np

        path = _place(request.name, request.root)
        if not path.is_file():
            raise DataNotFoundError(f"there is no data file {path}")
        try:
            with np.load(path, allow_pickle=False) as file:
                parts = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise FileFormatError(f"{path} is no .npz file of arrays: {error}") from error
        return build(path, parts, request)

    def names(self) -> dict[str, str]:
        """The form of the name."""
        return {
            "PATH.npz": "x, y, edge_index; batch (the graph of each node) for many graphs; "
            "train_mask, val_mask, test_mask if it has a split"
        }


@register_source("csv")
class CsvFolder(Source):
    """FOLDER with nodes.csv (features, label, and split if it has one) and edges.csv."""

    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the folder's name where it holds ``nodes.csv``; a bare name is below the root."""
        folder = _place(name, root)
        bare = Path(name).name == name and (root is None or folder != root / name)
        return None if bare or not (folder / NODES).is_file() else folder.resolve().name

    def load(self, request: Request) -> Dataset:
        """Reads both files; see ``build`` for what is checked."""
        import numpy as np

        folder = _place(request.name, request.root)
        header, rows = _table(folder / NODES)
        if "label" not in header:
            raise FileFormatError(f"{folder / NODES} has no column 'label': {', '.join(header)}")
        columns = dict(zip(header, np.array(rows, dtype=object).T, strict=True)) if rows else {}
        parts: dict[str, Any] = {}
        try:
            parts["y"] = _numbers(columns.pop("label", []))
            split = columns.pop("split", None)
            parts["x"] = np.array([*columns.values()], dtype=np.float32).T
            parts["edge_index"] = np.array(_table(folder / EDGES)[1], dtype=np.int64).T
        except ValueError as error:
            raise FileFormatError(f"{folder}: {error}") from error
        if split is not None:
            parts |= {f"{name}_mask": split == name for name in SPLITS}
        return build(folder, parts, request)

    def names(self) -> dict[str, str]:
        """The form of the name."""
        return {"./FOLDER": "nodes.csv (features, label, split if it has one), edges.csv"}


def _numbers(column: Any) -> Any:
    """A column of text as whole numbers, or where it is none as floats."""
    import numpy as np

    try:
        return np.array(column, dtype=np.int64)
    except ValueError:
        return np.array(column, dtype=np.float64)


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file.

    Raises:
        DataNotFoundError: There is no such file.
        FileFormatError: It is no CSV file, or its rows have different lengths.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except FileNotFoundError as error:
        raise DataNotFoundError(f"there is no data file {path}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path} cannot be read as CSV: {error}") from error
    if not rows:
        raise FileFormatError(f"{path} is empty: a header and a row each are expected")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise FileFormatError(
                f"{path}, row {number}: {len(row)} values under {len(rows[0])} columns"
            )
    return rows[0], rows[1:]
