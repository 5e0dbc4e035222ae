"""Samples with every layer twice: rows of the seeds alone, with the bits of the whole sample."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from nodebits_smoothness.smp_conv import SMPConv
from torch import Tensor, nn
from torch_geometric.nn import APPNP, AGNNConv, ChebConv, SuperGATConv

import nodebits
from contracts.layers import BITS, NODES, SAMPLES, float_layer, inputs
from nodebits.graph import as_graph, sample_neighbors
from nodebits.plan.native import NativeRunner
from nodebits.plan.plan import Plan
from nodebits.plan.trim import reach, steps_of_all

IDS, FANOUTS = [3, 0, 7], [2, 2, 3]
# A sample has edges one way only; SMP asks how its data are spread, so Python runs it.
KINDS = [
    kind
    for kind, sample in SAMPLES.items()
    if sample.reads not in ("indices", "rows") and sample.directed and kind is not SMPConv
]
# Rounds as one step, edges by their number, edges out of a node.
OF_ALL = (APPNP, AGNNConv, SuperGATConv, ChebConv)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
pytestmark = [
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.DegenerateSiteWarning"),
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning"),
]


class Twice(nn.Module):
    """Two layers of a kind, the second of what the first returns."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = float_layer(kind), float_layer(kind)
        self._starts = SAMPLES[kind].reads == "start"

    def forward(self, x: Tensor, edge_index: Any, edge_more: Tensor | None = None) -> Tensor:
        more = () if edge_more is None else (edge_more,)
        start = (x,) if self._starts else ()
        out: Tensor = self.second(
            self.first(x, *start, edge_index, *more), *start, edge_index, *more
        )
        return out


def given(
    kind: type[nn.Module], edge_index: Tensor | None = None, types: int | None = None
) -> tuple[Tensor, ...]:
    made = inputs(kind, edge_index=edge_index, types=types)
    return made[:1] + made[2:] if SAMPLES[kind].reads == "start" else made


@functools.cache
def packed(kind: type[nn.Module]) -> nodebits.PackedModel:
    prepared = nodebits.prepare(Twice(kind).eval(), nodebits.UniformConfig(bits=BITS, mode="ptq"))
    nodebits.calibrate(prepared, *given(kind))
    return nodebits.convert(prepared)


# Edges with rows of their own, and of a few that all have.
TYPED = [(kind, 1) for kind in KINDS if SAMPLES[kind].reads == "features"]


@pytest.mark.parametrize(
    ("kind", "types"),
    [(kind, None) for kind in KINDS] + TYPED,
    ids=[kind.__name__ for kind in KINDS] + [f"{kind.__name__} of types" for kind, _ in TYPED],
)
def test_a_sample_computes_what_its_seeds_need(
    kind: type[nn.Module], types: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (x, edge_index, *more) = packed(kind), given(kind, types=types)
    plan = model.plan(x, edge_index, *more)
    assert isinstance(plan, Plan) and steps_of_all(plan) == []
    rows = []
    run = NativeRunner.run

    def noted(self: Any, *args: Any) -> Any:
        result = run(self, *args)
        rows.append(result.size(0))
        return result

    monkeypatch.setattr(NativeRunner, "run", noted)
    graph = as_graph(edge_index, NODES)
    for seed in range(6):
        found = model.predict_nodes(
            graph, x, IDS, FANOUTS, seed=seed, **dict(zip(["edge_more"], more, strict=False))
        )
        sample = sample_neighbors(graph, IDS, FANOUTS, seed=seed)
        part = [of_edges[sample.edges] for of_edges in more]
        with torch.no_grad():
            whole = model.module(x[sample.nodes], sample.graph, *part)
        assert torch.equal(found, whole[sample.seeds])
    assert {*rows} == {len(IDS)}


@every_kind
def test_what_is_out_of_reach_changes_nothing(kind: type[nn.Module]) -> None:
    path = torch.stack([torch.arange(NODES - 1), torch.arange(1, NODES)])
    model, (x, edge_index, *more) = packed(kind), given(kind, path)
    plan = model.plan(x, edge_index, *more)
    assert isinstance(plan, Plan)
    hops = reach(plan)
    assert (hops is None) is (kind in OF_ALL)
    if hops is None:
        return
    assert 2 <= hops <= 4
    far = NODES - 1 - hops  # nodes below it are further from the last one
    before = model.predict(x, edge_index, *more)[-1]
    x = x.clone()
    x[:far] += 1
    kept = edge_index[1] >= far
    after = model.predict(x, edge_index[:, kept], *[rows[kept] for rows in more])[-1]
    assert torch.equal(before, after)
