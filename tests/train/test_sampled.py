"""Training on the batches of a loader, and on graphs with several types of nodes.

PyG's samplers need pyg-lib or torch-sparse, so batches of their form are cut in torch here; where
one of the libraries is installed its own loaders run in ``test_loaders.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv, TransformerConv, to_hetero
from torch_geometric.utils import index_to_mask, k_hop_subgraph, subgraph

import nodebits
from nodebits.core.errors import ConfigError, NodeIndexError, UnknownNameError
from nodebits.train import FitConfig, HeteroProblem, SampledProblem, evaluate, fit

N, C = 90, 8
FIT = FitConfig(epochs=12, lr=0.02, progress=False)
# What the last layer sends to other types than the labelled one is not asked for.
pytestmark = pytest.mark.filterwarnings("ignore::nodebits.train.UntrainedParameterWarning")


def masks() -> dict[str, Tensor]:
    part = torch.arange(N) % 3
    return {f"{n}_mask": part == i for i, n in enumerate(("train", "val", "test"))}


def data() -> Data:
    y = torch.arange(N) // 3 % 3
    x = torch.nn.functional.one_hot(y, C).float() + 0.3 * torch.randn(N, C)
    edges = torch.randint(N, (2, 400))
    return Data(x=x, edge_index=edges[:, y[edges[0]] == y[edges[1]]], y=y, **masks())


class Neighbourhoods:
    """Batches like those of NeighborLoader: seeds first, then their neighbours."""

    def __init__(self, whole: Data, n_id: bool = True) -> None:
        self.whole, self.n_id = whole, n_id

    def __iter__(self) -> Iterator[Data]:
        seeds = self.whole.train_mask.nonzero().view(-1)
        for some in seeds[torch.randperm(len(seeds))].split(10):
            nodes, _, _, _ = k_hop_subgraph(some, 2, self.whole.edge_index, num_nodes=N)
            rest = nodes[~torch.isin(nodes, some)]
            order = torch.cat([some, rest])
            place = torch.full((N,), -1).index_copy(0, order, torch.arange(len(order)))
            edges = place[subgraph(nodes, self.whole.edge_index, num_nodes=N)[0]]
            batch = Data(
                x=self.whole.x[order],
                edge_index=edges,
                y=self.whole.y[order],
                train_mask=self.whole.train_mask[order],
                batch_size=len(some),
            )
            if self.n_id:
                batch.n_id = order
            yield batch


class Parts:
    """Batches like those of ClusterLoader and GraphSAINT: parts of the graph, with masks."""

    def __init__(self, whole: Data) -> None:
        self.whole = whole

    def __iter__(self) -> Iterator[Data]:
        for nodes in torch.randperm(N).split(30):
            yield self.whole.subgraph(index_to_mask(nodes, N))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = TransformerConv(C, 8), SAGEConv(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        result: Tensor = self.last(self.first(x, edge_index).relu(), edge_index)
        return result


@pytest.mark.parametrize("kind", [Neighbourhoods, Parts])
def test_a_model_is_fitted_calibrated_and_run_on_batches(kind: type) -> None:
    whole = data()
    loader = kind(whole)
    problem = SampledProblem(whole, loader)
    steps = list(problem.steps(1, torch.Generator()))
    if kind is Neighbourhoods:
        assert sum(int(step.labelled.sum()) for step in steps) == int(whole.train_mask.sum())
        assert all(torch.equal(step.labels, whole.y[step.rows]) for step in steps)
    model = Net()
    fit(model, problem, FIT)
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    fit(
        prepared, problem, FIT, teacher_logits=torch.randn(N, 3) if kind is Neighbourhoods else None
    )
    assert evaluate(prepared, problem).value > 0.8
    ptq = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(ptq, loader)
    packed = nodebits.convert(ptq)
    assert evaluate(packed, problem).value > 0.8
    for batch in loader:
        with torch.no_grad():
            expected = model.eval()(batch.x, batch.edge_index)
        found = packed.predict(batch.x, batch.edge_index)
        assert (found - expected).norm() < 0.05 * expected.norm()


def hetero() -> HeteroData:
    whole, graph = data(), HeteroData()
    graph["paper"].update({k: whole[k] for k in ("x", "y", *masks())})
    graph["author"].x = torch.randn(20, C)
    graph["paper", "cites", "paper"].edge_index = whole.edge_index
    writes = torch.stack([torch.randint(20, (150,)), torch.randint(N, (150,))])
    graph["author", "writes", "paper"].edge_index = writes
    graph["paper", "by", "author"].edge_index = writes.flip(0)
    return graph


class HeteroNet(nn.Module):
    def __init__(self, kinds: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self.first = HeteroConv({k: SAGEConv((C, C), 8) for k in kinds})
        self.last = HeteroConv({k: SAGEConv((8, 8), 3, aggr="max") for k in kinds})

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[str, Tensor]) -> object:
        x = {k: v.relu() for k, v in self.first(x_dict, edge_index_dict).items()}
        return self.last(x, edge_index_dict)


def hetero_batches(whole: HeteroData) -> list[HeteroData]:
    """Like those of HGTLoader: papers that are seeds first."""
    made = []
    for seeds in whole["paper"].train_mask.nonzero().view(-1).split(10):
        rest = torch.arange(N)[~torch.isin(torch.arange(N), seeds)][:40]
        batch = whole.subgraph({"paper": torch.cat([seeds, rest])})
        batch["paper"].batch_size = len(seeds)
        made.append(batch)
    return made


@pytest.mark.parametrize("batches", [False, True])
def test_several_types_of_nodes(batches: bool) -> None:
    whole = hetero()
    loader = hetero_batches(whole) if batches else None
    problem = HeteroProblem(whole, "paper", loader)
    model = HeteroNet(whole.edge_types)
    fit(model, problem, FIT)
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    fit(prepared, problem, FIT)
    assert evaluate(prepared, problem).value > 0.8
    ptq = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(ptq, loader or whole)
    packed = nodebits.convert(ptq, leave_unseen="float")
    found = packed.predict(whole.x_dict, whole.edge_index_dict)["paper"]
    with torch.no_grad():
        expected = model.eval()(whole.x_dict, whole.edge_index_dict)["paper"]
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_a_model_made_heterogeneous() -> None:
    whole = hetero()
    model = to_hetero(Net(), whole.metadata())
    problem = HeteroProblem(whole, "paper")
    fit(model, problem, FIT)
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    fit(prepared, problem, FIT)
    assert evaluate(nodebits.convert(prepared, leave_unseen="float"), problem).value > 0.8


def test_what_does_not_fit_is_named() -> None:
    whole = data()
    with pytest.raises(ConfigError, match="SampledProblem"):
        fit(Net(), torch.utils.data.DataLoader([1]), FIT)
    unmarked = hetero()
    del unmarked["paper"].train_mask
    with pytest.raises(ConfigError, match="HeteroProblem"):
        fit(Net(), unmarked, FIT)
    for loader in (3, iter([whole])):
        with pytest.raises(ConfigError, match="loader is a"):
            SampledProblem(whole, loader)
    with pytest.raises(ConfigError, match="gave a int, not a PyG Data"):
        fit(Net(), SampledProblem(whole, [3]), FIT)
    with pytest.raises(ConfigError, match="neither batch_size nor train_mask"):
        bare = Data(x=whole.x, edge_index=whole.edge_index, y=whole.y)
        fit(Net(), SampledProblem(whole, [bare]), FIT)
    with pytest.raises(ConfigError, match="n_id"):
        problem = SampledProblem(whole, Neighbourhoods(whole, n_id=False))
        fit(Net(), problem, FIT, teacher_logits=torch.randn(N, 3))
    with pytest.raises(UnknownNameError, match="papers"):
        HeteroProblem(hetero(), "papers")
    with pytest.raises(ConfigError, match="not a PyG HeteroData"):
        HeteroProblem(whole, "paper")
    wrong = hetero()
    wrong["author", "writes", "paper"].edge_index[0, 0] = 20
    with pytest.raises(NodeIndexError, match=r"writes.*20"):
        HeteroProblem(wrong, "paper")
