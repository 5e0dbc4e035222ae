"""Sessions that begin without edges, or without nodes, go on as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nodebits
from packed_models import FEATURES, make_case, small_graph
from session.streams import step, whole
from session.test_exact import weighted_model
from session.test_log import same

NO_EDGES = torch.empty(2, 0, dtype=torch.int64)
NO_WEIGHTS = torch.empty(0)


def test_weights_come_to_a_graph_without_edges(tmp_path: Path) -> None:
    x, edge_index = small_graph()
    weight = torch.rand(edge_index.size(1), generator=torch.Generator().manual_seed(2))
    model = weighted_model()
    with nodebits.GraphSession(model, NO_EDGES, x, NO_WEIGHTS, log=tmp_path) as session:
        assert torch.equal(session.predict(), model.predict(x, NO_EDGES, NO_WEIGHTS))
        session.snapshot()
        session.add_edges(edge_index, weight)
        assert torch.equal(session.predict(), model.predict(x, edge_index, weight))
        session.remove_edges(edge_index)
        session.snapshot()
        assert torch.equal(session.predict(), model.predict(*session.arguments()))
    with nodebits.GraphSession.open(model, tmp_path) as again:
        again.add_edges(edge_index, weight)
        assert torch.equal(again.predict(), model.predict(x, edge_index, weight))
        assert torch.equal(again.predict(), model.predict(*again.arguments()))
    with nodebits.GraphSession.open(model, tmp_path) as third:
        assert same(again, third)


def test_the_plan_is_that_of_the_sessions_own_calls() -> None:
    """A model that takes weights or does without: what it was asked for before does not matter."""
    x, edge_index = small_graph()
    weight = torch.rand(edge_index.size(1), generator=torch.Generator().manual_seed(3))
    model = make_case("gcn").packed
    for before in ((x, edge_index, weight), (x, edge_index)):
        model.plan(*before)
        plain = nodebits.GraphSession(model, NO_EDGES, x)
        plain.add_edges(edge_index)
        assert torch.equal(plain.predict(), model.predict(x, edge_index))
        weighted = nodebits.GraphSession(model, NO_EDGES, x, NO_WEIGHTS)
        weighted.add_edges(edge_index, weight)
        assert torch.equal(weighted.predict(), model.predict(x, edge_index, weight))


@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat"])
def test_no_nodes(name: str) -> None:
    model = make_case(name).packed
    x = torch.randn(12, FEATURES, generator=torch.Generator().manual_seed(4))
    session = nodebits.GraphSession(model, NO_EDGES, x[:0])
    empty = session.predict()
    assert empty.shape == (0, model.predict(x, NO_EDGES).size(1))
    assert empty.dtype == torch.float32
    session.add_nodes(x)
    assert torch.equal(session.predict(), whole(model, session))
    generator = torch.Generator().manual_seed(5)
    for kind in ("add", "loop", "parallel", "features", "nodes", "remove"):
        step(session, kind, generator)
        assert torch.equal(session.predict(), whole(model, session)), kind
