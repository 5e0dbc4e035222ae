"""PyG's ``NeighborLoader`` with our sampler: the batches are those that it would give."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GraphSAGE

import nodebits
from nodebits.core.errors import ConfigError, GraphError, NodeIndexError, UnknownNameError
from nodebits.train import FitConfig, NeighborSampler, SampledProblem, evaluate, fit

from .small import planted_graph

FIT = FitConfig(epochs=3, lr=0.02, progress=False)


def loader(data: Data, counts: list[int], nodes: torch.Tensor, size: int = 8) -> NeighborLoader:
    sampler = NeighborSampler(data, counts)
    return NeighborLoader(data, counts, nodes, batch_size=size, neighbor_sampler=sampler)


def test_batches_hold_edges_of_the_graph_and_seeds_first() -> None:
    data = planted_graph()
    data.edge_attr = torch.arange(data.edge_index.size(1)).float()
    nodes = torch.tensor([5, 3, 80, 11, 7])
    batches = list(loader(data, [3, 2], nodes, 2))
    assert [b.batch_size for b in batches] == [2, 2, 1]
    assert torch.cat([b.n_id[: b.batch_size] for b in batches]).equal(nodes)
    for batch in batches:
        assert batch.x.equal(data.x[batch.n_id])
        edges = batch.n_id[batch.edge_index]
        assert edges.equal(data.edge_index[:, batch.e_id])
        assert batch.edge_attr.equal(data.edge_attr[batch.e_id])
        assert int(torch.bincount(batch.edge_index[1]).max()) <= 3
        assert sum(batch.num_sampled_nodes) == batch.n_id.numel()
        assert sum(batch.num_sampled_edges) == batch.edge_index.size(1)


def test_all_neighbours_give_what_the_whole_graph_gives() -> None:
    data = planted_graph()
    prepared = nodebits.prepare(GraphSAGE(12, 8, 2, 2), nodebits.UniformConfig(bits=4))
    nodebits.calibrate(prepared, data.x, data.edge_index)
    packed = nodebits.convert(prepared)
    whole = packed.predict(data.x, data.edge_index)
    for batch in loader(data, [-1, -1], torch.arange(120)):
        found = packed.predict(batch.x, batch.edge_index)[: batch.batch_size]
        assert found.equal(whole[batch.n_id[: batch.batch_size]])


def test_splits_are_measured_on_batches() -> None:
    data = planted_graph()
    masks = {"val": data.val_mask, "test": data.test_mask}
    loaders = {name: loader(data, [-1, -1], mask) for name, mask in masks.items()}
    whole = SampledProblem(data, loader(data, [4, 4], data.train_mask))
    parts = SampledProblem(data, loader(data, [4, 4], data.train_mask), evaluation=loaders)
    prepared = nodebits.prepare(GraphSAGE(12, 8, 2, 2), nodebits.UniformConfig(bits=4))
    fit(prepared, parts, FIT)
    packed = nodebits.convert(prepared)
    for split in masks:
        assert evaluate(packed, parts, split) == evaluate(packed, whole, split)
    # Nodes of other splits are passed over, and one that is named twice counts once.
    both = [*loader(data, [-1, -1], torch.arange(120)), *loader(data, [-1, -1], data.val_mask)]
    parts = SampledProblem(data, both, evaluation={"val": both})
    assert evaluate(packed, parts, "val") == evaluate(packed, whole, "val")


def test_what_is_refused() -> None:
    data = planted_graph()
    nodes = data.train_mask.nonzero().view(-1)
    batches = loader(data, [4, 4], nodes)
    for name in ("a2q", "uniform"):
        prepared = nodebits.prepare(GraphSAGE(12, 8, 2, 2), nodebits.make_config(name, 4))
        if name == "uniform":
            fit(prepared, SampledProblem(data, batches), FIT)
            continue
        with pytest.raises(ConfigError, match=r"every node of one graph.*on the whole graph"):
            fit(prepared, SampledProblem(data, batches), FIT)
    with pytest.raises(ConfigError, match="name each node once"):
        next(iter(loader(data, [4], torch.tensor([1, 1]))))
    with pytest.raises(NodeIndexError):
        next(iter(loader(data, [4], torch.tensor([999]))))
    with pytest.raises(ConfigError, match="num_neighbors"):
        NeighborSampler(data, [])
    with pytest.raises(GraphError, match="without edge_index"):
        NeighborSampler(Data(x=data.x), [4])
    with pytest.raises(ConfigError, match="links"):
        NeighborSampler(data.edge_index, [4]).sample_from_edges(None)
    with pytest.raises(UnknownNameError, match="valid"):
        SampledProblem(data, batches, evaluation={"valid": batches})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="no node of the val split"):
        fit(GraphSAGE(12, 8, 2, 2), SampledProblem(data, batches, evaluation={"val": batches}), FIT)
    bare = [batch.update({"n_id": None}) for batch in batches]
    for batch in bare:
        del batch.n_id
    with pytest.raises(ConfigError, match="no n_id"):
        fit(GraphSAGE(12, 8, 2, 2), SampledProblem(data, batches, evaluation={"val": bare}), FIT)
    unlabelled = loader(data, [4, 4], data.test_mask)
    with pytest.raises(ConfigError, match="an epoch has no step"):
        fit(GraphSAGE(12, 8, 2, 2), SampledProblem(data, unlabelled), FIT)
