"""LEConv: PyG's differences of both ends, as an integer sum less a product of targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import LEConv

import nodebits
from nn.cases import FLOAT, NODES, TARGETS, WIDTH, edges, features
from nodebits.nn.le_conv import QuantLEConv

PTQ = nodebits.UniformConfig(bits=8, mode="ptq")


def calls() -> dict[str, tuple[Any, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        both, ends = edges(), edges(NODES, TARGETS)
        weight = torch.rand(both.size(1)) + 0.1
        return {
            "plain": (features(), both),
            "weights": (features(), both, weight),
            "weights of both signs": (features(), both, weight - 0.5),
            "pair": ((features(), features(TARGETS)), ends),
            "stack": (torch.stack([features(), features()]), both, weight),
        }


@pytest.mark.parametrize("name", calls())
def test_it_is_pyg_s_layer_and_packed_is_prepared(name: str) -> None:
    layer, args = LEConv(WIDTH, 6).eval(), calls()[name]
    with torch.no_grad():
        exact = layer(*args)
        ours = nodebits.prepare(layer, FLOAT).eval()
        assert isinstance(ours, QuantLEConv)
        torch.testing.assert_close(ours(*args), exact, rtol=1e-5, atol=1e-5)
        prepared = nodebits.prepare(layer, PTQ)
        nodebits.calibrate(prepared, *args)
        simulated = prepared.eval()(*args)
    assert float((simulated - exact).norm() / exact.norm()) < 0.03
    packed = nodebits.convert(prepared)
    for _ in range(4):  # the module, then the plan
        assert torch.equal(packed.predict(*args), simulated)


@pytest.mark.parametrize("name", ["plain", "weights"])
def test_its_plan_has_no_module(name: str) -> None:
    layer, args = LEConv(WIDTH, 6).eval(), calls()[name]
    prepared = nodebits.prepare(layer, PTQ)
    nodebits.calibrate(prepared, *args)
    plan = nodebits.convert(prepared.eval()).plan(*args)
    assert not isinstance(plan, str) and not plan.leaves
