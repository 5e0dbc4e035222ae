"""Data sets that PyTorch Geometric parses, read through the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric import datasets
from torch_geometric.data import Data

from nodebits.core.errors import (
    ConfigError,
    DataNotFoundError,
    FileFormatError,
    NodebitsError,
    UnsupportedTaskError,
)
from nodebits.data.base import Dataset, graph_dataset, node_dataset
from nodebits.data.cache import build_once, check_raw_files, link_raw, raw_key
from nodebits.data.catalogue import Entry
from nodebits.data.extras import require
from nodebits.data.features import add_degree_features, normalize_rows
from nodebits.data.npz import read_npz
from nodebits.data.released import FAMILIES, parse_released, released_dataset
from nodebits.data.splits import NUM_FOLDS, Split, per_class_masks, stratified_folds

# Rows of these count words, so dividing by the row sum is meaningful; the others' features are not
# counts. The value says whether it is done unless told otherwise: after 100 epochs at rate 0.01 a
# GCN on Amazon-Computers validates at 81 % with shares and at 89 % with the 0/1 rows.
_BAG_OF_WORDS = {"planetoid": True, "amazon": False, "coauthor": True, "citation-full": True}
_NUM_HETEROPHILOUS_SPLITS = 10
# PyG's class by family; those of one ``.npz`` file are read without it.
_CLASSES = {
    "planetoid": datasets.Planetoid,
    "heterophilous": datasets.HeterophilousGraphDataset,
    "tu": datasets.TUDataset,
}
_NPZ = {
    "amazon": datasets.Amazon,
    "coauthor": datasets.Coauthor,
    "citation-full": datasets.CitationFull,
}


def load_pyg(
    entry: Entry,
    root: Path | None,
    cache: Path,
    split: int | str | None,
    normalize_features: bool | None,
    use_node_attr: bool,
) -> Dataset:
    """Loads one PyG data set; see ``load_dataset`` for the arguments and errors."""
    require("scipy.sparse")
    planetoid_split = _planetoid_split(entry, split) if entry.family == "planetoid" else "public"
    if entry.family == "tu":
        fold = _number(entry, split, NUM_FOLDS)
        folder = _prepare(entry, root, cache)
        parsed = _parse(entry, folder, use_node_attr=use_node_attr)
        return _graph_level(entry, parsed, fold, use_node_attr)
    if entry.family in FAMILIES:
        folder = _prepare(entry, root, cache)
        return released_dataset(entry, _parse(entry, folder), folder, split)
    if entry.family in _NPZ:
        raw = _download(entry, cache) if root is None else root
        data = _read_raw(entry, raw / entry.folder / "raw")
    else:
        data = _parse(entry, _prepare(entry, root, cache), planetoid_split)[0]
    notes = []
    usual = _BAG_OF_WORDS.get(entry.family)
    normalize = usual is not None and (usual if normalize_features is None else normalize_features)
    if normalize:
        normalize_rows(data.x)
        notes.append("Features: rows divided by their sum.")
    masks, note = _masks(entry, data, split, planetoid_split)
    dataset = node_dataset(entry.name, data, masks, " ".join([note, *notes]), entry.citation)
    return replace(dataset, features_normalized=normalize)


def _prepare(entry: Entry, root: Path | None, cache: Path) -> Path:
    """Makes the cached folder that PyG opens as its root: raw links and ``processed/``."""
    if root is None:
        return _download(entry, cache)
    raw = root / entry.folder / "raw"
    check_raw_files(entry.name, raw, entry.raw_files)
    if entry.family == "tu":
        _check_targets(entry, raw)

    def build(work: Path) -> None:
        link_raw(raw, work / entry.folder / "raw")
        _parse(entry, work)

    return build_once(cache / "processed" / f"{entry.family}-{entry.folder}-{raw_key(raw)}", build)


def _check_targets(entry: Entry, raw: Path) -> None:
    """Refuses TU sets without classes before PyG spends minutes on them."""
    if (raw / f"{entry.pyg_name}_graph_attributes.txt").is_file():
        raise _not_classes(entry, "real-valued targets: that is graph regression")
    check_raw_files(entry.name, raw, [f"{entry.pyg_name}_graph_labels.txt"])


def _not_classes(entry: Entry, what: str) -> UnsupportedTaskError:
    return UnsupportedTaskError(
        f"data set {entry.name!r} has {what}, and only classification, one class each, is loaded "
        "by name: pass its arrays as PATH.npz (nodebits datasets, nodebits tasks)"
    )


def _download(entry: Entry, cache: Path) -> Path:
    """Lets PyG download into the cache, once; returns the folder that is its root."""
    final = cache / "downloaded" / f"{entry.family}-{entry.folder}"

    def build(work: Path) -> None:
        try:
            if entry.family in _NPZ:
                _RawFiles.of(_NPZ[entry.family])(os.fspath(work), entry.pyg_name)
            else:
                _parse(entry, work)
        except Exception as error:
            raw = work / entry.folder / "raw"
            # With all raw files in place the download worked and the failure is in the parser.
            if all((raw / file).is_file() for file in entry.raw_files):
                raise
            cause = error.__cause__ if isinstance(error, FileFormatError) else error
            raise DataNotFoundError(
                f"data set {entry.name!r} could not be downloaded ({type(cause).__name__}: "
                f"{cause}); without a network, put its raw files in FOLDER/{entry.folder}/raw and "
                "set NODEBITS_DATA=FOLDER or pass root"
            ) from error

    return build_once(final, build)


class _RawFiles:
    """A PyG class that downloads, and neither parses nor keeps a second copy on disk."""

    def process(self) -> None:
        pass

    def load(self, path: str) -> None:
        pass

    @classmethod
    def of(cls, dataset: type) -> type:
        return type(dataset.__name__, (cls, dataset), {})


def _read_raw(entry: Entry, raw: Path) -> Data:
    check_raw_files(entry.name, raw, entry.raw_files)
    return read_raw_npz(raw / entry.raw_files[0], entry.name)


def read_raw_npz(path: Path, name: str) -> Data:
    """Reads the ``.npz`` file of a data set.

    Args:
        path: The file.
        name: Of the data set, for messages.

    Raises:
        FileFormatError: If it is damaged or of another form.
    """
    with _readable(name):
        return read_npz(path)


def _parse(
    entry: Entry, folder: Path, planetoid_split: str = "public", use_node_attr: bool = False
) -> Any:
    """Opens the PyG data set, which processes (and, without raw files, downloads) when needed."""
    options: dict[str, Any] = {}
    if entry.family in FAMILIES:
        with _readable(entry.name):
            return parse_released(entry, folder)
    if entry.family == "planetoid":
        options["split"] = planetoid_split
    elif entry.family == "tu":
        options["use_node_attr"] = use_node_attr
    with _readable(entry.name):
        return _CLASSES[entry.family](os.fspath(folder), entry.pyg_name, **options)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Says which data set it was whose raw files could not be read."""
    try:
        yield
    except (NodebitsError, MemoryError):
        raise
    except Exception as error:
        raise FileFormatError(
            f"data set {name!r}: its raw files cannot be read ({type(error).__name__}: "
            f"{error}); they are damaged or of another form, fetch them again"
        ) from error


