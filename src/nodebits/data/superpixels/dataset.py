"""The record of superpixel graphs that are made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from nodebits.data.base import Dataset, graph_dataset
from nodebits.data.catalogue import Entry
from nodebits.data.extras import require
from nodebits.data.superpixels.images import KINDS
from nodebits.data.superpixels.parts import make_parts, needed, parts_folder, read_part
from nodebits.data.superpixels.segment import NEIGHBOURS, NO_NEIGHBOUR


def load_superpixels(entry: Entry, root: Path, cache: Path) -> Dataset:
    """Makes the graphs of a set of images, or reads those that the cache has.

    Args:
        entry: Of the family ``slic``; its ``first`` takes the first graphs of each part.
        root: Folder of raw data.
        cache: Folder of processed data.

    Raises:
        DataNotFoundError: The images are not there.
        FileFormatError: A file of images, or of the cache, is damaged.
        MissingExtraError: scikit-image or Pillow is not installed.
        OutputError: The cache cannot be written.
    """
    kind = next(kind for name, kind in KINDS.items() if entry.name.partition(":")[0] == name)
    version = require("skimage", "images", "superpixels need").__version__
    folder = parts_folder(kind, root, cache)
    images = kind.read(root)
    parts = needed(images, entry.first)
    make_parts(kind, root, images, [part for own in parts.values() for part in own], folder)
    graphs: list[Data] = []
    split = []
    for own in parts.values():
        start = len(graphs)
        for part in own:
            arrays = read_part(part, folder)
            graphs += graphs_of(
                arrays["x"], arrays["neighbours"], arrays["sizes"], arrays["labels"]
            )
        if entry.first is not None:
            del graphs[start + entry.first :]
        split.append(torch.arange(start, len(graphs), device="cpu"))
    train, val, test = split
    whole = "" if entry.first is None else f" The first {entry.first} of each part alone."
    notes = (
        f"Superpixels made here of images by SLIC (scikit-image {version}, at most {kind.most}), "
        "not the benchmark's own files. Features: mean intensities and centre, in half precision. "
        f"Edges: to the {NEIGHBOURS} nearest by the benchmark's kernel of positions. {kind.about}"
        f"{whole}"
    )
    return graph_dataset(entry.name, graphs, (train, val, test), notes, entry.citation)


def graphs_of(
    x: NDArray[np.generic],
    neighbours: NDArray[np.generic],
    sizes: NDArray[np.generic],
    labels: NDArray[np.generic],
) -> Iterator[Data]:
    """Graphs of the arrays of a part.

    Args:
        x: float16 ``[N, F]``, nodes of all graphs.
        neighbours: uint8 ``[N, 8]``, numbers within the graph.
        sizes: Nodes of every graph, int64 ``[G]``.
        labels: uint8 ``[G]``.
    """
    rows = torch.from_numpy(x).float()
    near = torch.from_numpy(neighbours).long()
    classes = torch.from_numpy(labels).long()
    counts = sizes.tolist()
    for own, target, label in zip(rows.split(counts), near.split(counts), classes, strict=True):
        source = torch.arange(len(own), device="cpu").repeat_interleave(NEIGHBOURS)
        edges = torch.stack([source, target.reshape(-1)])
        if len(own) <= NEIGHBOURS:
            edges = edges[:, edges[1] != NO_NEIGHBOUR]
        yield Data(x=own.clone(), edge_index=edges, y=label.view(1))
