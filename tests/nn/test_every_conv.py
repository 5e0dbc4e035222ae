"""Every convolution of PyG in a small model: it runs on packed rows, as before in float."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import nodebits
from convs import BY_TYPE, CONVS, LEFT_OUT, C, extras, run
from nodebits.core.errors import UnsupportedLayerWarning
from nodebits.nn.layer import QuantLayer
from nodebits.nn.propagate import tiles
from nodebits.runtime.sites import runs_of

N, E, PTQ = 12, 40, nodebits.UniformConfig(bits=8, mode="ptq")
FLOAT = nodebits.UniformConfig(bits=32, attention_bits=32)


class Net(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.lin, self.conv = nn.Linear(C, C), conv
        self.head = pyg.Linear(-1, 3)

    def forward(self, x: Tensor, edge_index: Tensor, extra: dict[str, Tensor]) -> Tensor:
        x = self.lin(x).relu()
        result: Tensor = self.head(run(self.conv, x, edge_index, extra).relu())
        return result


def test_the_list_is_complete() -> None:
    known = {
        name
        for name, member in vars(pyg).items()
        if isinstance(member, type) and issubclass(member, MessagePassing)
    }
    assert known - {"MessagePassing"} <= CONVS.keys() | BY_TYPE.keys() | LEFT_OUT.keys()


# Layers that add integers; the others run their own messages on tiles of decoded rows.
SUMS = {
    "AGNNConv", "APPNP", "ARMAConv", "ChebConv", "ClusterGCNConv", "FastRGCNConv", "FiLMConv",
    "GATConv", "GATv2Conv", "GCN2Conv", "GCNConv", "GINConv", "GINEConv", "GatedGraphConv",
    "GraphConv", "HypergraphConv", "LEConv", "LGConv", "MFConv", "MixHopConv", "PDNConv",
    "RGCNConv", "ResGatedGraphConv", "SAGEConv", "SGConv", "SSGConv", "SignedConv", "SimpleConv",
    "SuperGATConv", "TAGConv", "TransformerConv", "WLConvContinuous",
}  # fmt: skip
OTHERS = {
    "CGConv": "integer sum, maps by node",
    "GENConv": "integer softmax",
    "GMMConv": "integer sum, maps by node",
    "NNConv": "integer sum, maps by node",
    "PNAConv": "integer statistics, maps by node",
}


@pytest.mark.parametrize("name", CONVS)
def test_every_convolution(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_VALUES", 64)
    monkeypatch.setattr(tiles, "_LEAST_EDGES", 7)
    make, names = CONVS[name]
    x = torch.randn(N, C)
    edge_index = torch.stack([torch.randint(N, (E,)), torch.randint(N, (E,))])
    extra = extras(names, edge_index, N)
    model = Net(make()).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", UnsupportedLayerWarning)
        expected = model(x, edge_index, extra)
        for config, limit in ((FLOAT, 1e-5), (PTQ, 0.02)):
            prepared = nodebits.prepare(model, config)
            assert isinstance(prepared.conv, type(model.conv))
            nodebits.calibrate(prepared, x, edge_index, extra)
            for _ in range(2):
                simulated = prepared.eval()(x, edge_index, extra)
                assert float((simulated - expected).norm() / expected.norm()) < limit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = nodebits.convert(prepared)
    runs = {runs_of(m) for m in packed.module.conv.modules() if _passes_messages(m)}
    assert runs == {"integer sum" if name in SUMS else OTHERS.get(name, "tiled")}
    result = packed.predict(x, edge_index, extra)
    torch.testing.assert_close(result, simulated, rtol=1e-4, atol=1e-5)
    packed.save(tmp_path / "model.safetensors")
    again = nodebits.load(tmp_path / "model.safetensors", model=model)
    assert torch.equal(again.predict(x, edge_index, extra), result)


def _passes_messages(module: nn.Module) -> bool:
    return isinstance(module, QuantLayer) and isinstance(module, MessagePassing)