def _planetoid_split(entry: Entry, split: int | str | None) -> str:
    if split in (None, "public"):
        return "public"
    if split == "full":
        return "full"
    raise ConfigError(f"split of {entry.name} is 'public' or 'full', not {split!r}")


def _number(entry: Entry, split: int | str | None, count: int | None) -> int:
    """Reads ``split`` as a number below ``count``; None is 0."""
    number = 0 if split is None else split
    whole = isinstance(number, int) and not isinstance(number, bool)
    if not whole or int(number) < 0 or (count is not None and int(number) >= count):
        allowed = "0 or more (a seed)" if count is None else f"0 to {count - 1}"
        raise ConfigError(f"split of {entry.name} is a number, {allowed}, not {split!r}")
    return int(number)


def _masks(
    entry: Entry, data: Data, split: int | str | None, planetoid_split: str
) -> tuple[Split, str]:
    if entry.family == "planetoid":
        masks = (data.train_mask, data.val_mask, data.test_mask)
        return masks, f"Split: Planetoid's {planetoid_split!r}."
    if entry.family == "heterophilous":
        column = _number(entry, split, _NUM_HETEROPHILOUS_SPLITS)
        all_masks: tuple[Tensor, ...] = (data.train_mask, data.val_mask, data.test_mask)
        train, val, test = (mask[:, column].contiguous() for mask in all_masks)
        note = f"Split: number {column} of the {_NUM_HETEROPHILOUS_SPLITS} published (50/25/25 %)."
        return (train, val, test), note
    seed = _number(entry, split, None)
    note = (
        f"Split drawn with torch.Generator seed {seed}: 20 per class train, 30 per class "
        "validate, rest test (the set has no published split)."
    )
    return per_class_masks(data.y, seed=seed), note


def _graph_level(entry: Entry, parsed: Any, fold: int, use_node_attr: bool) -> Dataset:
    graphs: list[Data] = [parsed[index] for index in range(len(parsed))]
    if graphs[0].y is None or graphs[0].y.is_floating_point():
        raise _not_classes(entry, "no labels" if graphs[0].y is None else "real-valued targets")
    y = torch.cat([graph.y.view(-1) for graph in graphs])
    if y.numel() != len(graphs):
        raise _not_classes(entry, f"{y.numel()} labels for {len(graphs)} graphs")
    notes = [
        f"Split: fold {fold} of {NUM_FOLDS} (StratifiedKFold, shuffled, seed 12345); the "
        "validation fold is the test fold before it."
    ]
    attributes = int(parsed.num_node_attributes)
    if attributes:
        notes.append(
            f"Features: {attributes} node attributes {'used' if use_node_attr else 'left out'}."
        )
    elif use_node_attr:
        raise ConfigError(f"{entry.name} has no node attributes for use_node_attr")
    if graphs[0].x is None or graphs[0].x.size(1) == 0:
        notes.append(add_degree_features(graphs))
    fewest = int(torch.bincount(y.long())[y.unique()].min())
    if fewest < NUM_FOLDS:
        raise ConfigError(
            f"{entry.name} has a class of {fewest} graphs: {NUM_FOLDS} folds need one each"
        )
    split = stratified_folds(y)[fold]
    return graph_dataset(entry.name, graphs, split, " ".join(notes), entry.citation)
