"""The embedded data sets: scikit-learn's digits as one graph, and as one graph per digit.

Both need no download, so they are the default of every command and the data of the tests.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from nodebits.data.base import Dataset, graph_dataset, node_dataset
from nodebits.data.extras import require
from nodebits.data.splits import per_class_masks

NEIGHBOURS = 8
CITATION = (
    "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning "
    "Repository, 1998; as shipped with scikit-learn."
)


def _images() -> tuple[Tensor, Tensor]:
    """The 1797 images, int64 ``[1797, 8, 8]`` of 0 to 16, and their labels, int64 ``[1797]``."""
    digits = require("sklearn.datasets").load_digits()
    return torch.from_numpy(digits.images).long(), torch.from_numpy(digits.target).long()


def nearest_neighbours(points: Tensor, k: int) -> Tensor:
    """The symmetric k-nearest-neighbour graph of integer points.

    Squared distances are exact integers and ties go to the lower index, so the graph is the same on
    every machine, which a float distance does not promise.

    Args:
        points: int64 ``[N, D]``.
        k: Neighbours per point, the point itself not counted.

    Returns:
        ``edge_index`` int64 ``[2, E]``, sorted, both directions, no self-loops.
    """
    p = points.numpy()
    n = p.shape[0]
    square = (p * p).sum(axis=1)
    distance = square[:, None] + square[None, :] - 2 * (p @ p.T)
    key = distance * n + np.arange(n)
    np.fill_diagonal(key, np.iinfo(np.int64).max)
    nearest = np.argpartition(key, k - 1, axis=1)[:, :k]
    adjacency = np.zeros((n, n), dtype=bool)
    adjacency[np.arange(n)[:, None], nearest] = True
    adjacency |= adjacency.T
    return torch.from_numpy(np.stack(np.nonzero(adjacency)))


def load_digits(seed: int = 0) -> Dataset:
    """The digits as one graph of 1797 nodes: 64 pixels each, joined to the 8 nearest images."""
    images, y = _images()
    pixels = images.view(-1, 64)
    data = Data(
        x=pixels.float() / 16, edge_index=nearest_neighbours(pixels, NEIGHBOURS), y=y.clone()
    )
    notes = (
        f"Symmetric {NEIGHBOURS}-nearest-neighbour graph of the images, pixels scaled to [0, 1]. "
        f"Split drawn with torch.Generator seed {seed}: 20 per class train, 30 per class "
        "validate, rest test."
    )
    return node_dataset("digits", data, per_class_masks(y, 20, 30, seed), notes, CITATION)


def pixel_graph(image: Tensor) -> Data:
    """One image as a graph of its non-zero pixels, each joined to its 8 neighbours.

    Args:
        image: int64 ``[8, 8]`` of 0 to 16.

    Returns:
        ``x`` float32 ``[N, 3]`` (intensity, row, column, each in [0, 1]) and ``edge_index``.
    """
    position = image.nonzero()
    row, column = position.T
    reach = (position[:, None] - position[None, :]).abs().amax(dim=2)
    x = torch.stack([image[row, column] / 16, row / 7, column / 7], dim=1)
    return Data(x=x.float(), edge_index=(reach == 1).nonzero().T.contiguous())


def load_digits_graphs(seed: int = 0) -> Dataset:
    """The digits as 1797 graphs of about 30 pixels, 3 features each, 10 classes."""
    images, y = _images()
    graphs = []
    for image, label in zip(images, y, strict=True):
        graph = pixel_graph(image)
        graph.y = label.view(1)
        graphs.append(graph)
    train, val, test = (m.nonzero().flatten() for m in per_class_masks(y, 100, 30, seed))
    notes = (
        "Nodes are the non-zero pixels (intensity, row, column, each in [0, 1]), edges join "
        f"8-neighbours. Split drawn with torch.Generator seed {seed}: 100 per class train, 30 per "
        "class validate, rest test."
    )
    return graph_dataset("digits-graphs", graphs, (train, val, test), notes, CITATION)
