"""Every convolution of PyG: what it is made with, and what its forward takes beside x and edges."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn import MLP

# Channels in and out, where a layer is asked for no others.
C = 8


def mlp(channels_in: int, channels_out: int) -> nn.Module:
    """Two linear maps."""
    return MLP([channels_in, max(min(channels_in, C), channels_out), channels_out], norm=None)


def degrees() -> Tensor:
    """How many nodes have 0, 1, 2 ... neighbours, for PNA."""
    return torch.tensor([0, 4, 5, 3])


# What the class is made with, and what its forward takes beside x and edge_index.
CONVS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "AGNNConv": (lambda c=C: pyg.AGNNConv(), ()),
    "APPNP": (lambda c=C: pyg.APPNP(2, 0.1), ("edge_weight",)),
    "ARMAConv": (lambda c=C: pyg.ARMAConv(c, c, 2, 2), ("edge_weight",)),
    "CGConv": (lambda c=C: pyg.CGConv(c, 3), ("edge_attr",)),
    "ChebConv": (lambda c=C: pyg.ChebConv(c, c, 3), ("edge_weight",)),
    "ClusterGCNConv": (lambda c=C: pyg.ClusterGCNConv(c, c), ()),
    "DNAConv": (lambda c=C: pyg.DNAConv(c), ("edge_weight",)),
    "EGConv": (lambda c=C: pyg.EGConv(c, c), ()),
    "EdgeConv": (lambda c=C: pyg.EdgeConv(mlp(2 * c, c)), ()),
    "FAConv": (lambda c=C: pyg.FAConv(c), ("x_0",)),
    "FastRGCNConv": (lambda c=C: pyg.FastRGCNConv(c, c, 2), ("edge_type",)),
    "FeaStConv": (lambda c=C: pyg.FeaStConv(c, c), ()),
    "FiLMConv": (lambda c=C: pyg.FiLMConv(c, c, 2), ("edge_type",)),
    "GATConv": (lambda c=C: pyg.GATConv(c, c // 2, heads=2), ()),
    "GATv2Conv": (lambda c=C: pyg.GATv2Conv(c, c // 2, heads=2), ()),
    "GCN2Conv": (lambda c=C: pyg.GCN2Conv(c, 0.1, 0.5, 1), ("x_0",)),
    "GCNConv": (lambda c=C: pyg.GCNConv(c, c), ("edge_weight",)),
    "GENConv": (lambda c=C: pyg.GENConv(c, c), ()),
    "GINConv": (lambda c=C: pyg.GINConv(mlp(c, c)), ()),
    "GINEConv": (lambda c=C: pyg.GINEConv(mlp(c, c), edge_dim=3), ("edge_attr",)),
    "GMMConv": (lambda c=C: pyg.GMMConv(c, c, 3, 2), ("edge_attr",)),
    "GatedGraphConv": (lambda c=C: pyg.GatedGraphConv(c, 2), ("edge_weight",)),
    "GeneralConv": (lambda c=C: pyg.GeneralConv(c, c), ()),
    "GraphConv": (lambda c=C: pyg.GraphConv(c, c), ("edge_weight",)),
    "HEATConv": (
        lambda c=C: pyg.HEATConv(c, c, 2, 2, 4, 3, 4),
        ("node_type", "edge_type", "edge_attr"),
    ),
    "HypergraphConv": (lambda c=C: pyg.HypergraphConv(c, c), ()),
    "LEConv": (lambda c=C: pyg.LEConv(c, c), ("edge_weight",)),
    "LGConv": (lambda c=C: pyg.LGConv(), ("edge_weight",)),
    "MFConv": (lambda c=C: pyg.MFConv(c, c, max_degree=6), ()),
    "MixHopConv": (lambda c=C: pyg.MixHopConv(c, c, [0, 1]), ("edge_weight",)),
    "NNConv": (lambda c=C: pyg.NNConv(c, c, nn.Linear(3, c * c)), ("edge_attr",)),
    "PDNConv": (lambda c=C: pyg.PDNConv(c, c, 3, 4), ("edge_attr",)),
    "PNAConv": (
        lambda c=C: pyg.PNAConv(c, c, ["mean", "max"], ["identity", "linear"], degrees()),
        (),
    ),
    "PPFConv": (lambda c=C: pyg.PPFConv(mlp(c + 4, c), mlp(c, c)), ("pos", "normal")),
    "PointGNNConv": (lambda c=C: pyg.PointGNNConv(mlp(c, 3), mlp(c + 3, c), mlp(c, c)), ("pos",)),
    "PointNetConv": (lambda c=C: pyg.PointNetConv(mlp(c + 3, c), mlp(c, c)), ("pos",)),
    "PointTransformerConv": (lambda c=C: pyg.PointTransformerConv(c, c), ("pos",)),
    "RGATConv": (lambda c=C: pyg.RGATConv(c, c, 2), ("edge_type",)),
    "RGCNConv": (lambda c=C: pyg.RGCNConv(c, c, 2), ("edge_type",)),
    "ResGatedGraphConv": (lambda c=C: pyg.ResGatedGraphConv(c, c), ()),
    "SAGEConv": (lambda c=C: pyg.SAGEConv(c, c), ()),
    "SGConv": (lambda c=C: pyg.SGConv(c, c, 2), ("edge_weight",)),
    "SSGConv": (lambda c=C: pyg.SSGConv(c, c, 0.1, 2), ("edge_weight",)),
    "SignedConv": (lambda c=C: pyg.SignedConv(c, c // 2, True), ("negative",)),
    "SimpleConv": (lambda c=C: pyg.SimpleConv(), ("edge_weight",)),
    "SuperGATConv": (lambda c=C: pyg.SuperGATConv(c, c), ()),
    "TAGConv": (lambda c=C: pyg.TAGConv(c, c, 2), ("edge_weight",)),
    "TransformerConv": (lambda c=C: pyg.TransformerConv(c, c), ()),
    "WLConvContinuous": (lambda c=C: pyg.WLConvContinuous(), ("edge_weight",)),
}
# Layers over types of nodes: made with the types, run on a dictionary of each.
TYPES: tuple[list[str], list[tuple[str, str, str]]] = (
    ["paper", "author"],
    [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")],
)
BY_TYPE: dict[str, Callable[..., nn.Module]] = {
    "HANConv": lambda c=C: pyg.HANConv(c, c, TYPES, 2),
    "HGTConv": lambda c=C: pyg.HGTConv(c, c, TYPES, 2),
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


def by_type(
    nodes: int, edges: int, channels: int = C
) -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    """Random features of every type of nodes, and random edges of every type of edges."""
    x = {name: torch.randn(nodes, channels) for name in TYPES[0]}
    return x, {kind: torch.randint(0, nodes, (2, edges)) for kind in TYPES[1]}
