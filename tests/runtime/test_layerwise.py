"""``inference(loader)``: one layer at a time on batches, as PyG's basic models do it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE
from torch_geometric.utils import k_hop_subgraph

from nodebits.core.errors import ConfigError
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.runtime import convert
from packed_models import CLASSES, FEATURES, NODES, UserModel, small_graph

X, EDGES = small_graph()


class WholeNeighborhoods(NeighborLoader):
    """Batches of all neighbours, without the sampler, which is another package."""

    def __init__(self, data: Data, batch_size: int, hops: int = 1, nodes: int = NODES) -> None:
        # The loader's own constructor asks for pyg-lib.
        self.__dict__.update(
            data=data,
            dataset=range(nodes),
            node_sampler=SimpleNamespace(num_neighbors=[-1] * hops),
            size=batch_size,
        )

    def __iter__(self) -> Iterator[Data]:
        for first in range(0, NODES, self.size):
            seeds = torch.arange(first, min(first + self.size, NODES))
            known, _, _, _ = k_hop_subgraph(seeds, 1, self.data.edge_index, num_nodes=NODES)
            others = known[~torch.isin(known, seeds)]
            nodes = torch.cat([seeds, others])
            into = torch.isin(self.data.edge_index[1], seeds)
            place = torch.full((NODES,), -1).index_copy(0, nodes, torch.arange(nodes.numel()))
            edges = place[self.data.edge_index[:, into]]
            yield Data(edge_index=edges, n_id=nodes, batch_size=seeds.numel(), num_nodes=NODES)

    def __len__(self) -> int:
        return -(-NODES // self.size)


DATA = Data(x=X, edge_index=EDGES)


@functools.cache
def _models(cls: Any, **options: Any) -> tuple[Any, Any, Any]:
    model = cls(FEATURES, 8, 2, CLASSES, **options).eval()
    prepared = prepare(model, UniformConfig(bits=8, mode="ptq"))
    calibrate(prepared, X, EDGES)
    return model, prepared, convert(prepared)


@pytest.mark.parametrize("cls", (GCN, GraphSAGE, GIN, GAT))
@pytest.mark.parametrize("options", ({}, {"norm": "batch_norm", "jk": "last"}))
@pytest.mark.parametrize("size", (NODES, 7))
def test_both_forms_follow_the_float_model(cls: Any, options: dict[str, str], size: int) -> None:
    model, prepared, packed = _models(cls, **options)
    expected = model.inference(WholeNeighborhoods(DATA, size))
    result = packed.inference(WholeNeighborhoods(DATA, size))
    assert torch.equal(result, prepared.inference(WholeNeighborhoods(DATA, size)))
    if cls is not GCN or size == NODES:  # its degrees are those of the batch, in PyG too
        assert (result - expected).norm() < 0.03 * expected.norm()
        torch.testing.assert_close(result, packed.predict(X, EDGES), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("loader", "message"),
    (
        ([DATA], "a list: pass a torch_geometric.loader.NeighborLoader"),
        (WholeNeighborhoods(DATA, 7, hops=2), r"2 hops.*num_neighbors=\[-1\]"),
        (WholeNeighborhoods(DATA, 7, nodes=5), "a loader of 5 nodes, but the graph has 40"),
    ),
)
def test_other_loaders_are_refused(loader: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _models(GraphSAGE)[2].inference(loader)


def test_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="jk='cat'"):
        _models(GraphSAGE, jk="cat")[2].inference(WholeNeighborhoods(DATA, 7))
    prepared = prepare(UserModel(), UniformConfig(bits=8, mode="ptq"))
    calibrate(prepared, X, EDGES)
    with pytest.raises(ConfigError, match=r"UserModel has no method inference.*predict"):
        convert(prepared).inference(WholeNeighborhoods(DATA, 7))
