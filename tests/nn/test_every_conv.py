"""Every convolution of PyG in a small model: it runs on packed rows, or a warning names it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn import MLP, MessagePassing

import nodebits
from nodebits.core.errors import UnsupportedLayerWarning
from nodebits.nn.layer import QuantLayer

N, C, E, PTQ = 12, 8, 40, nodebits.UniformConfig(bits=8, mode="ptq")


def mlp(channels_in: int = C, channels_out: int = C) -> nn.Module:
    return MLP([channels_in, C, channels_out], norm=None)


def degrees() -> Tensor:
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
# They need packages that PyG does not bring, other inputs than rows on one graph, or have no
# gradient: labels, meshes, dictionaries of node types.
LEFT_OUT = {
    "CuGraphGATConv", "CuGraphRGCNConv", "CuGraphSAGEConv", "DynamicEdgeConv", "FusedGATConv",
    "GravNetConv", "HANConv", "HGTConv", "LabelPropagation", "MeshCNNConv", "PANConv",
    "SplineConv", "XConv",
}  # fmt: skip


class Net(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.lin, self.conv = nn.Linear(C, C), conv
        self.head = pyg.Linear(-1, 3)

    def forward(self, x: Tensor, edge_index: Tensor, extra: dict[str, Tensor]) -> Tensor:
        x = self.lin(x).relu()
        extra = dict(extra)
        if isinstance(self.conv, pyg.DNAConv):
            x = x.view(-1, 1, C)
        first = [extra.pop(name) for name in ("x_0", "pos", "normal") if name in extra]
        last = [extra.pop("negative")] if "negative" in extra else []
        result: Tensor = self.head(self.conv(x, *first, edge_index, *last, **extra).relu())
        return result


def extras(names: tuple[str, ...], edge_index: Tensor) -> dict[str, Tensor]:
    made = {
        "edge_weight": torch.rand(E) + 0.1,
        "edge_attr": torch.rand(E, 3),
        "edge_type": torch.arange(E) % 2,
        "node_type": torch.arange(N) % 2,
        "x_0": torch.randn(N, C),
        "pos": torch.randn(N, 3),
        "normal": torch.nn.functional.normalize(torch.randn(N, 3)),
        "negative": edge_index.flip(1),
    }
    return {name: made[name] for name in names}


def test_the_list_is_complete() -> None:
    known = {
        name
        for name, member in vars(pyg).items()
        if isinstance(member, type) and issubclass(member, MessagePassing)
    }
    assert known - {"MessagePassing"} <= CONVS.keys() | LEFT_OUT


@pytest.mark.parametrize("name", CONVS)
def test_every_convolution(name: str, tmp_path: Path) -> None:
    make, names = CONVS[name]
    x = torch.randn(N, C)
    edge_index = torch.stack([torch.randint(N, (E,)), torch.randint(N, (E,))])
    extra = extras(names, edge_index)
    model = Net(make()).eval()
    with torch.no_grad():
        expected = model(x, edge_index, extra)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared = nodebits.prepare(model, PTQ)
        told = [str(w.message) for w in caught if w.category is UnsupportedLayerWarning]
    if not isinstance(prepared.conv, QuantLayer):
        assert any("'conv'" in text for text in told), told
    nodebits.calibrate(prepared, x, edge_index, extra)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = nodebits.convert(prepared)
    with torch.no_grad():
        simulated = prepared.eval()(x, edge_index, extra)
    result = packed.predict(x, edge_index, extra)
    torch.testing.assert_close(result, simulated, rtol=1e-4, atol=1e-5)
    assert float((result - expected).norm() / expected.norm()) < 0.1
    packed.save(tmp_path / "model.safetensors")
    again = nodebits.load(tmp_path / "model.safetensors", model=model)
    assert torch.equal(again.predict(x, edge_index, extra), result)
