"""Sparse ``.npz`` files of the Amazon, Coauthor and CitationFull sets.

The result is that of ``torch_geometric.io.read_npz``, which holds several dense copies of the
features on the way; here they are made dense once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import remove_self_loops, to_undirected

from nodebits.data.extras import require


def read_npz(path: Path) -> Data:
    """Reads one graph, made undirected and without self loops.

    Args:
        path: File with the CSR parts ``attr_*`` and ``adj_*``, and ``labels``.

    Returns:
        ``x`` float32 ``[N, F]`` with every positive value set to 1, ``edge_index``, ``y``.
    """
    with np.load(path, allow_pickle=False) as file:
        words = _csr(file, "attr")
        links = _csr(file, "adj").tocoo()
        y = torch.from_numpy(file["labels"]).long()
    edge_index = torch.stack([torch.from_numpy(side).long() for side in (links.row, links.col)])
    edge_index, _ = remove_self_loops(edge_index)
    x = _dense_words(words)
    return Data(x=x, edge_index=to_undirected(edge_index, num_nodes=x.size(0)), y=y)


def _csr(file: Any, name: str) -> Any:
    parts = tuple(file[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return require("scipy.sparse").csr_matrix(parts, tuple(file[f"{name}_shape"]))


def _dense_words(words: Any) -> Tensor:
    """float32 ``[N, F]`` of a CSR matrix, positive values as 1."""
    words.sum_duplicates()
    rows, cols = words.shape
    values = torch.from_numpy(np.where(words.data > 0, 1, words.data)).float()
    first = torch.arange(rows) * cols
    counts = torch.from_numpy(np.diff(words.indptr)).long()
    places = first.repeat_interleave(counts) + torch.from_numpy(words.indices).long()
    x = torch.zeros(rows, cols)
    x.view(-1)[places] = values
    return x
