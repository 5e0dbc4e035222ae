"""A graph of one's own: an ``.npz`` file, or a folder of two CSV files."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodebits.core.errors import ConfigError, DataNotFoundError, FileFormatError
from nodebits.data.sources.base import Request, Source, register_source

if TYPE_CHECKING:
    from nodebits.data.base import Dataset

NODES, EDGES = "nodes.csv", "edges.csv"
_SPLITS = ("train", "val", "test")


def _place(name: str, root: Path | None) -> Path:
    """The path as given, else below the data root."""
    path = Path(name).expanduser()
    return path if path.exists() or root is None else root / name


@register_source("npz")
class NpzFile(Source):
    """PATH.npz with x, y, edge_index, and train_mask, val_mask, test_mask if it has a split."""

    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the file's name, for a name that ends in ``.npz``."""
        return Path(name).name if name.lower().endswith(".npz") else None

    def load(self, request: Request) -> Dataset:
        """Reads the file; see :func:`build` for what is checked."""
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
        return {"PATH.npz": "x, y, edge_index; train_mask, val_mask, test_mask if it has a split"}


@register_source("csv")
class CsvFolder(Source):
    """FOLDER with nodes.csv (features, label, and split if it has one) and edges.csv."""

    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the folder's name where it holds ``nodes.csv``; a bare name is below the root."""
        folder = _place(name, root)
        bare = Path(name).name == name and (root is None or folder != root / name)
        return None if bare or not (folder / NODES).is_file() else folder.resolve().name

    def load(self, request: Request) -> Dataset:
        """Reads both files; see :func:`build` for what is checked."""
        import numpy as np

        folder = _place(request.name, request.root)
        header, rows = _table(folder / NODES)
        if "label" not in header:
            raise FileFormatError(f"{folder / NODES} has no column 'label': {', '.join(header)}")
        columns = dict(zip(header, np.array(rows, dtype=object).T, strict=True)) if rows else {}
        parts: dict[str, Any] = {}
        try:
            parts["y"] = np.array(columns.pop("label", []), dtype=np.int64)
            split = columns.pop("split", None)
            parts["x"] = np.array([*columns.values()], dtype=np.float32).T
            parts["edge_index"] = np.array(_table(folder / EDGES)[1], dtype=np.int64).T
        except ValueError as error:
            raise FileFormatError(f"{folder}: {error}") from error
        if split is not None:
            parts |= {f"{name}_mask": split == name for name in _SPLITS}
        return build(folder, parts, request)

    def names(self) -> dict[str, str]:
        """The form of the name."""
        return {"./FOLDER": "nodes.csv (features, label, split if it has one), edges.csv"}


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


def build(path: Path, parts: dict[str, Any], request: Request) -> Dataset:
    """Builds the record of one graph.

    Args:
        path: Where it was read, for messages; the last part is the set's name.
        parts: ``x`` ``[N, F]``, ``y`` ``[N]``, ``edge_index`` ``[2, E]``, and masks ``[N]``.
        request: Of the user.

    Raises:
        FileFormatError: A part is missing, has another shape or type, or names no node or class.
        ConfigError: ``split`` or ``use_node_attr`` does not fit.
        NonFiniteError: A feature is NaN or infinite.
    """
    import dataclasses

    import torch
    from torch_geometric.data import Data

    from nodebits.data.base import node_dataset
    from nodebits.data.features import normalize_rows
    from nodebits.data.splits import per_class_masks

    if request.use_node_attr:
        raise ConfigError(f"use_node_attr is for the sets of the TU collection, not {path.name}")
    missing = [name for name in ("x", "y", "edge_index") if name not in parts]
    if missing:
        raise FileFormatError(f"{path} lacks {', '.join(missing)}; it has {', '.join(parts)}")
    x, y, edges = (parts[name] for name in ("x", "y", "edge_index"))
    shapes = {
        "x": (x.ndim == 2 and x.dtype.kind in "biuf", "numbers [N, F]"),
        "y": (y.shape == x.shape[:1] and y.dtype.kind in "iu" and y.size, "a class per row of x"),
        "edge_index": (
            edges.ndim == 2 and len(edges) == 2 and edges.dtype.kind in "iu",
            "node numbers [2, E]",
        ),
    }
    for name, (fits, wanted) in shapes.items():
        if not fits:
            found = parts[name]
            raise FileFormatError(
                f"{path}: {name} is {found.dtype} {list(found.shape)}, not {wanted}"
            )
    for name, values, end in (("edge_index", edges, len(x)), ("y", y, None)):
        if values.size and (values.min() < 0 or (end is not None and values.max() >= end)):
            wrong = values.min() if values.min() < 0 else values.max()
            raise FileFormatError(f"{path}: {name} has {wrong}; there are {len(x)} nodes")
    data = Data(
        x=torch.from_numpy(x.astype("float32")),
        y=torch.from_numpy(y.astype("int64")),
        edge_index=torch.from_numpy(edges.astype("int64")),
    )
    given = [f"{name}_mask" for name in _SPLITS if f"{name}_mask" in parts]
    if given and request.split is not None:
        raise ConfigError(f"split is {request.split!r}: {path.name} has a split of its own")
    if given and len(given) < len(_SPLITS):
        raise FileFormatError(f"{path} has {', '.join(given)}: all three or none")
    if given:
        masks = [torch.from_numpy(parts[name].astype(bool)) for name in given]
        if any(mask.shape != data.y.shape for mask in masks):
            raise FileFormatError(f"{path}: masks are one value per node, [{len(x)}]")
        train, val, test = masks
        notes = "Split: the file's own."
    else:
        train, val, test = per_class_masks(data.y, seed=request.seed())
        notes = f"Split drawn with seed {request.seed()}: 20 per class train, 30 validate."
    if request.normalize_features:
        normalize_rows(data.x)
        notes += " Features: rows divided by their sum."
    found_set = node_dataset(path.resolve().name, data, (train, val, test), notes, "the user's own")
    return dataclasses.replace(found_set, features_normalized=bool(request.normalize_features))
