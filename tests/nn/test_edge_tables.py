"""Layers on edges of few types: each row of features is mapped, packed and read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    MLP,
    CGConv,
    GATConv,
    GATv2Conv,
    GENConv,
    GINEConv,
    GMMConv,
    NNConv,
    PNAConv,
    ResGatedGraphConv,
    TransformerConv,
)

import nodebits
from nodebits import lite
from nodebits.core.errors import NonFiniteError
from nodebits.methods import make_config, method_names
from nodebits.plan.plan import Plan

N, E, C, D, KINDS = 30, 140, 8, 3, 5
DEGREES = torch.tensor([2, 3, 5, 8, 6, 4, 2])
SCALERS = ["identity", "amplification"]


def network(*act: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, 6), *act, nn.Linear(6, C * C))


LAYERS: dict[str, Any] = {
    "GINE": lambda: GINEConv(nn.Linear(C, C), edge_dim=D),
    "GINE max": lambda: GINEConv(nn.Linear(C, C), edge_dim=D, aggr="max"),
    "GEN": lambda: GENConv(C, C, edge_dim=D, norm=None),
    "CG": lambda: CGConv(C, D),
    "NN": lambda: NNConv(C, C, nn.Linear(D, C * C)),
    "NN of two": lambda: NNConv(C, C, network(nn.ReLU()), aggr="mean"),
    "NN of an MLP": lambda: NNConv(C, C, MLP([D, 6, C * C], norm=None)),
    "GMM": lambda: GMMConv(C, C, D, 2),
    "ResGated": lambda: ResGatedGraphConv(C, C, edge_dim=D),
    "Transformer": lambda: TransformerConv(C, 4, heads=2, edge_dim=D),
    "GAT": lambda: GATConv(C, 4, heads=2, edge_dim=D, add_self_loops=False),
    "GAT loops": lambda: GATConv(C, 4, heads=2, edge_dim=D),
    "GATv2": lambda: GATv2Conv(C, 4, heads=2, edge_dim=D, add_self_loops=False),
    "GATv2 loops": lambda: GATv2Conv(C, 4, heads=2, edge_dim=D),
    "GATv2 loops of 1": lambda: GATv2Conv(C, 4, heads=2, edge_dim=D, fill_value=1.0),
    "PNA": lambda: PNAConv(C, C, ["mean", "max"], SCALERS, DEGREES, edge_dim=D),
}
# A network that torch rounds in its own way, and maps that stay in float: a row for every edge.
AS_GIVEN: dict[str, tuple[Any, dict[str, int]]] = {
    "NN of SiLU": (lambda: NNConv(C, C, network(nn.SiLU())), {}),
    "GINE in float": (LAYERS["GINE"], {"*lin.*": 32}),
}


def graph(seed: int, nodes: int = N, count: int = E) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(0, nodes, (2, count), generator=made)
    return torch.randn(nodes, C, generator=made), edge_index


def of_types(count: int, kinds: int = KINDS, seed: int = 0) -> Tensor:
    """Rows of edges, of which so many differ."""
    made = torch.Generator().manual_seed(seed)
    rows = torch.randn(kinds, D, generator=made)
    return rows[torch.randint(0, kinds, (count,), generator=made)]


class Model(nn.Module):
    """A layer, called by name."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        out: Tensor = self.conv(x, edge_index, edge_attr=edge_attr)
        return out


