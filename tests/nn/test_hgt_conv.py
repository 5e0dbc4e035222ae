"""HGTConv: maps of relations joined with those of types, one softmax over all edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

import nodebits
from nodebits.core.errors import ShapeError
from nodebits.methods import DegreeQuantConfig, UniformConfig
from nodebits.nn.hgt_conv import QuantHGTConv

from .cases import BITS, assert_no_float_weights

TYPES = (
    ["paper", "au thor"],
    [("paper", "cites", "paper"), ("au thor", "writes", "paper"), ("paper", "by", "au thor")],
)
COUNTS = {"paper": 20, "au thor": 9}


class Net(nn.Module):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.conv = HGTConv({"paper": width, "au thor": 8}, 8, TYPES, heads=2)
        for parameter in self.parameters():  # priors and skips of 1 would hide a mistake
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: dict[str, Tensor], edge_index: dict[Any, Tensor]) -> Tensor:
        return torch.cat([*self.conv(x, edge_index).values()])


def inputs() -> tuple[dict[str, Tensor], dict[Any, Tensor]]:
    x = {kind: torch.randn(n, {"paper": 12, "au thor": 8}[kind]) for kind, n in COUNTS.items()}
    edges = {
        kind: torch.stack([torch.randint(COUNTS[kind[side]], (40,)) for side in (0, -1)])
        for kind in TYPES[1]
    }
    return x, edges


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


def calibrated(model: nn.Module, config: Any, *given: Any) -> nn.Module:
    prepared = nodebits.prepare(model, config).eval()
    nodebits.calibrate(prepared, *given)
    return prepared


def test_float_sites(net: nn.Module) -> None:
    x, edges = inputs()
    prepared = nodebits.prepare(net, UniformConfig(bits=32, attention_bits=32))
    assert isinstance(prepared.conv, QuantHGTConv)
    assert dict(prepared.named_parameters()).keys() == dict(net.named_parameters()).keys()
    torch.testing.assert_close(prepared(x, edges), net(x, edges), atol=1e-5, rtol=1e-5)
    fewer = {TYPES[1][1]: edges[TYPES[1][1]]}
    expected = net(x, fewer)
    torch.testing.assert_close(prepared(x, fewer), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bits", BITS)
def test_packed_is_the_simulation(net: nn.Module, bits: int, tmp_path: Path) -> None:
    given = inputs()
    for config in (
        UniformConfig(bits=bits),
        UniformConfig(bits=bits, mode="ptq"),
        DegreeQuantConfig(bits=bits),
        UniformConfig(bits=bits, overrides={"conv.message*": 32}),
    ):
        prepared = calibrated(net, config, *given)
        packed = nodebits.convert(prepared)
        with torch.no_grad():
            assert torch.equal(packed.module(*given), prepared(*given))
        assert_no_float_weights(packed)
    packed = nodebits.convert(calibrated(net, UniformConfig(bits=bits), *given))
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors", model=Net())
    assert torch.equal(loaded.predict(*given), packed.predict(*given))


def test_eight_bits_are_close(net: nn.Module) -> None:
    given = inputs()
    packed = nodebits.convert(calibrated(net, UniformConfig(bits=8, mode="ptq"), *given))
    expected, found = net(*given), packed.predict(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.02


def test_the_order_of_edges_changes_nothing(net: nn.Module) -> None:
    x, edges = inputs()
    packed = nodebits.convert(calibrated(net, UniformConfig(bits=4), x, edges))
    mixed = {kind: index[:, torch.randperm(40)] for kind, index in edges.items()}
    assert torch.equal(packed.predict(x, mixed), packed.predict(x, edges))


def test_every_parameter_is_trained(net: nn.Module) -> None:
    given = inputs()
    prepared = calibrated(net, UniformConfig(bits=8), *given)
    upstream = torch.randn_like(net(*given))
    net(*given).backward(upstream)
    prepared(*given).backward(upstream)
    own = dict(prepared.named_parameters())
    pairs = [(own[n].grad, p.grad) for n, p in net.named_parameters() if p.grad is not None]
    mine, wanted = (torch.cat([g.flatten() for g in side]) for side in zip(*pairs, strict=True))
    assert torch.cosine_similarity(mine, wanted, dim=0) > 0.97


def test_what_does_not_fit_is_refused(net: nn.Module) -> None:
    x, edges = inputs()
    prepared = nodebits.prepare(net, UniformConfig(bits=8))
    with pytest.raises(ShapeError, match="expected rows of 12"):
        prepared({**x, "paper": x["paper"][:, :3]}, edges)
    with pytest.raises(ShapeError, match="type 'venue'"):
        prepared({**x, "venue": x["paper"]}, edges)
    with pytest.raises(ShapeError, match="without maps"):
        prepared(x, {**edges, ("paper", "in", "paper"): edges[TYPES[1][0]]})
