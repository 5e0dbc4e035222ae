"""Sets known by name: the embedded ones, and those that PyG has a parser for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nodebits.core.errors import ConfigError, DataNotFoundError
from nodebits.data.catalogue import ENTRIES, find_entry
from nodebits.data.sources.base import Request, Source, register_source

if TYPE_CHECKING:
    from nodebits.data.base import Dataset


@register_source("named")
class NamedSets(Source):
    """Data sets by name, downloaded or read from a folder; digits is embedded."""

    def find(self, name: str, root: Path | None) -> str:
        """Returns the canonical name, or raises: no source is asked after this one."""
        return find_entry(name, root).name

    def load(self, request: Request) -> Dataset:
        """Loads an embedded set, or reads and downloads one through PyG's parser."""
        from nodebits.core.cache import cache_folder
        from nodebits.data.digits import load_digits, load_digits_graphs
        from nodebits.data.pyg import load_pyg
        from nodebits.data.superpixels.dataset import load_superpixels

        entry = find_entry(request.name, request.root)
        if request.use_node_attr and entry.family != "tu":
            raise ConfigError(
                f"use_node_attr is for the sets of the TU collection, not {entry.name}"
            )
        if entry.family == "embedded":
            load = load_digits if entry.name == "digits" else load_digits_graphs
            return load(request.seed())
        folder = request.root
        if folder is not None and not folder.is_dir():
            raise DataNotFoundError(
                f"data set {entry.name!r}: the data folder {folder} does not exist; correct root "
                "or NODEBITS_DATA, or leave both out to download"
            )
        place = cache_folder(request.cache).absolute()
        if entry.family == "slic":
            if folder is None:
                raise DataNotFoundError(
                    f"data set {entry.name!r} is made of images of a data folder: pass root, or "
                    "set NODEBITS_DATA"
                )
            if request.split is not None:
                raise ConfigError(
                    f"{entry.name} has one split of its own: leave out split={request.split!r}"
                )
            return load_superpixels(entry, folder, place)
        return load_pyg(
            entry, folder, place, request.split, request.normalize_features, request.use_node_attr
        )

    def names(self) -> dict[str, str]:
        """The canonical names, with where the sets come from."""
        return {name: entry.citation or "embedded" for name, entry in ENTRIES.items()}
