"""A float layer of every registered type, the inputs it is tried on, and what becomes of it.

A new layer joins by one line of ``SAMPLES``.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from nodebits_smoothness.elastic_conv import ElasticConv
from nodebits_smoothness.smp_conv import SMPConv
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch_geometric.nn import (
    APPNP,
    AGNNConv,
    ARMAConv,
    CGConv,
    ChebConv,
    ClusterGCNConv,
    EdgeConv,
    FastRGCNConv,
    FiLMConv,
    GATConv,
    GATv2Conv,
    GCN2Conv,
    GCNConv,
    GENConv,
    GINConv,
    GINEConv,
    GMMConv,
    GraphConv,
    HGTConv,
    LEConv,
    LGConv,
    Linear,
    MixHopConv,
    NNConv,
    PNAConv,
    ResGatedGraphConv,
    RGCNConv,
    SAGEConv,
    SGConv,
    SSGConv,
    SuperGATConv,
    TAGConv,
    TransformerConv,
)

import nodebits
from nodebits.nn.dagnn import DAGNNConv
from nodebits.nn.layer import QuantLayer

WIDTH, NODES, BITS = 8, 14, 4
DEGREES = torch.tensor([2, 8, 3, 1])


class Sample(NamedTuple):
    """How a layer of a type is made and called.

    Attributes:
        make: Returns a float layer.
        reads: What it is called with: ``indices``, ``rows``, ``graph`` (rows and edges),
            ``features`` (these and rows of edges), ``relations`` (these and a number for each
            edge), or ``start`` (rows, the rows of the first layer, edges).
        directed: Whether edges may go one way only.
    """

    make: Callable[[], nn.Module]
    reads: str = "graph"
    directed: bool = True


SAMPLES: dict[type[nn.Module], Sample] = {
    nn.Linear: Sample(lambda: nn.Linear(WIDTH, WIDTH), "rows"),
    nn.Embedding: Sample(lambda: nn.Embedding(NODES, WIDTH), "indices"),
    Linear: Sample(lambda: Linear(WIDTH, WIDTH, weight_initializer="glorot"), "rows"),
    NonDynamicallyQuantizableLinear: Sample(
        lambda: NonDynamicallyQuantizableLinear(WIDTH, WIDTH), "rows"
    ),
    GCNConv: Sample(lambda: GCNConv(WIDTH, WIDTH)),
    GINConv: Sample(lambda: GINConv(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()))),
    GATConv: Sample(lambda: GATConv(WIDTH, 4, heads=2)),
    SAGEConv: Sample(lambda: SAGEConv(WIDTH, WIDTH)),
    GraphConv: Sample(lambda: GraphConv(WIDTH, WIDTH)),
    GCN2Conv: Sample(lambda: GCN2Conv(WIDTH, 0.1, 0.5, 1), "start"),
    AGNNConv: Sample(AGNNConv),
    APPNP: Sample(lambda: APPNP(2, 0.1)),
    SMPConv: Sample(lambda: SMPConv(2, 0.1, WIDTH)),
    DAGNNConv: Sample(lambda: DAGNNConv(WIDTH, 2)),
    EdgeConv: Sample(lambda: EdgeConv(nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU()))),
    PNAConv: Sample(
        lambda: PNAConv(WIDTH, WIDTH, ["mean", "max", "std"], ["identity", "attenuation"], DEGREES)
    ),
    GATv2Conv: Sample(lambda: GATv2Conv(WIDTH, 4, heads=2)),
    TransformerConv: Sample(lambda: TransformerConv(WIDTH, 4, heads=2)),
    ResGatedGraphConv: Sample(lambda: ResGatedGraphConv(WIDTH, WIDTH)),
    GENConv: Sample(lambda: GENConv(WIDTH, WIDTH, edge_dim=3, norm=None), "features"),
    SuperGATConv: Sample(lambda: SuperGATConv(WIDTH, 4, heads=2)),
    GINEConv: Sample(
        lambda: GINEConv(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()), edge_dim=3), "features"
    ),
    CGConv: Sample(lambda: CGConv(WIDTH, 3), "features"),
    NNConv: Sample(lambda: NNConv(WIDTH, WIDTH, nn.Linear(3, WIDTH * WIDTH)), "features"),
    GMMConv: Sample(lambda: GMMConv(WIDTH, WIDTH, 3, 2), "features"),
    RGCNConv: Sample(lambda: RGCNConv(WIDTH, WIDTH, 2), "relations"),
    FastRGCNConv: Sample(lambda: FastRGCNConv(WIDTH, WIDTH, 2, num_bases=3), "relations"),
    FiLMConv: Sample(lambda: FiLMConv(WIDTH, WIDTH, 2), "relations"),
    SGConv: Sample(lambda: SGConv(WIDTH, WIDTH, 2)),
    SSGConv: Sample(lambda: SSGConv(WIDTH, WIDTH, 0.1, 2)),
    TAGConv: Sample(lambda: TAGConv(WIDTH, WIDTH, 2)),
    ClusterGCNConv: Sample(lambda: ClusterGCNConv(WIDTH, WIDTH)),
    ChebConv: Sample(lambda: ChebConv(WIDTH, WIDTH, 3)),
    ARMAConv: Sample(lambda: ARMAConv(WIDTH, WIDTH, 2, 2)),
    MixHopConv: Sample(lambda: MixHopConv(WIDTH, 4, [0, 2])),
    LEConv: Sample(lambda: LEConv(WIDTH, WIDTH)),
    LGConv: Sample(LGConv),
    ElasticConv: Sample(lambda: ElasticConv(2, channels=WIDTH), directed=False),
}

# Takes three matrices and returns a pair, takes dictionaries: files of their own in tests/nn.
ELSEWHERE = {nn.MultiheadAttention, HGTConv}


def edges(directed: bool = True) -> Tensor:
    """A ring, a hub, an edge twice and a loop; the last two nodes have none."""
    ring = torch.arange(NODES - 2)
    hub = torch.stack([ring[1:], torch.zeros_like(ring[1:])])
    found = torch.cat([torch.stack([ring, ring.roll(-1)]), hub, torch.tensor([[1, 3], [2, 3]])], 1)
    return found if directed else torch.cat([found, found.flip(0)], 1).unique(dim=1)


def inputs(
    kind: type[nn.Module],
    rows: int = NODES,
    edge_index: Tensor | None = None,
    types: int | None = None,
) -> tuple[Any, ...]:
    """What a layer is called with.

    Args:
        kind: Float type.
        rows: Number of nodes.
        edge_index: Edges; by default :func:`edges`.
        types: How many rows of features differ among edges; None for all.
    """
    sample = SAMPLES[kind]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, WIDTH, generator=generator)
    if edge_index is None:
        edge_index = edges(sample.directed)
    of_edges = torch.randn(edge_index.size(1), 3, generator=generator)
    if types is not None:
        of_edges = of_edges[torch.arange(edge_index.size(1)) % types]
    return {
        "indices": (torch.arange(rows) % NODES,),
        "rows": (x,),
        "graph": (x, edge_index),
        "features": (x, edge_index, of_edges),
        "relations": (x, edge_index, torch.arange(edge_index.size(1)) % 2),
        "start": (x, x.flip(0), edge_index),
    }[sample.reads]


def float_layer(kind: type[nn.Module]) -> nn.Module:
    """The same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return SAMPLES[kind].make()


def trained(kind: type[nn.Module]) -> QuantLayer:
    """Prepared and trained for two steps, in evaluation mode; a copy of one that is kept."""
    return copy.deepcopy(_trained(kind))


def packed(kind: type[nn.Module]) -> nodebits.PackedModel:
    """What is converted from :func:`trained`; the same object at every call."""
    return _packed(kind)


@functools.cache
def _trained(kind: type[nn.Module]) -> QuantLayer:
    with torch.random.fork_rng(), torch.enable_grad():
        prepared = nodebits.prepare(float_layer(kind), nodebits.UniformConfig(bits=BITS)).train()
        optimizer = torch.optim.SGD(prepared.parameters(), 0.01)
        for _ in range(2):
            optimizer.zero_grad()
            prepared(*inputs(kind)).square().mean().backward()
            optimizer.step()
    assert isinstance(prepared, QuantLayer)
    return prepared.eval()


@functools.cache
def _packed(kind: type[nn.Module]) -> nodebits.PackedModel:
    return nodebits.convert(_trained(kind))
