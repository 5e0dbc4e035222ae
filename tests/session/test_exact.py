"""After any updates a session says what the model says of the whole graph, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.nn import (
    AGNNConv,
    ChebConv,
    GCNConv,
    GENConv,
    SAGEConv,
    SuperGATConv,
    TransformerConv,
)

import nodebits
from contracts.layers import SAMPLES, inputs, packed
from nodebits.core.errors import ConfigError, UnsupportedLayerError
from packed_models import FEATURES, NODES, UserModel, make_case, small_graph, two_steps
from session.streams import KINDS, step, whole

METHODS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "degree-quant": {},
    "degree-quant, 2 bits": {"message_bits": 2, "input_bits": 8},
    "mixq": {},
}


def run_stream(model: nodebits.PackedModel, kinds: list[str], seed: int, **options: Any) -> None:
    x, edge_index = small_graph()
    session = nodebits.GraphSession(model, edge_index, x, **options)
    assert torch.equal(session.predict(), whole(model, session))
    generator = torch.Generator().manual_seed(seed)
    for i, kind in enumerate(kinds):
        step(session, kind, generator)
        if i % 3 != 1:  # several updates together, too
            assert torch.equal(session.predict(), whole(model, session)), (i, kind)
    assert torch.equal(session.predict(), whole(model, session))
    chosen = (~session.removed).nonzero().view(-1)[[3, 1, 3]]
    assert torch.equal(session.predict(chosen), whole(model, session)[chosen])


streams = st.lists(st.sampled_from(KINDS), min_size=1, max_size=12)
several = settings(
    max_examples=4, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # a stream is short, and shrinking it takes minutes
)  # fmt: skip


@pytest.mark.parametrize("setting", METHODS)
@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat"])
@several
@given(kinds=streams, seed=st.integers(0, 1000))
def test_models(name: str, setting: str, kinds: list[str], seed: int) -> None:
    method, options = setting.partition(",")[0], METHODS[setting]
    run_stream(make_case(name, method, **options).packed, kinds, seed)


@several
@given(kinds=streams, seed=st.integers(0, 1000))
def test_a_model_of_the_user(kinds: list[str], seed: int) -> None:
    run_stream(user_model(), kinds, seed)


@several
@given(kinds=streams, seed=st.integers(0, 1000))
def test_edges_with_weights(kinds: list[str], seed: int) -> None:
    edges = small_graph()[1].size(1)
    weight = torch.rand(edges, generator=torch.Generator().manual_seed(1))
    run_stream(weighted_model(), kinds, seed, edge_weight=weight)


_made: dict[str, nodebits.PackedModel] = {}


def user_model() -> nodebits.PackedModel:
    if "user" not in _made:
        with torch.random.fork_rng(), torch.enable_grad():
            model = two_steps(UserModel(), nodebits.UniformConfig(bits=4), *small_graph())
        _made["user"] = nodebits.convert(model)
    return _made["user"]


class _Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, 16)
        self.second = SAGEConv(16, 3)
        self.third = GCNConv(3, 3, add_self_loops=False)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        x = self.first(x, edge_index, edge_weight).relu()
        return self.third(self.second(x, edge_index), edge_index, edge_weight)


def weighted_model() -> nodebits.PackedModel:
    if "weighted" not in _made:
        x, edge_index = small_graph()
        weight = torch.rand(edge_index.size(1), generator=torch.Generator().manual_seed(1))
        with torch.random.fork_rng(), torch.enable_grad():
            model = two_steps(_Weighted(), nodebits.UniformConfig(bits=4), x, edge_index, weight)
        _made["weighted"] = nodebits.convert(model)
    return _made["weighted"]


@pytest.mark.parametrize("kind", [k for k, s in SAMPLES.items() if s.reads == "graph"])
def test_every_layer_is_exact(kind: type[nn.Module]) -> None:
    model, (x, edge_index) = packed(kind), inputs(kind)
    if isinstance(model.plan(x, edge_index), str):
        with pytest.raises(ConfigError, match="without a plan"):
            nodebits.GraphSession(model, edge_index, x)
        return
    if kind is ChebConv:  # an edge changes its source's degree, and so rows of other targets
        with pytest.raises(UnsupportedLayerError, match=r"taken away.*row by row"):
            nodebits.GraphSession(model, edge_index, x)
        return
    stays_exact(model, x, edge_index, KINDS if SAMPLES[kind].directed else ("features",))


# What torch rounds by where a row stands, and propagations of all rows.
OF_ALL_ROWS: dict[str, Callable[[], nn.Module]] = {
    "gates of rows": lambda: TransformerConv(FEATURES, 4, heads=2, beta=True),
    "norms of messages": lambda: GENConv(FEATURES, 6, msg_norm=True, learn_msg_scale=True),
    "normalised": lambda: SAGEConv(FEATURES, 6, normalize=True),
    "scores of edges": lambda: SuperGATConv(FEATURES, 4, heads=2),
    "without loops": lambda: SuperGATConv(FEATURES, 4, attention_type="SD", add_self_loops=False),
    "cosines": lambda: AGNNConv(add_self_loops=False),
}


class _Between(nn.Module):
    """A layer between others, which read rows of neighbours."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.first, self.layer, self.last = SAGEConv(FEATURES, FEATURES), layer, GCNConv(width, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.layer(self.first(x, edge_index).relu(), edge_index)
        return self.last(x, edge_index)


