"""Forwards that look at sizes: a plan goes the way that the module goes, or is left."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv

import nodebits
from nodebits import lite
from nodebits.core.errors import NodebitsError
from nodebits.plan.sizes import OPERATORS, computed
from nodebits.runtime import load


def threshold(h, x, edge_index):
    return h * 2 if x.size(0) > 500 else h


def parity(h, x, edge_index):
    return h * 2 if x.shape[0] % 2 else h


def ratio(h, x, edge_index):
    return h * 2 if edge_index.shape[1] / x.shape[0] > 3.0 else h


def counted(h, x, edge_index):
    return h * 2 if len(x) > 500 else h


def made_plain(h, x, edge_index):
    return h * 2 if int(x.size(0)) > 500 else h


def logarithm(h, x, edge_index):
    return h * math.log(x.size(0))


def few(h, x, edge_index):
    return h[: min(200, x.size(0))]


def first_rows(h, x, edge_index):
    return h[:200]


def last_rows(h, x, edge_index):
    return h[-3:]


def squeezed(h, x, edge_index):
    return h.sum(0, keepdim=True)[:, : x.size(0)].squeeze()


def by_rows(h, x, edge_index):
    return torch.cat([part + 1 for part in h.split(100)])


def halves(h, x, edge_index):
    return sum(part.sum(0) for part in h.chunk(2))


def scaled(h, x, edge_index):
    return (
        h / math.sqrt(x.size(1)) + h.view(h.size(0), 2, -1).sum(1, keepdim=True).view(-1, 4)[:, :1]
    )


def merged(h, x, edge_index):
    rows = h.reshape(-1, 4)  # two of every node
    return rows.relu().reshape(h.size(0), 2, 4).amax(1)


WAYS = [
    threshold, parity, ratio, counted, made_plain, logarithm, few, first_rows, last_rows, squeezed,
    by_rows, halves, scaled, merged,
]  # fmt: skip


SIZES = ((40, 160), (41, 160), (700, 3000), (701, 900), (1, 3), (200, 300), (12, 0))


class Net(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.conv, self.way = GCNConv(16, 8), way

    def forward(self, x, edge_index):
        return self.way(self.conv(x, edge_index).relu(), x, edge_index)


def graph(nodes, edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(nodes, 16, generator=generator)
    return x, torch.randint(0, nodes, (2, edges), generator=generator)


def packed_of(way):
    torch.manual_seed(0)
    prepared = nodebits.prepare(Net(way), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *graph(40, 160))
    return nodebits.convert(prepared)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_way_of_the_module(way, tmp_path):
    packed = packed_of(way)
    packed.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors", model=Net(way))
    model = lite.load(tmp_path / "m.safetensors") if not isinstance(packed.plan(), str) else None
    for nodes, edges in (
        (40, 160),
        (41, 160),
        (700, 3000),
        (701, 900),
        (1, 3),
        (200, 300),
        (12, 0),
    ):
        given = graph(nodes, edges)
        packed.use_plans = False
        expected = packed.predict(*given)
        packed.use_plans = True
        for _ in range(3):
            assert packed.predict(*given).equal(expected), (nodes, edges)
        assert again.predict(*given).equal(expected), (nodes, edges)
        if model is not None:
            try:
                found = torch.from_numpy(model.predict(*(t.numpy() for t in given)))
            except NodebitsError as error:
                assert "goes another way" in str(error) or "torch" in str(error)
            else:
                assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6), (nodes, edges)
                assert found.shape == expected.shape


def test_what_is_expected_is_a_step():
    assert packed_of(threshold).plan().steps[0] == "expect"
    # Of numbers that no data change nothing is expected.
    assert "expect" not in packed_of(scaled).plan().steps
    assert isinstance(packed_of(counted).plan(), str)


@pytest.mark.parametrize(
    ("terms", "result"),
    [
        ((30, 500, "gt"), False),
        ((31, 2, "mod", 1, "eq"), True),
        ((-7, 2, "floordiv", -4, "eq"), True),
        ((3, 0, "div", 1, "gt"), None),
        ((0, 5, "sub", 3, "mul", 15, "add", 0, "ne"), False),
    ],
)
def test_comparisons(terms, result):
    found = computed(terms)
    assert (found if found is None else bool(found)) is result
    assert {term for term in terms if isinstance(term, str)} <= set(OPERATORS)


def test_one_graph_alone_has_a_plan():
    spec = nodebits.ModelSpec("gin", 16, 8, 2, num_layers=2, task="graph")
    prepared = nodebits.prepare(
        nodebits.build_model(spec), nodebits.UniformConfig(bits=4, mode="ptq")
    )
    x, edge_index = graph(20, 60)
    batch = torch.zeros(20, dtype=torch.int64)
    nodebits.calibrate(prepared, x, edge_index, batch)
    plan = nodebits.convert(prepared).plan(x=x, edge_index=edge_index, batch=batch)
    assert not isinstance(plan, str), plan


@pytest.mark.parametrize("name", ["gcn", "gin"])
def test_the_edges_of_a_prepared_graph_are_not_made_again(name):
    spec = nodebits.ModelSpec(name, 16, 8, 2, num_layers=2)
    prepared = nodebits.prepare(
        nodebits.build_model(spec), nodebits.UniformConfig(bits=4, mode="ptq")
    )
    x, edge_index = graph(30, 90)
    nodebits.calibrate(prepared, x, edge_index)
    packed = nodebits.convert(prepared)
    kept = packed.prepare_graph(edge_index, 30)
    for _ in range(12):
        assert packed.predict(x, kept).equal(packed.predict(x, edge_index))
    assert "plan store" in kept._cache and "edge_index" not in kept._cache
