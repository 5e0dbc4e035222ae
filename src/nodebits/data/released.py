"""Graph-level sets of benchmarks, as PyG reads what was released: superpixels and molecules.

Atoms are known by numbers, which models of features read one-hot. Kinds of bonds are left out:
GCN, GIN and GAT do not read them, in the benchmark neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor
from torch_geometric import datasets
from torch_geometric.data import Data

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.data.base import Dataset, graph_dataset
from nodebits.data.catalogue import Entry
from nodebits.data.extras import require
from nodebits.data.splits import NUM_FOLDS, Split, stratified_folds

PARTS = ("train", "val", "test")
FAMILIES = ("superpixels", "aqsol", "zinc", "moleculenet", "tu-numbers")
# Kinds of atoms that the benchmark's dictionaries have.
_ATOMS = {"aqsol": 65, "zinc": 28}


def parse_released(entry: Entry, folder: Path) -> list[Any]:
    """Opens PyG's data sets of an entry, which process the raw files when needed.

    Args:
        entry: Of one of ``FAMILIES``.
        folder: With the entry's own folder in it.

    Returns:
        One per part of the split, or a single one without parts.
    """
    place, own = str(folder), str(folder / entry.folder)
    if entry.family == "superpixels":
        return [datasets.GNNBenchmarkDataset(place, entry.pyg_name, split=p) for p in PARTS]
    if entry.family == "aqsol":
        return [datasets.AQSOL(own, split=part) for part in PARTS]
    if entry.family == "zinc":
        return [datasets.ZINC(own, subset=True, split=part) for part in PARTS]
    if entry.family == "moleculenet":
        require("rdkit.Chem", "molecules", "molecules in the form of SMILES need")
        return [datasets.MoleculeNet(place, entry.pyg_name)]
    return [datasets.TUDataset(place, entry.pyg_name)]


def released_dataset(entry: Entry, parsed: list[Any], folder: Path, split: Any) -> Dataset:
    """The record of what :func:`parse_released` has opened.

    Args:
        entry: Its ``first`` takes the first graphs of each part.
        parsed: PyG's data sets.
        folder: With the entry's own folder in it.
        split: Of a set without parts the fold; else None.

    Raises:
        ConfigError: ``split`` is given where there is one split, or is no fold.
        FileFormatError: The numbers of a part are none of graphs.
    """
    graphs: list[Data] = [part[n] for part in parsed for n in range(len(part))]
    if entry.family == "moleculenet":
        fold = 0 if split is None else split
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < NUM_FOLDS:
            raise ConfigError(f"split of {entry.name} is a fold, 0 to {NUM_FOLDS - 1}: {split!r}")
        chosen = stratified_folds(torch.arange(len(graphs), device="cpu"), classes=False)[fold]
        note = f"Split: fold {fold} of {NUM_FOLDS} (KFold, shuffled, seed 12345)."
    else:
        if split is not None:
            raise ConfigError(f"{entry.name} has one split of its own: leave out split={split!r}")
        chosen = _parts(entry, parsed, folder, len(graphs))
        note = "Split: as released."
    if entry.first is not None:
        train, val, test = (part[: entry.first] for part in chosen)
        chosen = (train, val, test)
        note += f" The first {entry.first} graphs of each part alone."
        kept = torch.cat(chosen).tolist()
        graphs, chosen = [graphs[n] for n in kept], _renumbered(chosen)
    note += " " + _set_features(entry, graphs)
    task = "graph" if entry.family == "superpixels" else "graph-regression"
    return graph_dataset(entry.name, graphs, chosen, note, entry.citation, task)


def _parts(entry: Entry, parsed: list[Any], folder: Path, count: int) -> Split:
    if entry.family != "tu-numbers":
        train, val, test = torch.arange(count, device="cpu").split([len(p) for p in parsed])
        return train, val, test
    found = []
    for part in PARTS:
        path = folder / entry.folder / "raw" / f"{part}.index"
        try:
            numbers = torch.from_numpy(np.array(path.read_text().split(","), np.int64))
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{path} holds no numbers with commas: {error}") from error
        if not len(numbers) or int(numbers.min()) < 0 or int(numbers.max()) >= count:
            raise FileFormatError(f"{path} does not name graphs 0 to {count - 1}: fetch it again")
        found.append(numbers)
    train, val, test = found
    return train, val, test


def _renumbered(parts: Split) -> Split:
    train, val, test = (len(part) for part in parts)
    order = torch.arange(train + val + test, device="cpu")
    return order[:train], order[train : train + val], order[train + val :]


def _set_features(entry: Entry, graphs: list[Data]) -> str:
    """Replaces the features of graphs by what models read, float32; returns what was done."""
    if entry.family == "superpixels":
        for graph in graphs:
            graph.x = torch.cat([graph.x, graph.pos], dim=1).float()
            graph.pos = graph.edge_attr = None
            graph.y = graph.y.view(1).long()
        return "The benchmark's own graphs. Features: mean intensities and centre."
    if entry.family == "moleculenet":
        widths = [len(values) for values in _atom_map().values()]
        for graph in graphs:
            columns = zip(graph.x.T, widths, strict=True)
            _replace(graph, torch.cat([_one_hot(entry, c, w) for c, w in columns], dim=1))
        return f"Features: {len(widths)} properties of an atom, one-hot."
    for graph in graphs:
        width = _ATOMS.get(entry.family)
        _replace(graph, graph.x if width is None else _one_hot(entry, graph.x.view(-1), width))
    return "Features: one-hot atoms."


def _replace(graph: Data, x: Tensor) -> None:
    fields: Iterable[str] = [name for name in graph.keys() if name not in ("edge_index", "y")]
    for name in fields:
        del graph[name]
    graph.x, graph.y = x.float(), graph.y.view(1).float()


def _one_hot(entry: Entry, column: Tensor, width: int) -> Tensor:
    if int(column.min()) < 0 or int(column.max()) >= width:
        raise FileFormatError(
            f"data set {entry.name!r}: an atom is {int(column.max())}, known are 0 to {width - 1}"
        )
    return functional.one_hot(column.long(), width)


def _atom_map() -> dict[str, list[Any]]:
    from torch_geometric.utils.smiles import x_map

    return dict(x_map)
