"""``load_dataset``: from a name to a ``Dataset``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nodebits.data.base import Dataset, with_task
from nodebits.data.catalogue import data_folder
from nodebits.data.own.options import OwnOptions
from nodebits.data.sources.base import Request, find_source, refuse_roles


def load_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    split: int | str | None = None,
    normalize_features: bool | None = None,
    use_node_attr: bool = False,
    task: str | None = None,
    target: str | Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int | None = None,
) -> Dataset:
    """Loads a data set by name, with a fixed split.

    The data folder is only read. What PyG derives from it goes to the cache folder, where a second
    load finds it.

    Args:
        name: One of ``dataset_names()`` in any case, ``TU:NAME``, or a path of one's own: a
            ``.pt`` or ``.npz`` file, or a folder with tables ``nodes`` and ``edges``, and
            ``graphs`` of many (``.csv`` or ``.parquet``). ``NAME:N`` are the first N graphs of each
            part of a split that comes with the set, such as ``MNIST:1000``.
        root: Folder with PyG raw folders (``<root>/Cora/raw/...``). None: ``NODEBITS_DATA``, and
            without that PyG downloads into the cache. Unused by ``digits`` and ``digits-graphs``.
        cache: Cache folder. None: ``NODEBITS_CACHE``, else the user's cache folder.
        split: None for the default. Planetoid: ``"public"`` (default) or ``"full"``. Heterophilous
            sets: the number of the published split, 0 to 9. TU sets and ESOL: the fold, 0 to 9.
            Superpixels and other molecules: they have one. Others, which have no published split:
            the seed of the drawn one. The default is 0 wherever a number is meant. Own data also
            take ``"0.8/0.1/0.1"``, ``"column:NAME"``, ``"time:NAME"`` and ``"masks"``.
        normalize_features: Divide the feature rows of bag-of-words sets by their sum. None: as is
            usual for the set, which is yes but for Amazon's, whose models do not train on shares
            at the usual rates. Sets that are no bags of words are never changed.
        use_node_attr: TU sets: put the continuous node attributes before the one-hot node labels,
            as PyG's argument of that name does.
        task: One of ``nodebits tasks``; None: what the data set is for, and of own files what type
            and shape of their targets say.
        target: Of own data: the column, array or field to predict, or several columns.
        ignore: Of own data: what is left out.
        seed: Of a drawn split, where ``split`` says how it is drawn.

    Returns:
        The data set, on the CPU.

    Raises:
        UnknownNameError: there is no such name, or no such task.
        DataNotFoundError: the data folder or a raw file is missing, or the download failed.
        UnsupportedTaskError: the set is for a task that its loader does not prepare.
        LabelError: the targets are not what the task takes.
        FileFormatError: a raw file cannot be read.
        ConfigError: ``split``, ``use_node_attr`` or the level of the task does not fit the data
            set.
        NonFiniteError: a feature is NaN or infinite.
        ImportError: the ``data`` extra is not installed.
    """
    folder = data_folder(root)
    source, _ = find_source(name, folder)
    place = None if cache is None else Path(cache)
    own = OwnOptions((target,) if isinstance(target, str) else tuple(target), tuple(ignore))
    request = Request(
        name, folder, place, split, normalize_features, use_node_attr, task, own, seed
    )
    refuse_roles(source, request)
    dataset = source.load(request)
    return dataset if task is None else with_task(dataset, task)