def made(
    make: Any, bits: int, overrides: dict[str, int] | None = None
) -> tuple[nodebits.PackedModel, tuple[Tensor, ...], Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(make()).eval()
    x, edge_index = graph(1)
    args = x, edge_index, of_types(E)
    config = nodebits.UniformConfig(bits=bits, mode="ptq", overrides=overrides or {})
    prepared = nodebits.prepare(model, config)
    nodebits.calibrate(prepared, *args)
    with torch.no_grad():
        simulated = prepared(*args)
    return nodebits.convert(prepared, leave_unseen="float"), args, simulated


def tables(plan: Any) -> int:
    assert isinstance(plan, Plan), plan
    return sum(step["op"] == "distinct_rows" for step in plan.about["steps"])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_the_bits_are_those_of_a_row_per_edge(name: str, bits: int, tmp_path: Path) -> None:
    packed, args, simulated = made(LAYERS[name], bits)
    assert tables(packed.plan(*args)) == 1
    x, edge_index = graph(2, 41, 333)
    others = [  # few rows that differ, many, none at all, no edges
        (x, edge_index, of_types(333, 7, 3)),
        (x, edge_index, torch.randn(333, D)),
        (x, edge_index, torch.zeros(333, D)),
        (x, edge_index[:, edge_index[1].argsort(stable=True)], of_types(333, 2, 4)),
        (x, edge_index[:, :0], of_types(0)),
    ]
    packed.save(tmp_path / "m")
    alone = lite.load(tmp_path / "m")
    rounded = bool(packed.plan(*args).leaves)
    for some in [args, *others]:
        with torch.no_grad():
            expected = packed.module(*some)
        assert torch.equal(packed.predict(*some), expected)
        found = alone.predict(*[one.numpy() for one in some])
        if rounded:
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
        else:
            assert np.array_equal(found, expected.numpy())
    assert torch.equal(packed.predict(*args), simulated)


@pytest.mark.parametrize("name", AS_GIVEN)
def test_rows_that_floats_are_made_of_stay_as_they_are(name: str) -> None:
    make, overrides = AS_GIVEN[name]
    packed, args, _ = made(make, 4, overrides)
    assert tables(packed.plan(*args)) == 0
    with torch.no_grad():
        expected = packed.module(*args)
    assert torch.equal(packed.predict(*args), expected)


def test_what_is_not_finite_is_told_by_its_edge(tmp_path: Path) -> None:
    packed, (x, edge_index, rows), _ = made(LAYERS["GINE"], 4)
    packed.save(tmp_path / "m")
    rows[57, 1] = torch.inf
    with pytest.raises(NonFiniteError) as wrong:
        packed.predict(x, edge_index, rows)
    with pytest.raises(lite.errors.NonFiniteError) as alone:
        lite.load(tmp_path / "m").predict(x.numpy(), edge_index.numpy(), rows.numpy())
    assert "[57, 1]" in str(wrong.value) and "[57, 1]" in str(alone.value)


# Rows have scales or widths of their own under some, which edges may have by where they stand.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in method_names()},
    "a2q, any graph": ("a2q", {"fallback": True}),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["GINE", "CG", "GATv2 loops", "GAT", "NN", "PNA", "Transformer"])
def test_every_method(name: str, setting: str) -> None:
    method, options = SETTINGS[setting]
    x, edge_index = graph(1)
    args = x, edge_index, of_types(E)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prepared = nodebits.prepare(Model(LAYERS[name]()), make_config(method, 4, **options))
        for _ in range(2):
            prepared.train()(*args).square().mean().backward()
    packed = nodebits.convert(prepared.eval(), leave_unseen="float")
    with torch.no_grad():
        expected = packed.module(*args)
    for _ in range(3):
        assert torch.equal(packed.predict(*args), expected)


class Bonds(nn.Module):
    """Edges that are numbers of types, embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.bond = nn.Embedding(KINDS, C)
        self.conv = GINEConv(nn.Linear(C, C))

    def forward(self, x: Tensor, edge_index: Tensor, kind: Tensor) -> Tensor:
        out: Tensor = self.conv(x, edge_index, self.bond(kind))
        return out


def test_embedded_types_of_edges() -> None:
    x, edge_index = graph(1)
    args = x, edge_index, torch.arange(E) % KINDS
    prepared = nodebits.prepare(Bonds().eval(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *args)
    packed = nodebits.convert(prepared)
    assert tables(packed.plan(*args)) == 1
    with torch.no_grad():
        expected = packed.module(*args)
    assert torch.equal(packed.predict(*args), expected)
