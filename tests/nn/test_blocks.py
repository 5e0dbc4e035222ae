"""Blocks around convolutions: prepared equals packed to the bit, in plans that never leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import (
    GCNConv,
    GINEConv,
    GPSConv,
    LayerNorm,
    ResGatedGraphConv,
    global_add_pool,
)

import nodebits
from nodebits.core.errors import ConfigError
from nodebits.plan.plan import Plan

C = 16


def molecules(count: int = 5) -> Any:
    """A batch of graphs of several sizes, with ids for atoms and bonds."""
    g = torch.Generator().manual_seed(0)
    graphs = []
    for size in range(4, 4 + count):
        edges = torch.randint(0, size, (2, 2 * size), generator=g)
        graphs.append(
            Data(
                x=torch.randint(0, 7, (size,), generator=g),
                edge_index=edges,
                edge_attr=torch.randint(0, 3, (2 * size,), generator=g),
            )
        )
    return Batch.from_data_list(graphs)


class Net(nn.Module):
    """Embeddings, one block, a sum of every graph's nodes, a head."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.node, self.edge = nn.Embedding(7, C), nn.Embedding(3, C)
        self.block, self.head = block, nn.Linear(C, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        rows = self.block(self.node(x), edge_index, batch, edge_attr=self.edge(edge_attr))
        result: Tensor = self.head(global_add_pool(rows, batch))
        return result


class Plus(nn.Module):
    """GNN+ (arXiv 2502.09263): convolution, norm, activation, residual, two linears, norm."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.conv = ResGatedGraphConv(C, C, edge_dim=C)
        self.first, self.second = _norm(norm), _norm(norm)
        self.lin1, self.lin2 = nn.Linear(C, 2 * C), nn.Linear(2 * C, C)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, edge_attr: Tensor) -> Tensor:
        x = x + _normed(self.first, self.conv(x, edge_index, edge_attr), batch).relu()
        return _normed(self.second, x + self.lin2(self.lin1(x).relu()), batch)


def _norm(name: str) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm1d(C)
    return nn.LayerNorm(C) if name == "layer" else LayerNorm(C, mode=name)


def _normed(norm: nn.Module, x: Tensor, batch: Tensor) -> Tensor:
    made: Tensor = norm(x, batch) if isinstance(norm, LayerNorm) else norm(x)
    return made


def gps(**options: Any) -> GPSConv:
    mlp = nn.Sequential(nn.Linear(C, C), nn.ReLU(), nn.Linear(C, C))
    return GPSConv(C, GINEConv(mlp), heads=4, **options)


BLOCKS = {
    **{f"GNN+, {name}": lambda n=name: Plus(n) for name in ("batch", "layer", "node", "graph")},
    "GPS": gps,
    "GPS, layer norm": lambda: gps(norm="layer_norm"),
    "GPS, layer norm by node": lambda: gps(norm="layer_norm", norm_kwargs={"mode": "node"}),
    "GPS, no norm": lambda: gps(norm=None),
    "GPS, attention alone": lambda: GPSConv(C, None, heads=2),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_one_plan_that_never_leaves(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = molecules()
    args = data.x, data.edge_index, data.edge_attr, data.batch
    model = Net(BLOCKS[name]()).eval()
    floats = nodebits.prepare(model, nodebits.UniformConfig(bits=32, attention_bits=32)).eval()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    nodebits.calibrate(prepared, *args)
    with torch.no_grad():
        torch.testing.assert_close(floats(*args), model(*args), rtol=1e-4, atol=1e-4)
        expected = prepared.eval()(*args)
    packed = nodebits.convert(prepared)
    plan = packed.plan(*args)
    assert isinstance(plan, Plan) and plan.leaves == [], plan
    assert torch.equal(packed.predict(*args), expected)
    more = molecules(40)  # enough to be run graph by graph
    others = more.x, more.edge_index, more.edge_attr, more.batch
    with torch.no_grad():
        assert torch.equal(packed.predict(*others), prepared(*others))
    packed.use_plans = False
    assert torch.equal(packed.predict(*args), expected)
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors", model=Net(BLOCKS[name]()))
    assert torch.equal(loaded.predict(*args), expected)


def test_a_file_says_what_is_evaluated_in_a_stated_order(tmp_path: Path) -> None:
    data = molecules()
    args = data.x, data.edge_index, data.edge_attr, data.batch
    prepared = nodebits.prepare(Net(Plus("layer")), nodebits.UniformConfig(bits=8))
    nodebits.calibrate(prepared, *args)
    nodebits.convert(prepared).save(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"block\.first.*stated order"):
        nodebits.load(tmp_path / "model.safetensors", model=Net(Plus("batch")))


def test_a_single_column_is_pooled_by_a_step() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(C, 1)

        def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
            made: Tensor = global_add_pool(self.conv(x, edge_index), batch)
            return made

    data = molecules()
    args = torch.randn(data.num_nodes, C), data.edge_index, data.batch
    prepared = nodebits.prepare(Narrow(), nodebits.UniformConfig(bits=8))
    nodebits.calibrate(prepared, *args)
    plan = nodebits.convert(prepared).plan(*args)
    assert isinstance(plan, Plan) and "segment_sum" in plan.steps and plan.leaves == []


def test_attention_of_a_gps_layer_trains_as_pygs_does() -> None:
    torch.manual_seed(0)
    data = molecules()
    args = data.x, data.edge_index, data.edge_attr, data.batch
    model = Net(gps(norm=None)).train()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=32, attention_bits=32))
    for one in (model, prepared):
        one(*args).sum().backward()
    mine, theirs = prepared.block.attn.in_proj_weight, model.block.attn.in_proj_weight
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_graphs_of_nodes_may_be_int32() -> None:
    data = molecules()
    x, short = torch.randn(data.num_nodes, C), data.batch.int()
    layer = GPSConv(C, GCNConv(C, C), heads=2)
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, x, data.edge_index, data.batch)
    packed = nodebits.convert(prepared)
    expected = packed.predict(x, data.edge_index, data.batch)
    assert torch.equal(packed.predict(x, data.edge_index, short), expected)
    assert isinstance(packed.plan(x, data.edge_index, data.batch), Plan)
    assert torch.equal(packed.predict(x, data.edge_index, short), expected)
    with torch.no_grad():
        assert torch.equal(prepared.eval()(x, data.edge_index, short), expected)


def test_hooks_on_attention_are_called() -> None:
    data = molecules()
    args = data.x, data.edge_index, data.edge_attr, data.batch
    config = nodebits.UniformConfig(bits=32, attention_bits=32)
    prepared = nodebits.prepare(Net(gps()), config).eval()
    called: list[int] = []
    prepared.block.attn.register_forward_hook(lambda *_: called.append(1))
    with torch.no_grad():
        prepared(*args)
    assert called == [1]