@pytest.mark.parametrize("name", OF_ALL_ROWS)
@several
@given(kinds=streams, seed=st.integers(0, 1000))
def test_steps_of_all_rows(name: str, kinds: list[str], seed: int) -> None:
    if name not in _made:
        x, edge_index = small_graph()
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(4)
            layer = OF_ALL_ROWS[name]()
            width = layer(x, edge_index).size(1)
            config = nodebits.UniformConfig(bits=4)
            _made[name] = nodebits.convert(two_steps(_Between(layer, width), config, x, edge_index))
    run_stream(_made[name], kinds, seed)


def stays_exact(
    model: nodebits.PackedModel, x: Tensor, edge_index: Tensor, kinds: Sequence[str]
) -> None:
    """A session on a model gives the bits of its module after every update."""
    session = nodebits.GraphSession(model, edge_index, x)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(session.predict(), whole(model, session))
    for i in range(24):
        step(session, kinds[i % len(kinds)], generator)
        assert torch.equal(session.predict(), whole(model, session)), i


def test_a_hub_costs_the_difference() -> None:
    """A sum of many sources reads only what came: the rows of the others are not looked at."""
    case = make_case("gin")
    leaves = 5000
    x = torch.randn(leaves + 1, FEATURES, generator=torch.Generator().manual_seed(0))
    edges = torch.stack([torch.arange(1, leaves + 1), torch.zeros(leaves, dtype=torch.int64)])
    session = nodebits.GraphSession(case.packed, edges, x)
    session.predict()
    read: list[int] = []
    gather = session._graph.rows
    session._graph.rows = lambda nodes, loops: read.append(len(nodes)) or gather(nodes, loops)
    session.add_edges([[7], [0]])
    session.remove_edges([[9], [0]])
    session.set_features([5], torch.randn(1, FEATURES))
    found = session.predict()
    assert read == []
    session._graph.rows = gather
    assert torch.equal(found, whole(case.packed, session))


def test_nothing_changes_nothing() -> None:
    case = make_case("gcn")
    session = nodebits.GraphSession(case.packed, case.edge_index, case.x)
    assert torch.equal(session.predict(), case.simulated)
    before = session.predict()
    session.add_edges(torch.empty(2, 0, dtype=torch.int64))
    session.remove_nodes([])
    session.add_edges([[3], [4]])
    session.remove_edges([[3], [4]])
    assert torch.equal(session.predict(), before)
    assert session.num_nodes == NODES
