"""An ``.npz`` file of one's own."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from nodebits.core.errors import DataNotFoundError, FileFormatError
from nodebits.data.sources.base import Request, Source, register_source

if TYPE_CHECKING:
    from nodebits.data.base import Dataset


def place_of(name: str, root: Path | None) -> Path:
    """The path as given, else below the data root."""
    path = Path(name).expanduser()
    return path if path.exists() or root is None else root / name


@register_source("npz")
class NpzFile(Source):
    """PATH.npz with x, y, edge_index, masks if it has a split, and batch for many graphs."""

    own = True

    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the file's name, for a name that ends in ``.npz``."""
        return Path(name).name if name.lower().endswith(".npz") else None

    def load(self, request: Request) -> Dataset:
        """Reads the file; see ``build`` for what is checked."""
        import numpy as np

        from nodebits.data.own.build import build

        path = place_of(request.name, request.root)
        if not path.is_file():
            raise DataNotFoundError(f"there is no data file {path}")
        parts = {}
        name = ""
        try:
            with np.load(path, allow_pickle=False) as file:
                for name in file.files:
                    parts[name] = file[name]
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            if "Object arrays" in str(error):
                raise FileFormatError(
                    f"{path}: the array {name!r} holds Python objects (dtype object), which are "
                    f"never unpickled: save numbers or texts, numpy.savez(file, {name}=numpy."
                    f"array({name}.tolist())); rows of different lengths are no array"
                ) from None
            raise FileFormatError(f"{path} is no .npz file of arrays: {error}") from error
        if request.own.target:
            (name, *more) = request.own.target
            if more or name not in parts:
                raise FileFormatError(f"{path} has no array {name!r}; it has {', '.join(parts)}")
            parts["y"] = parts.pop(name)
        for name in request.own.ignore:
            parts.pop(name, None)
        return build(path, parts, request)

    def names(self) -> dict[str, str]:
        """The form of the name."""
        return {
            "PATH.npz": "x, y, edge_index; batch (the graph of each node) for many graphs; "
            "edge_label for targets of edges; train_mask, val_mask, test_mask if it has a split"
        }
