"""Molecules of ids, superpixels and sets without edge features, as sets of :mod:`nodebits`.

Raw files are read where they are; what PyG makes of them goes to the cache folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import AQSOL, MoleculeNet, TUDataset

from nodebits.core.cache import cache_folder
from nodebits.data import Dataset, load_dataset
from nodebits.data.base import graph_dataset
from nodebits.data.cache import build_once, check_raw_files, link_raw, raw_key

Loaded = tuple[list[Data], tuple[Tensor, Tensor, Tensor], str, str]


def load(name: str, root: Path, cache: Path | None) -> Dataset:
    """Loads a set of :data:`LOADERS`, superpixels, or any set of graph classification by name.

    Molecules have ``x`` int64 ``[N, F]`` and ``edge_attr`` int64 ``[E, G]``. Superpixels have
    ``x`` float32 and the distance of two centres in ``edge_attr``, float32 ``[E, 1]``. Of other
    sets every edge has the id 0: the models see no edge features.

    Args:
        name: Of the set; ``NAME:N`` are the first N graphs of each part of its split. Where those
            would be of one class or source, as of AQSOL and of folds, N are drawn.
        root: Folder of raw data.
        cache: Folder of processed data; None: as ``load_dataset``.

    Raises:
        DataNotFoundError: A raw file is missing.
        LabelError: A molecule has no number.
    """
    plain, _, first = name.partition(":")
    if plain not in LOADERS:
        return with_edge_attr(_by_name(name, root, cache))
    graphs, split, notes, citation = LOADERS[plain](root, cache_folder(cache))
    made = [
        Data(x=_columns(g.x), edge_index=g.edge_index, edge_attr=_columns(g.edge_attr), y=g.y)
        for g in graphs
    ]
    whole = graph_dataset(name, made, split, notes, citation, task="graph-regression")
    most = int(first) if first else len(graphs)
    return replace(taken(whole, [part[:most] for part in split]), about=model_inputs(whole))


def _by_name(name: str, root: Path, cache: Path | None) -> Dataset:
    """A set of :func:`nodebits.load_dataset`."""
    plain, _, first = name.partition(":")
    if not first or plain.startswith(SUPERPIXELS):
        return load_dataset(name, root, cache=cache)
    whole = load_dataset(plain, root, cache=cache)
    generator = torch.Generator().manual_seed(0)
    parts = (whole.train_idx, whole.val_idx, whole.test_idx)
    orders = [torch.randperm(len(part), generator=generator) for part in parts]
    return taken(
        whole, [part[order[: int(first)]] for part, order in zip(parts, orders, strict=True)]
    )


def taken(dataset: Dataset, parts: Sequence[Tensor]) -> Dataset:
    """The set of these graphs alone: what is in no part is measured by every run for nothing.

    Args:
        dataset: The whole set.
        parts: Numbers of the graphs to train on, to validate and to test.
    """
    rows = torch.arange(sum(len(part) for part in parts)).split([len(part) for part in parts])
    graphs = [dataset.graphs[number] for number in torch.cat(list(parts)).tolist()]
    return replace(dataset, content=graphs, train_idx=rows[0], val_idx=rows[1], test_idx=rows[2])


def with_edge_attr(dataset: Dataset) -> Dataset:
    """The set with the distances of superpixels along edges, or one id for all edges."""
    superpixels = dataset.name.startswith(SUPERPIXELS)
    graphs = []
    for graph in dataset.graphs:
        source, target = graph.edge_index
        centres = graph.x[:, -2:]
        apart = (centres[source] - centres[target]).norm(dim=1, keepdim=True)
        same = torch.zeros(len(source), 1, dtype=torch.int64)
        attributes = apart if superpixels else same
        graphs.append(Data(x=graph.x, edge_index=graph.edge_index, edge_attr=attributes, y=graph.y))
    return replace(dataset, content=graphs)


def _columns(ids: Tensor) -> Tensor:
    return (ids if ids.dim() == 2 else ids.view(-1, 1)).long()


def model_inputs(dataset: Dataset) -> dict[str, Any]:
    """What a model must know of the data: ids per column or width, of nodes, edges, and outputs.

    Ids are counted over the whole of a set, whichever graphs were taken of it.
    """
    if dataset.about:
        return dict(dataset.about)
    found: dict[str, Any] = {}
    for kind, field in (("node", "x"), ("edge", "edge_attr")):
        rows = torch.cat([graph[field] for graph in dataset.graphs])
        if rows.is_floating_point():
            found |= {f"{kind}_ids": [], f"{kind}_width": rows.size(1)}
        else:
            found[f"{kind}_ids"] = [int(n) + 1 for n in rows.amax(0)]
    return found if dataset.num_classes == 1 else {**found, "outputs": dataset.num_classes}


def degree_histogram(dataset: Dataset) -> list[int]:
    """How many nodes of the training split have each in-degree, for PNA's scalers."""
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
    # A part is in the order of its sources, whose molecules differ: its first are no sample of it.
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "val", "test"):
        own = list(AQSOL(str(folder / "AQSOL"), split=part))
        numbers.append(len(graphs) + torch.randperm(len(own), generator=generator))
        graphs += own
    notes = "Split: the published one; the order of each part is drawn with seed 0."
    citation = "V. P. Dwivedi et al. Benchmarking Graph Neural Networks. JMLR 2023."
    return graphs, (numbers[0], numbers[1], numbers[2]), notes, citation


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
# Sets by how their names begin, whose last two columns of ``x`` are the centre of a superpixel.
SUPERPIXELS = ("MNIST", "CIFAR10")
