"""One process of a distributed training, as ``test_distributed`` starts them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, global_mean_pool

import nodebits
from nodebits.core.errors import NodebitsError
from nodebits.graph import graph_scope
from nodebits.methods import QuantConfig
from nodebits.train import FitConfig, NeighborSampler, SampledProblem, fit

from .small import planted_graph

NODES = 40


class Net(nn.Module):
    """Three kinds of layers; the second is given hidden rows with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(12, 8), GINConv(nn.Linear(8, 8))
        self.third = GATConv(8, 2)

    def forward(self, x: Tensor, edge_index: Any, batch: Tensor | None = None) -> Tensor:
        x = torch.dropout(self.first(x, edge_index).relu(), 0.5, self.training)
        x = self.third(self.second(x, edge_index).relu(), edge_index)
        return x if batch is None else global_mean_pool(x, batch)


def methods() -> dict[str, QuantConfig]:
    """What is trained, by name."""
    return {
        "uniform": nodebits.UniformConfig(bits=4),
        "nqat": nodebits.UniformConfig(bits=2, mode="nqat"),
        "degree-quant": nodebits.DegreeQuantConfig(bits=4, ranges="percentile"),
        "a2q": nodebits.A2QConfig(target_bits=3),
        "sgquant": nodebits.SGQuantConfig(bits=4, splits=(3, 6), degree_bits=(2, 4, 4)),
        "smp": nodebits.SMPConfig(bits=2, ranges="learned"),
        "mixq": nodebits.MixQConfig(bits=8),
        "ptq": nodebits.UniformConfig(bits=8, mode="ptq"),
    }


def run(rank: int, world: int, folder: Path) -> None:
    """Trains every method on data of this rank's own and saves what comes out."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),
    )
    try:
        for name, config in methods().items():
            torch.manual_seed(rank)  # dropout, masks and samples differ between ranks
            model = train_nodes(config, rank)
            nodebits.convert(model).save(folder / f"{name}-{rank}.safetensors")
        model = train_nodes(nodebits.A2QConfig(target_bits=3), rank, find_unused=True)
        nodebits.convert(model).save(folder / f"unused-{rank}.safetensors")
        torch.manual_seed(rank)
        model = train_graphs(nodebits.A2QConfig(target_bits=3, groups=20), rank)
        nodebits.convert(model).save(folder / f"graphs-{rank}.safetensors")
        selected(folder, rank)
        for name, config in methods().items():
            sampled(name, config, folder, rank)
    finally:
        dist.destroy_process_group()


def _net(config: QuantConfig) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nodebits.prepare(Net(), config)


def train_nodes(config: QuantConfig, rank: int, find_unused: bool = False) -> nn.Module:
    """Full-batch steps on one graph whose features differ in size between ranks."""
    graph = planted_graph(NODES)
    # Rank 0 alone sees positive features first: the sign is known from the other.
    x = graph.x.abs() if rank == 0 else 3.0 * graph.x
    model = _net(config)
    if config.method == "a2q" or getattr(config, "mode", "") == "ptq":
        nodebits.calibrate(model, x, graph.edge_index)
    wrapped = DistributedDataParallel(model, find_unused_parameters=find_unused)
    optimizer = torch.optim.Adam(config.parameter_groups(model, 0.01))
    for step in range(4):
        optimizer.zero_grad()
        loss = cross_entropy(wrapped(x, graph.edge_index), graph.y) + config.penalty(model)
        loss.backward()
        optimizer.step()
        config.advance(model, step / 4)
    return model.eval()


def train_graphs(config: QuantConfig, rank: int) -> nn.Module:
    """Batches of other sizes on every rank, one of them empty."""
    model = _net(config)
    for step in range(3):
        count = 0 if (rank, step) == (1, 1) else 10 + 5 * rank + step
        x, batch = torch.randn(count, 12) * (1 + rank), torch.arange(count) // 5
        ring = torch.arange(count)
        edges = torch.stack([ring, (ring + 1) % max(count, 1)])
        with graph_scope(batch=batch):
            nodebits.calibrate(model, x, edges)
    return model.eval()


def selected(folder: Path, rank: int) -> None:
    """``fit`` keeps the same epoch on all ranks, though their validation nodes differ."""
    graph = planted_graph(60, seed=rank)
    model = DistributedDataParallel(_net(nodebits.UniformConfig(bits=4)))
    result = fit(model, graph, FitConfig(epochs=6, seed=rank, progress=False))
    (folder / f"fit-{rank}").write_text(f"{result.best_epoch} {result.val.accuracy}")
    nodebits.convert(model.module).save(folder / f"fit-{rank}.safetensors")


class Normed(nn.Module):
    """Running statistics, which every rank has of its own batches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = SAGEConv(12, 8), nn.BatchNorm1d(8), GCNConv(8, 2)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        return self.second(self.norm(self.first(x, edge_index)).relu(), edge_index)


def sampled(name: str, config: QuantConfig, folder: Path, rank: int) -> None:
    """``fit`` on batches around nodes of this rank, of which one has fewer than the other."""
    graph = planted_graph(90, seed=1)
    nodes = graph.train_mask.nonzero().view(-1)
    own = nodes[: 5 if rank else None]
    sampler = NeighborSampler(graph, [4, 4])

    def loader(nodes: Tensor) -> NeighborLoader:
        return NeighborLoader(graph, [4, 4], nodes, batch_size=4, neighbor_sampler=sampler)

    measured = graph.val_mask.nonzero().view(-1)[rank::2]
    problem = SampledProblem(graph, loader(own), evaluation={"val": loader(measured)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = nodebits.prepare(Normed(), config)
    if getattr(config, "mode", "") == "ptq":
        nodebits.calibrate(model, loader(own[:4]))
    settings = FitConfig(epochs=6 if name == "mixq" else 2, seed=rank, progress=False)
    try:
        result = fit(DistributedDataParallel(model), problem, settings)
    except NodebitsError as error:
        (folder / f"sampled-{name}-{rank}.refused").write_text(f"{type(error).__name__}: {error}")
        return
    (folder / f"sampled-{name}-{rank}").write_text(f"{result.best_epoch} {result.val}")
    nodebits.convert(model).save(folder / f"sampled-{name}-{rank}.safetensors")
