"""Pairs of nodes to predict about: edges with targets, and links that are hidden and found again.

Either is three ``Data``, for training, validation and test, as PyG's ``RandomLinkSplit`` gives
them: ``edge_index`` of the messages, ``edge_label_index`` ``[2, P]`` of the pairs, ``edge_label``
of their targets.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import RandomLinkSplit
from torch_geometric.utils import is_undirected, negative_sampling

from nodebits.core.errors import ConfigError, LabelError, ShapeError
from nodebits.tasks import Task

Parts = tuple[Data, Data, Data]
SPLITS = ("train", "val", "test")
# Pairs without an edge that a link is ranked among, where the data have none.
RANKED_AMONG = 20


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs its body with random numbers of a seed, of all that PyG's samplers draw from."""
    state, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numbers)


def edge_parts(data: Data) -> Parts:
    """The edges of a graph, or its ``edge_label_index``, by its masks; all messages are seen.

    Args:
        data: ``edge_label`` (else ``y``) has a row per pair, and so have ``train_mask``,
            ``val_mask`` and ``test_mask``, bool.

    Raises:
        LabelError: There are no targets.
        ShapeError: Targets or masks have another length than the pairs.
    """
    pairs = data.edge_label_index if "edge_label_index" in data else data.edge_index
    label = data.edge_label if "edge_label" in data else data.y
    if label is None:
        raise LabelError("data: edge_label is missing: a row per edge, in the order of edge_index")
    if pairs is None:
        raise ShapeError("data has neither edge_label_index nor edge_index: which are the pairs?")
    count = pairs.size(1)
    if label.size(0) != count:
        raise ShapeError(f"data: edge_label has {label.size(0)} rows for {count} pairs of nodes")
    parts = []
    for split in SPLITS:
        mask = data[f"{split}_mask"] if f"{split}_mask" in data else None
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (count,):
            found = "missing" if mask is None else f"{getattr(mask, 'dtype', type(mask))}"
            if isinstance(mask, Tensor):
                found += f" {list(mask.shape)}"
            raise ShapeError(
                f"{split}_mask is {found}: it must be a bool tensor [{count}], one value per edge"
            )
        parts.append(_part(data, data.edge_index, pairs[:, mask], label[mask]))
    return parts[0], parts[1], parts[2]


def link_parts(
    data: Data, task: Task, seed: int = 0, masks: tuple[Tensor, Tensor, Tensor] | None = None
) -> Parts:
    """Hides edges of a graph: a tenth to validate, a fifth to test, by ``RandomLinkSplit``.

    Validation and test get as many pairs without an edge; those of a ranking are drawn later. An
    undirected graph loses both directions.

    Args:
        data: The graph; ``edge_label`` of its edges, where links have types, labels or numbers.
        task: Of the links.
        seed: Of the draw.
        masks: Which edges are which, bool ``[E]``; None draws them. Test messages run over the
            edges of training and validation. Pairs without an edge are then drawn later.

    Raises:
        ShapeError: ``edge_label`` has another length than the edges.
        ConfigError: There are too few edges to split, or no pairs without one.
    """
    edges, nodes = data.edge_index, int(data.num_nodes or 0)
    if edges is None or edges.size(1) < 10:
        found = 0 if edges is None else edges.size(1)
        raise ConfigError(f"data has {found} edges: too few to hide some for validation and test")
    label = data.edge_label if "edge_label" in data else None
    if label is not None and label.size(0) != edges.size(1):
        raise ShapeError(f"data: edge_label has {label.size(0)} rows for {edges.size(1)} edges")
    plain = _part(data, edges, None, None)
    if masks is not None:
        return _masked(plain, edges, label, task, masks)
    ranked = task.queries
    split = RandomLinkSplit(
        num_val=0.1,
        num_test=0.2,
        # Links whose types differ by direction are no undirected ones.
        is_undirected=bool(is_undirected(edges, label, nodes)),
        add_negative_train_samples=False,
        neg_sampling_ratio=0.0 if ranked else 1.0,
    )
    with seeded(seed):
        parts: Parts = split(plain)
        if ranked:
            for part in parts:
                del part.edge_label  # what a link is ranked among is drawn with its source
    for part in parts:
        if label is not None and not ranked:
            part.edge_label = _labels(part, edges, label, task, nodes)
    return parts


def wrong_targets(links: Tensor, edges: Tensor, nodes: int, count: int) -> tuple[Tensor, Tensor]:
    """Pairs without an edge that begin where a link does.

    Args:
        links: ``[2, P]``.
        edges: All edges.
        nodes: Number of nodes.
        count: Per link; a node that is joined to nearly all may have fewer.

    Returns:
        Pairs ``[2, W]``, and the number of the link that each is of, ``[W]``.
    """
    taken = (edges[0] * nodes + edges[1]).unique()
    query = torch.arange(links.size(1), device="cpu").repeat_interleave(count)
    source = links[0][query]
    target = torch.randint(0, nodes, source.shape, device="cpu")
    for _ in range(10):
        bad = _among(source * nodes + target, taken) | (source == target)
        if not bool(bad.any()):
            break
        target[bad] = torch.randint(0, nodes, (int(bad.sum()),), device="cpu")
    good = ~(_among(source * nodes + target, taken) | (source == target))
    return torch.stack([source[good], target[good]]), query[good]


def absent_pairs(edges: Tensor, nodes: int, count: int) -> Tensor:
    """Pairs of nodes without an edge, ``[2, ..]``, at most ``count``; none twice."""
    loops = torch.arange(nodes, device="cpu").repeat(2, 1)
    found: Tensor = negative_sampling(torch.cat([edges, loops], dim=1), nodes, count)
    return found


def _among(values: Tensor, ordered: Tensor) -> Tensor:
    place = torch.searchsorted(ordered, values).clamp_max(ordered.numel() - 1)
    return ordered[place] == values


def _labels(part: Data, edges: Tensor, label: Tensor, task: Task, nodes: int) -> Tensor:
    """Targets of a part's pairs: those of the edges, zeros of pairs that are none."""
    key, order = (edges[0] * nodes + edges[1]).sort()
    asked = part.edge_label_index[0] * nodes + part.edge_label_index[1]
    there = _among(asked, key)
    own = label[order[torch.searchsorted(key, asked).clamp_max(key.numel() - 1)]]
    own = task.of_links(own).clone()
    own[~there] = 0
    return own


def _masked(
    plain: Data,
    edges: Tensor,
    label: Tensor | None,
    task: Task,
    masks: tuple[Tensor, Tensor, Tensor],
) -> Parts:
    train, val, test = masks
    parts = []
    for mask, seen in ((train, train), (val, train), (test, train | val)):
        part = _part(plain, edges[:, seen], None, None)
        for name in ("edge_weight", "edge_attr"):
            if name in plain and plain[name] is not None:
                part[name] = plain[name][seen]
        part.edge_label_index = edges[:, mask]
        if label is not None and not task.queries:
            part.edge_label = task.of_links(label[mask])
        parts.append(part)
    return parts[0], parts[1], parts[2]


def _part(data: Data, edges: Any, pairs: Tensor | None, label: Tensor | None) -> Data:
    part = copy.copy(data)
    for name in ("y", "edge_label", "edge_label_index", *(f"{split}_mask" for split in SPLITS)):
        if name in part:
            del part[name]
    part.edge_index = edges
    if pairs is not None:
        part.edge_label_index, part.edge_label = pairs, label
    return part
