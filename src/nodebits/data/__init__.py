"""Named data sets with fixed splits; ``digits`` and ``digits-graphs`` need no download."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodebits.data.base import Dataset
    from nodebits.data.catalogue import dataset_names
    from nodebits.data.load import load_dataset
    from nodebits.data.splits import folds

# Imported at first use: names of data sets are checked by commands before torch is imported.
_EXPORTS = {
    "Dataset": "base",
    "dataset_names": "catalogue",
    "folds": "splits",
    "load_dataset": "load",
}

__all__ = ["Dataset", "dataset_names", "folds", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"nodebits.data.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'nodebits.data' has no attribute {name!r}")
