"""Who may not write: closed sessions, forked processes, copies, and updates that fail half made."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nodebits
from nodebits.core.errors import ConfigError, OutOfMemoryError, OutputBusyError, OutputError
from nodebits.session.graph import ChangingGraph
from packed_models import make_case, small_graph
from session.test_log import begun, log_of, same

UPDATES: dict[str, Callable[[nodebits.GraphSession], Any]] = {
    "add_edges": lambda s: s.add_edges([[0], [1]]),
    "no edges": lambda s: s.add_edges(torch.empty(2, 0, dtype=torch.int64)),
    "remove_edges": lambda s: s.remove_edges(s.arguments()[1][:, :1]),
    "add_nodes": lambda s: s.add_nodes(s.features[:1]),
    "remove_nodes": lambda s: s.remove_nodes([0]),
    "set_features": lambda s: s.set_features([0], s.features[1:2]),
}


@pytest.fixture(scope="module")
def packed() -> nodebits.PackedModel:
    return make_case("gcn").packed


@pytest.mark.parametrize("logged", [True, False])
def test_a_closed_session_predicts_and_refuses_updates(
    tmp_path: Path, packed: nodebits.PackedModel, logged: bool
) -> None:
    session = begun(packed, tmp_path / "log" if logged else None)
    before = session.predict()
    session.close()
    session.close()
    for update in UPDATES.values():
        with pytest.raises(OutputError, match="closed"):
            update(session)
    assert torch.equal(session.predict(), before)


def test_a_closed_session_leaves_the_log_to_its_next_owner(
    tmp_path: Path, packed: nodebits.PackedModel
) -> None:
    old = begun(packed, tmp_path)
    old.add_edges([[0], [1]])
    old.close()
    with nodebits.GraphSession.open(packed, tmp_path) as session:
        session.add_edges([[2], [3]])
        session.add_edges([[4], [5]])
        files = sorted(path.name for path in tmp_path.iterdir())
        for write in (old.snapshot, old.flush):
            with pytest.raises(OutputError, match=r"closed.*GraphSession\.open"):
                write()
        assert sorted(path.name for path in tmp_path.iterdir()) == files
        session.add_edges([[8], [9]])
    with nodebits.GraphSession.open(packed, tmp_path) as again:
        assert same(session, again)


def test_a_forked_process_is_refused(tmp_path: Path, packed: nodebits.PackedModel) -> None:
    session = begun(packed, tmp_path / "log")
    before = session.num_edges
    child = os.fork()
    if child == 0:
        refused = 0
        try:
            for write in (*UPDATES.values(), lambda s: s.snapshot(), lambda s: s.flush()):
                try:
                    write(session)
                except OutputError as error:
                    refused += f"process {os.getppid()}" in str(error)
            session.close()
        finally:
            os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(UPDATES) + 2
    with pytest.raises(OutputBusyError):  # the child's close has not let others in
        nodebits.GraphSession.open(packed, tmp_path / "log")
    session.add_edges([[8], [8]])
    session.close()
    with nodebits.GraphSession.open(packed, tmp_path / "log") as again:
        assert again.num_edges == before + 1
        assert same(session, again)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (MemoryError("no more"), OutOfMemoryError),
        (RuntimeError("something else"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_an_update_that_fails_half_made_is_not_in_the_log(
    tmp_path: Path,
    packed: nodebits.PackedModel,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    error: type[BaseException],
) -> None:
    session = begun(packed, tmp_path)
    session.add_edges([[2], [3]])
    size, edges = log_of(tmp_path).stat().st_size, session.num_edges

    def fail(*_: Any) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(ChangingGraph, "add", fail)
        with pytest.raises(error):
            session.add_edges([[4], [5]])
    assert log_of(tmp_path).stat().st_size == size
    with pytest.raises(OutputError, match=rf"closed, an update failed.*{type(failure).__name__}"):
        session.add_edges([[4], [5]])
    with nodebits.GraphSession.open(packed, tmp_path) as again:
        assert again.num_edges == edges
        again.add_edges([[4], [5]])
    with nodebits.GraphSession.open(packed, tmp_path) as third:
        assert same(again, third)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_session_is_not_copied(packed: nodebits.PackedModel, copied: Callable[..., Any]) -> None:
    session = begun(packed, None)
    with pytest.raises(ConfigError, match=r"graph\(\).*snapshot\(\).*GraphSession\.open"):
        copied(session)
    session.add_edges([[0], [1]])
    other = nodebits.GraphSession(packed, session.graph(), session.features)
    assert torch.equal(other.predict(), session.predict())


def test_too_many_nodes_are_refused_before_they_are_logged(
    tmp_path: Path, packed: nodebits.PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begun(packed, tmp_path)
    size = log_of(tmp_path).stat().st_size
    monkeypatch.setattr("nodebits.session.graph.INT32_MAX", small_graph()[0].size(0))
    with pytest.raises(nodebits.core.errors.GraphError, match="int32 numbers"):
        session.add_nodes(session.features[:1])
    assert log_of(tmp_path).stat().st_size == size
