"""PyG's own loaders: quantized models are fitted on their batches, and predict on them.

Batches of the loaders' form that are cut in torch are in ``test_sampled.py``; these need the
samplers themselves, which are compiled packages.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.typing
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import (
    ClusterData,
    ClusterLoader,
    GraphSAINTEdgeSampler,
    GraphSAINTNodeSampler,
    GraphSAINTRandomWalkSampler,
    HGTLoader,
    NeighborLoader,
)
from torch_geometric.nn import GAT, GCN, GraphSAGE, HeteroConv, HGTConv, SAGEConv, to_hetero

import nodebits
from nodebits.train import FitConfig, HeteroProblem, SampledProblem, fit

N, C, CLASSES = 240, 12, 3
FIT = FitConfig(epochs=2, lr=0.02, progress=False)
SAMPLERS = torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE
pytestmark = [
    pytest.mark.skipif(
        not SAMPLERS, reason="PyG's samplers need pyg-lib or torch-sparse, neither is installed"
    ),
    pytest.mark.filterwarnings("ignore::nodebits.train.UntrainedParameterWarning"),
    pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without:UserWarning"),
]


def _has_metis() -> bool:
    """torch-sparse may be built without it; the operator is there in any case."""
    if torch_geometric.typing.WITH_METIS:
        return True
    edges = torch.tensor([[0, 1], [1, 0]])
    try:
        ClusterData(Data(edge_index=edges, num_nodes=2), 2, log=False)
    except (AttributeError, ImportError, RuntimeError):
        return False
    return True


def data() -> Data:
    part = torch.arange(N) % 3
    masks = {f"{n}_mask": part == i for i, n in enumerate(("train", "val", "test"))}
    y = torch.arange(N) // 3 % CLASSES
    x = nn.functional.one_hot(y, C).float() + 0.3 * torch.randn(N, C)
    return Data(x=x, edge_index=torch.randint(N, (2, 4 * N)).unique(dim=1), y=y, **masks)


def hetero() -> HeteroData:
    whole, graph = data(), HeteroData()
    graph["paper"].update({k: whole[k] for k in ("x", "y", "train_mask", "val_mask", "test_mask")})
    graph["author"].x = torch.randn(40, C)
    writes = torch.stack([torch.randint(40, (400,)), torch.randint(N, (400,))])
    graph["paper", "cites", "paper"].edge_index = whole.edge_index
    graph["author", "writes", "paper"].edge_index = writes
    graph["paper", "by", "author"].edge_index = writes.flip(0)
    return graph


def neighbors(whole: Data, counts: list[int]) -> NeighborLoader:
    return NeighborLoader(whole, counts, input_nodes=whole.train_mask, batch_size=16)


LOADERS: dict[str, Callable[[Data], Any]] = {
    "NeighborLoader": lambda whole: neighbors(whole, [4, 4]),
    "all neighbors": lambda whole: neighbors(whole, [-1, -1]),
    "ClusterLoader": lambda whole: ClusterLoader(ClusterData(whole, 6, log=False), batch_size=2),
    "GraphSAINTNode": lambda whole: GraphSAINTNodeSampler(whole, batch_size=60, num_steps=3),
    "GraphSAINTEdge": lambda whole: GraphSAINTEdgeSampler(whole, batch_size=60, num_steps=3),
    "GraphSAINTRandomWalk": lambda whole: GraphSAINTRandomWalkSampler(
        whole, batch_size=40, walk_length=2, num_steps=3, sample_coverage=2, log=False
    ),
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "sage": lambda: GraphSAGE(C, 16, 2, CLASSES),
    "gcn": lambda: GCN(C, 16, 2, CLASSES),
    "gat": lambda: GAT(C, 16, 2, CLASSES, heads=2),
}


def near(found: Tensor, expected: Tensor, share: float = 0.05) -> bool:
    return float((found - expected).norm()) < share * float(expected.norm())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loader", LOADERS)
def test_batches_in_fit_calibrate_and_predict(loader: str, model: str) -> None:
    if loader == "ClusterLoader" and not _has_metis():
        pytest.skip("ClusterData needs METIS, in pyg-lib or in torch-sparse")
    whole = data()
    batches = LOADERS[loader](whole)
    net = MODELS[model]()
    prepared = nodebits.prepare(net, nodebits.UniformConfig(bits=4))
    fit(prepared, SampledProblem(whole, batches), FIT)
    trained = nodebits.convert(prepared.eval())
    ptq = nodebits.prepare(net, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(ptq, batches)
    drawn = list(batches)  # others, of nodes that calibration may not have seen
    nodebits.calibrate(ptq, drawn)
    packed = nodebits.convert(ptq)
    for batch in drawn:
        inputs = batch.x, batch.edge_index
        with torch.no_grad():
            assert torch.equal(trained.predict(*inputs), prepared(*inputs))
            assert near(packed.predict(*inputs), net.eval()(*inputs))


@pytest.mark.parametrize("model", ["sage", "gat"])
def test_a_batch_of_all_neighbors_gives_its_seeds_what_the_whole_graph_gives(model: str) -> None:
    whole = data()
    ptq = nodebits.prepare(MODELS[model]().eval(), nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(ptq, whole.x, whole.edge_index)
    packed = nodebits.convert(ptq)
    expected, seen = packed.predict(whole.x, whole.edge_index), 0
    for batch in neighbors(whole, [-1, -1]):
        seeds = batch.n_id[: batch.batch_size]
        found = packed.predict(batch.x, batch.edge_index)[: batch.batch_size]
        assert torch.equal(found, expected[seeds])
        seen += len(seeds)
    assert seen == int(whole.train_mask.sum())


def test_one_layer_at_a_time() -> None:
    whole = data()
    ptq = nodebits.prepare(MODELS["sage"]().eval(), nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(ptq, whole.x, whole.edge_index)
    packed = nodebits.convert(ptq)
    made = packed.inference(NeighborLoader(whole, [-1], batch_size=50))
    assert torch.equal(made, packed.predict(whole.x, whole.edge_index))


class Typed(nn.Module):
    def __init__(self, kinds: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self.first = HeteroConv({k: SAGEConv((C, C), 8) for k in kinds})
        self.last = HeteroConv({k: SAGEConv((8, 8), CLASSES, aggr="max") for k in kinds})

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> Any:
        x = {k: v.relu() for k, v in self.first(x_dict, edge_index_dict).items()}
        return self.last(x, edge_index_dict)


class Attending(nn.Module):
    def __init__(self, metadata: Any) -> None:
        super().__init__()
        self.first = HGTConv(C, 16, metadata, heads=2)
        self.last = HGTConv(16, 8, metadata)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> Tensor:
        x = {k: v.relu() for k, v in self.first(x_dict, edge_index_dict).items()}
        result: Tensor = self.head(self.last(x, edge_index_dict)["paper"])
        return result


TYPED: dict[str, Callable[[HeteroData], nn.Module]] = {
    "HeteroConv": lambda whole: Typed(whole.edge_types),
    "HGT": lambda whole: Attending(whole.metadata()),
    "to_hetero": lambda whole: to_hetero(GraphSAGE((C, C), 8, 2, CLASSES), whole.metadata()),
}


@pytest.mark.parametrize("model", TYPED)
@pytest.mark.parametrize("loader", [HGTLoader, NeighborLoader])
def test_batches_of_several_types(loader: Any, model: str) -> None:
    whole = hetero()
    seeds = ("paper", whole["paper"].train_mask)
    counts = [30, 30] if loader is HGTLoader else [4, 4]
    batches = loader(whole, counts, input_nodes=seeds, batch_size=16)
    net = TYPED[model](whole)
    prepared = nodebits.prepare(net, nodebits.UniformConfig(bits=4))
    fit(prepared, HeteroProblem(whole, "paper", batches), FIT)
    trained = nodebits.convert(prepared.eval(), leave_unseen="float")
    ptq = nodebits.prepare(net, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(ptq, batches)
    packed = nodebits.convert(ptq, leave_unseen="float")

    def paper(made: Any) -> Tensor:
        result: Tensor = made["paper"] if isinstance(made, dict) else made
        return result

    for batch in batches:
        inputs = batch.x_dict, batch.edge_index_dict
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a batch is not like the one before
            expected = paper(prepared(*inputs))
            assert near(paper(trained.predict(*inputs)), expected, 1e-2)
            assert near(paper(packed.predict(*inputs)), paper(net.eval()(*inputs)))
