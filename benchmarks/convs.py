"""Every convolution of PyG: what it is made with, and what its forward takes beside x and edges."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn import MLP

# Channels in and out.
C = 8


def mlp(channels_in: int = C, channels_out: int = C) -> nn.Module:
    """Two linear maps."""
    return MLP([channels_in, C, channels_out], norm=None)


def degrees() -> Tensor:
    """How many nodes have 0, 1, 2 ... neighbours, for PNA."""
    return torch.tensor([0, 4, 5, 3])


# What the class is made with, and what its forward takes beside x and edge_index.
CONVS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "AGNNConv": (lambda: pyg.AGNNConv(), ()),
    "APPNP": (lambda: pyg.APPNP(2, 0.1), ("edge_weight",)),
    "ARMAConv": (lambda: pyg.ARMAConv(C, C, 2, 2), ("edge_weight",)),
    "CGConv": (lambda: pyg.CGConv(C, 3), ("edge_attr",)),
    "ChebConv": (lambda: pyg.ChebConv(C, C, 3), ("edge_weight",)),
    "ClusterGCNConv": (lambda: pyg.ClusterGCNConv(C, C), ()),
    "DNAConv": (lambda: pyg.DNAConv(C), ("edge_weight",)),
    "EGConv": (lambda: pyg.EGConv(C, C), ()),
    "EdgeConv": (lambda: pyg.EdgeConv(mlp(2 * C)), ()),
    "FAConv": (lambda: pyg.FAConv(C), ("x_0",)),
    "FastRGCNConv": (lambda: pyg.FastRGCNConv(C, C, 2), ("edge_type",)),
    "FeaStConv": (lambda: pyg.FeaStConv(C, C), ()),
    "FiLMConv": (lambda: pyg.FiLMConv(C, C, 2), ("edge_type",)),
    "GATConv": (lambda: pyg.GATConv(C, 4, heads=2), ()),
    "GATv2Conv": (lambda: pyg.GATv2Conv(C, 4, heads=2), ()),
    "GCN2Conv": (lambda: pyg.GCN2Conv(C, 0.1, 0.5, 1), ("x_0",)),
    "GCNConv": (lambda: pyg.GCNConv(C, C), ("edge_weight",)),
    "GENConv": (lambda: pyg.GENConv(C, C), ()),
    "GINConv": (lambda: pyg.GINConv(mlp()), ()),
    "GINEConv": (lambda: pyg.GINEConv(mlp(), edge_dim=3), ("edge_attr",)),
    "GMMConv": (lambda: pyg.GMMConv(C, C, 3, 2), ("edge_attr",)),
    "GatedGraphConv": (lambda: pyg.GatedGraphConv(C, 2), ("edge_weight",)),
    "GeneralConv": (lambda: pyg.GeneralConv(C, C), ()),
    "GraphConv": (lambda: pyg.GraphConv(C, C), ("edge_weight",)),
    "HEATConv": (
        lambda: pyg.HEATConv(C, C, 2, 2, 4, 3, 4),
        ("node_type", "edge_type", "edge_attr"),
    ),
    "HypergraphConv": (lambda: pyg.HypergraphConv(C, C), ()),
    "LEConv": (lambda: pyg.LEConv(C, C), ("edge_weight",)),
    "LGConv": (lambda: pyg.LGConv(), ("edge_weight",)),
    "MFConv": (lambda: pyg.MFConv(C, C, max_degree=6), ()),
    "MixHopConv": (lambda: pyg.MixHopConv(C, C, [0, 1]), ("edge_weight",)),
    "NNConv": (lambda: pyg.NNConv(C, C, nn.Linear(3, C * C)), ("edge_attr",)),
    "PDNConv": (lambda: pyg.PDNConv(C, C, 3, 4), ("edge_attr",)),
    "PNAConv": (
        lambda: pyg.PNAConv(C, C, ["mean", "max"], ["identity", "linear"], degrees()),
        (),
    ),
    "PPFConv": (lambda: pyg.PPFConv(mlp(C + 4), mlp()), ("pos", "normal")),
    "PointGNNConv": (lambda: pyg.PointGNNConv(mlp(C, 3), mlp(C + 3), mlp()), ("pos",)),
    "PointNetConv": (lambda: pyg.PointNetConv(mlp(C + 3), mlp()), ("pos",)),
    "PointTransformerConv": (lambda: pyg.PointTransformerConv(C, C), ("pos",)),
    "RGATConv": (lambda: pyg.RGATConv(C, C, 2), ("edge_type",)),
    "RGCNConv": (lambda: pyg.RGCNConv(C, C, 2), ("edge_type",)),
    "ResGatedGraphConv": (lambda: pyg.ResGatedGraphConv(C, C), ()),
    "SAGEConv": (lambda: pyg.SAGEConv(C, C), ()),
    "SGConv": (lambda: pyg.SGConv(C, C, 2), ("edge_weight",)),
    "SSGConv": (lambda: pyg.SSGConv(C, C, 0.1, 2), ("edge_weight",)),
    "SignedConv": (lambda: pyg.SignedConv(C, C // 2, True), ("negative",)),
    "SimpleConv": (lambda: pyg.SimpleConv(), ("edge_weight",)),
    "SuperGATConv": (lambda: pyg.SuperGATConv(C, C), ()),
    "TAGConv": (lambda: pyg.TAGConv(C, C, 2), ("edge_weight",)),
    "TransformerConv": (lambda: pyg.TransformerConv(C, C), ()),
    "WLConvContinuous": (lambda: pyg.WLConvContinuous(), ("edge_weight",)),
}
# Layers over types of nodes: made with the types, run on a dictionary of each.
TYPES: tuple[list[str], list[tuple[str, str, str]]] = (
    ["paper", "author"],
    [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")],
)
BY_TYPE: dict[str, Callable[[], nn.Module]] = {
    "HANConv": lambda: pyg.HANConv(C, C, TYPES, 2),
    "HGTConv": lambda: pyg.HGTConv(C, C, TYPES, 2),
}
# Not tried, and why.
LEFT_OUT = {
    "CuGraphGATConv": "needs pylibcugraphops",
    "CuGraphRGCNConv": "needs pylibcugraphops",
    "CuGraphSAGEConv": "needs pylibcugraphops",
    "DynamicEdgeConv": "needs torch-cluster",
    "FusedGATConv": "needs dgNN",
    "GravNetConv": "needs torch-cluster",
    "LabelPropagation": "propagates labels, not features",
    "MeshCNNConv": "takes meshes",
    "PANConv": "needs torch-sparse",
    "SplineConv": "needs torch-spline-conv",
    "XConv": "needs torch-cluster",
}


def extras(
    names: tuple[str, ...], edge_index: Tensor, nodes: int, channels: int = C
) -> dict[str, Tensor]:
    """Random arguments of these names.

    Args:
        names: From :data:`CONVS`.
        edge_index: int64 ``[2, E]``.
        nodes: N.
        channels: Columns of what has a row per node.
    """
    edges = edge_index.size(1)
    made = {
        "edge_weight": torch.rand(edges) + 0.1,
        "edge_attr": torch.rand(edges, 3),
        "edge_type": torch.arange(edges) % 2,
        "node_type": torch.arange(nodes) % 2,
        "x_0": torch.randn(nodes, channels),
        "pos": torch.randn(nodes, 3),
        "normal": nn.functional.normalize(torch.randn(nodes, 3)),
        "negative": edge_index.flip(1),
    }
    return {name: made[name] for name in names}


def run(conv: nn.Module, x: Tensor, edge_index: Tensor, extra: dict[str, Tensor]) -> Tensor:
    """The forward of a convolution of :data:`CONVS`, its arguments in the order that it takes."""
    extra = dict(extra)
    if isinstance(conv, pyg.DNAConv):
        x = x.view(-1, 1, x.size(1))
    first = [extra.pop(name) for name in ("x_0", "pos", "normal") if name in extra]
    last = [extra.pop("negative")] if "negative" in extra else []
    result: Tensor = conv(x, *first, edge_index, *last, **extra)
    return result


def by_type(nodes: int, edges: int) -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    """Random features of every type of nodes, and random edges of every type of edges."""
    x = {name: torch.randn(nodes, C) for name in TYPES[0]}
    return x, {kind: torch.randint(0, nodes, (2, edges)) for kind in TYPES[1]}
