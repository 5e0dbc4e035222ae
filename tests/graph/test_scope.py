"""Scopes nest, inherit, close on errors, and belong to their thread."""

from __future__ import annotations

import threading

import pytest
import torch

from nodebits.core.context import Context
from nodebits.graph import as_graph, current_scope, graph_scope


def test_nesting_inherits() -> None:
    graph = as_graph(torch.zeros(2, 0, dtype=torch.int64), 2)
    batch, mask = torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.bool)
    assert current_scope() == Context()
    with graph_scope(batch=batch):
        with graph_scope(graph=graph) as middle:
            assert middle is current_scope()
            with graph_scope(protected=mask) as inner:
                assert inner.graph is graph and inner.batch is batch and inner.protected is mask
            assert current_scope() is middle and middle.protected is None
        assert current_scope().graph is None
    assert current_scope() == Context()


def test_closed_after_an_error() -> None:
    with pytest.raises(RuntimeError), graph_scope(batch=torch.zeros(1)):
        raise RuntimeError
    assert current_scope() == Context()


def test_threads_do_not_share() -> None:
    seen: list[Context] = []
    with graph_scope(batch=torch.zeros(1)):
        thread = threading.Thread(target=lambda: seen.append(current_scope()))
        thread.start()
        thread.join()
    assert seen == [Context()]
