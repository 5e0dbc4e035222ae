"""``load_dataset``: from a name to a ``Dataset``."""

from __future__ import annotations

import os

from nodebits.core.errors import ConfigError, DataNotFoundError
from nodebits.data.base import Dataset
from nodebits.data.cache import cache_folder
from nodebits.data.catalogue import data_folder, find_entry
from nodebits.data.digits import load_digits, load_digits_graphs
from nodebits.data.pyg import load_pyg


def load_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    split: int | str | None = None,
    normalize_features: bool | None = None,
    use_node_attr: bool = False,
) -> Dataset:
    """Loads a data set by name, with a fixed split.

    The data folder is only read. What PyG derives from it goes to the cache folder, where a second
    load finds it.

    Args:
        name: One of ``dataset_names()`` in any case, or ``TU:NAME``.
        root: Folder with PyG raw folders (``<root>/Cora/raw/...``). None: ``NODEBITS_DATA``, and
            without that PyG downloads into the cache. Unused by ``digits`` and ``digits-graphs``.
        cache: Cache folder. None: ``NODEBITS_CACHE``, else the user's cache folder.
        split: None for the default. Planetoid: ``"public"`` (default) or ``"full"``. Heterophilous
            sets: the number of the published split, 0 to 9. TU sets: the fold, 0 to 9. Others,
            which have no published split: the seed of the drawn one. The default is 0 wherever a
            number is meant.
        normalize_features: Divide the feature rows of bag-of-words sets by their sum. None: as is
            usual for the set, which is yes but for Amazon's, whose models do not train on shares
            at the usual rates. Sets that are no bags of words are never changed.
        use_node_attr: TU sets: put the continuous node attributes before the one-hot node labels,
            as PyG's argument of that name does.

    Returns:
        The data set, on the CPU.

    Raises:
        UnknownNameError: there is no such name.
        DataNotFoundError: the data folder or a raw file is missing, or the download failed.
        UnsupportedTaskError: the labels are not one class per node or graph.
        FileFormatError: a raw file cannot be read.
        ConfigError: ``split`` or ``use_node_attr`` does not fit the data set.
        NonFiniteError: a feature is NaN or infinite.
        ImportError: the ``data`` extra is not installed.
    """
    folder = data_folder(root)
    entry = find_entry(name, folder)
    if use_node_attr and entry.family != "tu":
        raise ConfigError(f"use_node_attr is for the sets of the TU collection, not {entry.name}")
    if entry.family == "embedded":
        seed = 0 if split is None else split
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ConfigError(f"split of {entry.name} is a seed, 0 or more, not {split!r}")
        return load_digits(seed) if entry.name == "digits" else load_digits_graphs(seed)
    if folder is not None and not folder.is_dir():
        raise DataNotFoundError(
            f"data set {entry.name!r}: the data folder {folder} does not exist; correct root or "
            "NODEBITS_DATA, or leave both out to download"
        )
    place = cache_folder(cache).absolute()
    return load_pyg(entry, folder, place, split, normalize_features, use_node_attr)
