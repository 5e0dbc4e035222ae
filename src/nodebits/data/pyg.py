"""Data sets that PyTorch Geometric parses, read through the cache."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric import datasets
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures

from nodebits.core.errors import ConfigError, DataNotFoundError
from nodebits.data.base import Dataset, graph_dataset, node_dataset
from nodebits.data.cache import build_once, check_raw_files, link_raw, raw_key
from nodebits.data.catalogue import Entry
from nodebits.data.extras import require
from nodebits.data.features import add_degree_features
from nodebits.data.splits import NUM_FOLDS, Split, per_class_masks, stratified_folds

# Rows of these count words, so dividing by the row sum is meaningful; the others' features are not
# counts. The value says whether it is done unless told otherwise: after 100 epochs at rate 0.01 a
# GCN on Amazon-Computers validates at 81 % with shares and at 89 % with the 0/1 rows.
_BAG_OF_WORDS = {"planetoid": True, "amazon": False, "coauthor": True, "citation-full": True}
_NUM_HETEROPHILOUS_SPLITS = 10


def load_pyg(
    entry: Entry,
    root: Path | None,
    cache: Path,
    split: int | str | None,
    normalize_features: bool | None,
) -> Dataset:
    """Loads one PyG data set; see ``load_dataset`` for the arguments and errors."""
    require("scipy.sparse")
    planetoid_split = _planetoid_split(entry, split) if entry.family == "planetoid" else "public"
    parsed = _parse(entry, _prepare(entry, root, cache), planetoid_split)
    if entry.family == "tu":
        return _graph_level(entry, parsed, _number(entry, split, NUM_FOLDS))
    data = parsed[0]
    notes = []
    usual = _BAG_OF_WORDS.get(entry.family)
    normalize = usual is not None and (usual if normalize_features is None else normalize_features)
    if normalize:
        data = NormalizeFeatures()(data)
        notes.append("Features: rows divided by their sum.")
    masks, note = _masks(entry, data, split, planetoid_split)
    dataset = node_dataset(entry.name, data, masks, " ".join([note, *notes]), entry.citation)
    return replace(dataset, features_normalized=normalize)


def _prepare(entry: Entry, root: Path | None, cache: Path) -> Path:
    """Makes the cached folder that PyG opens as its root: raw links and ``processed/``."""
    if root is None:
        final = cache / "downloaded" / f"{entry.family}-{entry.folder}"
        return build_once(final, lambda work: _download(entry, work))
    raw = root / entry.folder / "raw"
    check_raw_files(entry.name, raw, entry.raw_files)

    def build(work: Path) -> None:
        link_raw(raw, work / entry.folder / "raw")
        _parse(entry, work)

    return build_once(cache / "processed" / f"{entry.family}-{entry.folder}-{raw_key(raw)}", build)


def _download(entry: Entry, work: Path) -> None:
    try:
        _parse(entry, work)
    except Exception as error:
        raw = work / entry.folder / "raw"
        # With all raw files in place the download worked and the failure is in the parser.
        if all((raw / file).is_file() for file in entry.raw_files):
            raise
        raise DataNotFoundError(
            f"data set {entry.name!r} could not be downloaded ({type(error).__name__}: {error}); "
            f"without a network, put its raw files in FOLDER/{entry.folder}/raw and set "
            "NODEBITS_DATA=FOLDER or pass root"
        ) from error


def _parse(entry: Entry, folder: Path, planetoid_split: str = "public") -> Any:
    """Opens the PyG data set, which processes (and, without raw files, downloads) when needed."""
    root = os.fspath(folder)
    if entry.family == "planetoid":
        return datasets.Planetoid(root, entry.pyg_name, split=planetoid_split)
    if entry.family == "amazon":
        return datasets.Amazon(root, entry.pyg_name)
    if entry.family == "coauthor":
        return datasets.Coauthor(root, entry.pyg_name)
    if entry.family == "citation-full":
        return datasets.CitationFull(root, entry.pyg_name)
    if entry.family == "heterophilous":
        return datasets.HeterophilousGraphDataset(root, entry.pyg_name)
    return datasets.TUDataset(root, entry.pyg_name)


def _planetoid_split(entry: Entry, split: int | str | None) -> str:
    if split in (None, "public"):
        return "public"
    if split == "full":
        return "full"
    raise ConfigError(f"split of {entry.name} is 'public' or 'full', not {split!r}")


def _number(entry: Entry, split: int | str | None, count: int | None) -> int:
    """Reads ``split`` as a number below ``count``; None is 0."""
    number = 0 if split is None else split
    if not isinstance(number, int) or number < 0 or (count is not None and number >= count):
        allowed = "0 or more (a seed)" if count is None else f"0 to {count - 1}"
        raise ConfigError(f"split of {entry.name} is a number, {allowed}, not {split!r}")
    return number


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


def _graph_level(entry: Entry, parsed: Any, fold: int) -> Dataset:
    graphs: list[Data] = [parsed[index] for index in range(len(parsed))]
    notes = [
        f"Split: fold {fold} of {NUM_FOLDS} (StratifiedKFold, shuffled, seed 12345); the "
        "validation fold is the test fold before it."
    ]
    if graphs[0].x is None or graphs[0].x.size(1) == 0:
        notes.append(add_degree_features(graphs))
    y = torch.cat([graph.y.view(-1) for graph in graphs])
    if y.is_floating_point():
        raise ConfigError(f"{entry.name} has real-valued targets; only classification is supported")
    split = stratified_folds(y)[fold]
    return graph_dataset(entry.name, graphs, split, " ".join(notes), entry.citation)
