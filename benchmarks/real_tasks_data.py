"""Molecules whose atoms and bonds are ids, as sets of :mod:`nodebits`.

Raw files are read where they are; what PyG makes of them goes to the cache folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import AQSOL, MoleculeNet, TUDataset

from nodebits.data import Dataset
from nodebits.data.base import graph_dataset
from nodebits.data.cache import build_once, cache_folder, check_raw_files, link_raw, raw_key

Loaded = tuple[list[Data], tuple[Tensor, Tensor, Tensor], str, str]


def load(name: str, root: Path, cache: Path | None) -> Dataset:
    """Loads a set of :data:`LOADERS`: ``x`` int64 ``[N, F]``, ``edge_attr`` int64 ``[E, G]``.

    Args:
        name: Of the set; ``NAME:N`` are the first N graphs of each part of its split.
        root: Folder of raw data.
        cache: Folder of processed data; None: as ``load_dataset``.

    Raises:
        DataNotFoundError: A raw file is missing.
        LabelError: A molecule has no number.
    """
    plain, _, first = name.partition(":")
    graphs, (train, val, test), notes, citation = LOADERS[plain](root, cache_folder(cache))
    most = int(first) if first else len(graphs)
    split = train[:most], val[:most], test[:most]
    made = [
        Data(x=_columns(g.x), edge_index=g.edge_index, edge_attr=_columns(g.edge_attr), y=g.y)
        for g in graphs
    ]
    return graph_dataset(name, made, split, notes, citation, task="graph-regression")


def _columns(ids: Tensor) -> Tensor:
    return (ids if ids.dim() == 2 else ids.view(-1, 1)).long()


def id_sizes(dataset: Dataset) -> tuple[list[int], list[int]]:
    """How many ids every column of atoms and of bonds has, of all splits alike."""
    tables = []
    for field in ("x", "edge_attr"):
        rows = torch.cat([graph[field] for graph in dataset.graphs])
        tables.append([int(n) + 1 for n in rows.amax(0)])
    return tables[0], tables[1]


def degree_histogram(dataset: Dataset) -> list[int]:
    """How many atoms of the training split have each in-degree, for PNA's scalers."""
    counts = torch.zeros(1, dtype=torch.int64)
    for number in dataset.train_idx.tolist():
        graph = dataset.graphs[number]
        degrees = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes)
        found = torch.bincount(degrees, minlength=counts.numel())
        counts = found + torch.nn.functional.pad(counts, (0, found.numel() - counts.numel()))
    return [int(n) for n in counts]


def _processed(root: Path, cache: Path, folder: str, files: Sequence[str]) -> Path:
    """A folder of the cache that holds links to the raw files of a set."""
    raw = root / folder / "raw"
    check_raw_files(folder, raw, files)
    return build_once(
        cache / "processed" / f"real-tasks-{folder}-{raw_key(raw)}",
        lambda work: link_raw(raw, work / folder / "raw"),
    )


def _aqsol(root: Path, cache: Path) -> Loaded:
    files = [f"{part}.pickle" for part in ("train", "val", "test", "atom_dict", "bond_dict")]
    folder = _processed(root, cache, "AQSOL", files)
    graphs: list[Data] = []
    numbers = []
    for part in ("train", "val", "test"):
        own = list(AQSOL(str(folder / "AQSOL"), split=part))
        numbers.append(torch.arange(len(graphs), len(graphs) + len(own)))
        graphs += own
    citation = "V. P. Dwivedi et al. Benchmarking Graph Neural Networks. JMLR 2023."
    return graphs, (numbers[0], numbers[1], numbers[2]), "Split: the published one.", citation


def _zinc(root: Path, cache: Path) -> Loaded:
    name = "ZINC12k_alt"
    tables = ("A", "graph_indicator", "graph_attributes", "node_labels", "edge_labels")
    splits = ("train", "val", "test")
    files = [*(f"{name}_{table}.txt" for table in tables), *(f"{s}.index" for s in splits)]
    folder = _processed(root, cache, name, files)
    graphs = list(TUDataset(str(folder), name))
    for graph in graphs:  # one-hot in PyG's reading
        graph.x, graph.edge_attr = graph.x.argmax(1), graph.edge_attr.argmax(1)
    raw = root / name / "raw"
    rows = [
        torch.tensor([int(n) for n in (raw / f"{s}.index").read_text().strip().split(",")])
        for s in splits
    ]
    notes = "Not the official ZINC-12k: other molecules of ZINC-250k. Split: three files beside it."
    return graphs, (rows[0], rows[1], rows[2]), notes, "J. J. Irwin et al. ZINC. JCIM 2012."


def _esol(root: Path, cache: Path) -> Loaded:
    folder = _processed(root, cache, "esol", ["delaney-processed.csv"])
    graphs = list(MoleculeNet(str(folder), "ESOL"))
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(0))
    tenth = len(graphs) // 10
    split = (order[2 * tenth :], order[tenth : 2 * tenth], order[:tenth])
    notes = "Split drawn with torch.Generator seed 0: a tenth to validate, a tenth to test."
    return graphs, split, notes, "Z. Wu et al. MoleculeNet. Chemical Science 2018."


LOADERS: dict[str, Callable[[Path, Path], Loaded]] = {
    "ESOL": _esol,
    "AQSOL": _aqsol,
    "ZINC12k_alt": _zinc,
}
