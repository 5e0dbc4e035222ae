"""Models whose layers run their own messages: over types, with pooling, with edge features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from convs import BY_TYPE, TYPES, by_type
from nodebits.nn.layer import QuantLayer
from nodebits.runtime.sites import runs_of

N, C, E = 20, 8, 80


class Inside(nn.Module):
    """A model of which only the first layer's result is asked for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> Any:
        found = self.model(*args)
        return torch.cat(list(found.values())) if isinstance(found, dict) else found


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = pyg.SAGEConv(C, C, aggr="max"), pyg.TopKPooling(C, 0.5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x, edge_index, _, _, _, _ = self.pool(self.conv(x, edge_index).relu(), edge_index)
        return x.mean(0, keepdim=True)


def by_relation() -> nn.Module:
    convs = {k: pyg.GATv2Conv((C, C), C, add_self_loops=False) for k in TYPES[1]}
    return pyg.HeteroConv(convs)


def plain() -> tuple[Tensor, Tensor]:
    return torch.randn(N, C), torch.randint(N, (2, E))


def with_edges() -> tuple[Any, ...]:
    return *plain(), None, torch.randn(E, 3)


def pna() -> nn.Module:
    counts = torch.tensor([0, 2, 8, 10])
    return pyg.PNA(C, C, 2, 3, aggregators=["mean", "max", "std"], scalers=["identity"], deg=counts)


several = ["max", "std", "median", "softmax"]
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "HGT": (BY_TYPE["HGTConv"], lambda: by_type(N, E)),
    "HAN": (BY_TYPE["HANConv"], lambda: by_type(N, E)),
    "HeteroConv": (by_relation, lambda: by_type(N, E)),
    "PNA": (pna, plain),
    "GAT v2": (lambda: pyg.GAT(C, C, 2, 3, v2=True, edge_dim=3), with_edges),
    "EdgeCNN": (lambda: pyg.EdgeCNN(C, C, 2, 3), plain),
    "several aggregations": (lambda: pyg.SAGEConv(C, C, aggr=several), plain),
    "pooled": (Pooled, plain),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_from_float_to_its_file(name: str, tmp_path: Path, small_tiles: None) -> None:
    make, inputs = MODELS[name]
    model, args = Inside(make()).eval(), inputs()
    with torch.no_grad():
        expected = model(*args)
        prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
        nodebits.calibrate(prepared, *args)
        simulated = prepared.eval()(*args)
    assert (simulated - expected).norm() < 0.03 * expected.norm()
    packed = nodebits.convert(prepared, leave_unseen="float")
    runs = {runs_of(m) for m in packed.module.modules() if isinstance(m, QuantLayer)}
    assert all(run == "tiled" or run.startswith("integer") for run in runs)
    found = packed.predict(*args)
    torch.testing.assert_close(found, simulated, rtol=1e-4, atol=1e-5)
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors", model=Inside(make()))
    assert torch.equal(loaded.predict(*args), found)


def test_attention_over_types_without_a_stack_of_them() -> None:
    model, args = Inside(BY_TYPE["HANConv"]()).eval(), by_type(2 * N, E)
    with torch.no_grad():
        prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
        nodebits.calibrate(prepared, *args)
        packed = nodebits.convert(prepared, leave_unseen="float").module
    layer = next(m for m in packed.modules() if isinstance(m, QuantLayer) and m.has_messages)
    with torch.inference_mode():
        found, weights = layer(*args, return_semantic_attention_weights=True)
        expected, known = pyg.HANConv.forward(layer, *args, return_semantic_attention_weights=True)
        none, _ = layer(args[0], {}, True)
    assert list(found) == list(expected) and set(none.values()) == {None}
    for kind in found:
        torch.testing.assert_close(found[kind], expected[kind], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights[kind], known[kind], rtol=1e-4, atol=1e-5)
