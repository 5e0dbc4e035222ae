"""A session comes back from its log with every update that was acknowledged, or says why not."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nodebits
from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    OutputBusyError,
    OutputError,
    OutputExistsError,
    TornLogWarning,
)
from nodebits.session.records import Update, encoded, head_of, is_torn
from packed_models import make_case, small_graph, threads
from session.streams import KINDS, step, whole

UPDATES = tuple(kind for kind in KINDS if kind != "nothing")


@pytest.fixture(scope="module")
def packed() -> nodebits.PackedModel:
    return make_case("gcn").packed


def begun(packed: nodebits.PackedModel, log: Path | None, **options: Any) -> nodebits.GraphSession:
    x, edge_index = small_graph()
    return nodebits.GraphSession(packed, edge_index, x, log=log, **options)


def stream(session: nodebits.GraphSession, seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        step(session, UPDATES[i % len(UPDATES)], generator)


def same(one: nodebits.GraphSession, other: nodebits.GraphSession) -> bool:
    a, b = one.graph(), other.graph()
    return (
        torch.equal(a.indptr, b.indptr)
        and torch.equal(a.indices, b.indices)
        and torch.equal(one.features, other.features)
        and torch.equal(one.removed, other.removed)
    )


def log_of(folder: Path) -> Path:
    (found,) = folder.glob("updates-*.log")
    return found


@pytest.mark.parametrize("weighted", [False, True])
def test_it_comes_back(tmp_path: Path, packed: nodebits.PackedModel, weighted: bool) -> None:
    if weighted:
        from session.test_exact import weighted_model

        packed = weighted_model()
    options = {"edge_weight": torch.rand(small_graph()[1].size(1))} if weighted else {}
    with begun(packed, tmp_path / "log", sync="os", **options) as session:
        stream(session, 1, 20)
        session.flush()
    with nodebits.GraphSession.open(packed, tmp_path / "log") as again:
        assert same(session, again)
        assert torch.equal(again.predict(), whole(packed, session))
        again.snapshot()
        stream(again, 2, 9)
    assert len(list((tmp_path / "log").glob("*.*"))) == 2
    with nodebits.GraphSession.open(packed, tmp_path / "log") as third:
        assert same(again, third)
        assert torch.equal(third.predict(), whole(packed, again))
        assert third.graph().edge_weight is None or weighted


def test_an_empty_graph_comes_back(tmp_path: Path, packed: nodebits.PackedModel) -> None:
    x, _ = small_graph()
    empty = torch.empty(2, 0, dtype=torch.int64)
    with nodebits.GraphSession(packed, empty, x, log=tmp_path) as session:
        session.add_edges([[0, 1], [1, 2]])
    with nodebits.GraphSession.open(packed, tmp_path) as again:
        assert again.num_edges == 2
        assert torch.equal(again.predict(), whole(packed, again))


def test_who_may_open_it(tmp_path: Path, packed: nodebits.PackedModel) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        nodebits.GraphSession.open(packed, tmp_path / "log")
    with begun(packed, tmp_path / "log"):
        with pytest.raises(OutputBusyError):
            nodebits.GraphSession.open(packed, tmp_path / "log")
    with pytest.raises(OutputExistsError, match=r"GraphSession\.open"):
        begun(packed, tmp_path / "log")
    with pytest.raises(ConfigError, match="sync is 'sometimes'"):
        begun(packed, tmp_path / "other", sync="sometimes")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no session"):
        nodebits.GraphSession.open(packed, tmp_path / "empty")
    with pytest.raises(ConfigError, match="has no log"):
        begun(packed, None).snapshot()
    with begun(packed, tmp_path / "closed") as session:
        pass
    with pytest.raises(OutputError, match="closed"):
        session.add_nodes(session.features[:1])


@pytest.fixture
def written(tmp_path: Path, packed: nodebits.PackedModel) -> tuple[Path, list[int]]:
    """A log of 7 updates, and where it ended after each."""
    ends = [0]
    with begun(packed, tmp_path / "log") as session:
        generator = torch.Generator().manual_seed(5)
        for i in range(7):
            step(session, UPDATES[i], generator)
            ends.append(log_of(tmp_path / "log").stat().st_size)
    return tmp_path / "log", ends


def test_every_torn_end_is_cut_off(
    tmp_path: Path, packed: nodebits.PackedModel, written: tuple[Path, list[int]]
) -> None:
    folder, ends = written
    data = log_of(folder).read_bytes()
    sizes = [ends[-2] + 1, ends[-2] + 23, ends[-2] + 24, ends[-1] - 1, ends[3] + 5]
    for size in sizes:
        for zeros in (0, 11) if size < ends[-1] - 1 else (0,):
            copy = tmp_path / f"cut {size} {zeros}"
            shutil.copytree(folder, copy)
            log_of(copy).write_bytes(data[:size] + bytes(zeros))
            with pytest.warns(TornLogWarning, match=r"was never acknowledged"):
                session = nodebits.GraphSession.open(packed, copy)
            session.close()
            expected = begun(packed, None)
            generator = torch.Generator().manual_seed(5)
            for i in range(sum(end <= size for end in ends) - 1):
                step(expected, UPDATES[i], generator)
            assert same(session, expected)
            assert log_of(copy).stat().st_size == max(end for end in ends if end <= size)


def test_damage_before_the_end_is_refused(
    tmp_path: Path, packed: nodebits.PackedModel, written: tuple[Path, list[int]]
) -> None:
    folder, ends = written
    data = log_of(folder).read_bytes()
    last = [ends[-2] + at for at in (0, 5, 12, 21, 24, 30, 50)]
    places = [0, 5, 12, 21, 30, ends[3], ends[3] + 2, ends[3] + 30, ends[6] - 1]
    for at in [*places, *last, ends[-1] - 5, ends[-1] - 4, ends[-1] - 1]:
        copy = tmp_path / f"damaged {at}"
        shutil.copytree(folder, copy)
        log_of(copy).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        begin = max(end for end in ends if end <= at)
        with pytest.raises(FileFormatError, match=rf"damaged at byte {begin}:.*shorten it to"):
            nodebits.GraphSession.open(packed, copy)
        with pytest.raises(FileFormatError):  # and it is still there to be looked at
            nodebits.GraphSession.open(packed, copy)


@pytest.mark.parametrize(
    "update",
    [
        Update("add_edges", (torch.tensor([[1], [2]]),)),
        Update("set_features", (torch.tensor([3]), torch.zeros(1, 2))),
        Update("remove_nodes", (torch.empty(0, dtype=torch.int64),)),
    ],
    ids=lambda update: update.kind,
)
def test_no_flipped_bit_of_the_last_record_passes_for_a_torn_one(update: Update) -> None:
    record = encoded(1, update)
    whole_head = head_of(memoryview(record))
    assert whole_head is not None
    assert whole_head.payload(memoryview(record)) is not None
    for at in range(len(record)):
        for bit in range(8):
            damaged = record[:at] + bytes([record[at] ^ 1 << bit]) + record[at + 1 :]
            head = head_of(memoryview(damaged))
            assert head is None or head.payload(memoryview(damaged)) is None
            assert not is_torn(damaged), (at, bit)
    for size in range(len(record)):
        assert is_torn(record[:size]), size
        assert is_torn(record[:size] + bytes(len(record) - size)), size
    assert not is_torn(b"what some other program wrote")


def test_records_of_the_first_version_are_read(
    packed: nodebits.PackedModel, written: tuple[Path, list[int]]
) -> None:
    """They had another magic and no end; those that follow in the same file are of today's."""
    folder, _ = written
    with nodebits.GraphSession.open(packed, folder) as expected:
        pass
    data = log_of(folder).read_bytes()
    old, at = b"", 0
    while at < len(data):
        found = head_of(memoryview(data)[at:])
        assert found is not None
        head = b"NBLR" + data[at + 4 : at + 20]
        payload = data[at + 24 : at + 24 + found.size]
        old += head + zlib.crc32(head).to_bytes(4, "little") + payload
        at += found.record_bytes
    log_of(folder).write_bytes(old)
    with nodebits.GraphSession.open(packed, folder) as session:
        assert same(session, expected)
        session.add_edges([[0], [1]])
    with nodebits.GraphSession.open(packed, folder) as again:
        assert same(session, again)
    flipped = bytearray(old)
    flipped[100] ^= 4
    log_of(folder).write_bytes(flipped)
    with pytest.raises(FileFormatError, match="damaged at byte"):
        nodebits.GraphSession.open(packed, folder)


def test_a_log_that_was_deleted_takes_no_updates(
    tmp_path: Path, packed: nodebits.PackedModel
) -> None:
    session = begun(packed, tmp_path / "log")
    shutil.rmtree(tmp_path / "log")
    edges = session.num_edges
    with pytest.raises(OutputError, match="was deleted"):
        session.add_edges([[0], [1]])
    assert session.num_edges == edges
    session.snapshot()
    session.add_edges([[0], [1]])
    session.close()
    with nodebits.GraphSession.open(packed, tmp_path / "log") as again:
        assert same(session, again)


def test_a_record_that_is_missing_is_refused(
    packed: nodebits.PackedModel, written: tuple[Path, list[int]]
) -> None:
    folder, ends = written
    data = log_of(folder).read_bytes()
    log_of(folder).write_bytes(data[: ends[2]] + data[ends[3] :])
    with pytest.raises(FileFormatError, match="is update 4 after 2"):
        nodebits.GraphSession.open(packed, folder)


def test_damage_of_a_snapshot_is_refused(
    packed: nodebits.PackedModel, written: tuple[Path, list[int]]
) -> None:
    folder, _ = written
    (snapshot,) = folder.glob("snapshot-*")
    data = bytearray(snapshot.read_bytes())
    data[-3] ^= 1
    snapshot.write_bytes(data)
    with pytest.raises(FileFormatError, match="checksum"):
        nodebits.GraphSession.open(packed, folder)


def test_a_disk_that_is_full_changes_nothing(
    tmp_path: Path, packed: nodebits.PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begun(packed, tmp_path / "log")
    stream(session, 4, 3)
    before = session.predict()
    size = log_of(tmp_path / "log").stat().st_size
    write = os.write

    def full(file: int, data: Any) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:19])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for update in (
            lambda: session.add_edges([[1], [2]]),
            lambda: session.remove_edges(session.graph().edge_index()[:, :1]),
            lambda: session.add_nodes(session.features[:1]),
        ):
            with pytest.raises(OutputError, match="No space left"):
                update()
    assert torch.equal(session.predict(), before)
    assert log_of(tmp_path / "log").stat().st_size == size
    session.add_edges([[1], [2]])
    session.close()
    with nodebits.GraphSession.open(packed, tmp_path / "log") as again:
        assert same(session, again)


# --- kills ---

COUNT = 12


def killed(folder: Path, packed: nodebits.PackedModel, seed: int) -> int:
    """Updates that a process had acknowledged before it was killed in a call of the system."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _work(folder, packed, seed, writes)
        finally:
            os._exit(3)
    os.close(writes)
    with os.fdopen(reads, "rb") as stream_of_child:
        acknowledged = len(stream_of_child.read())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (-signal.SIGKILL, 0)
    return acknowledged


def _work(folder: Path, packed: nodebits.PackedModel, seed: int, writes: int) -> None:
    torch.set_num_threads(1)
    real: dict[str, Callable[..., Any]] = {n: getattr(os, n) for n in ("write", "fsync", "replace")}
    generator = torch.Generator().manual_seed(seed)
    left = int(torch.randint(3, 5 * COUNT, (), generator=generator))

    def deadly(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if name == "write":  # a part of a record
                    part = int(torch.randint(0, len(args[1]) + 1, (), generator=generator))
                    real["write"](args[0], args[1][:part])
                elif seed % 2:  # before or after it
                    real[name](*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*args)

        return call

    session = begun(packed, folder)
    for name in real:
        setattr(os, name, deadly(name))
    updates = torch.Generator().manual_seed(seed)
    for i in range(COUNT):
        step(session, UPDATES[i % len(UPDATES)], updates)
        real["write"](writes, b".")
        if i % 5 == 4:
            session.snapshot()
    os._exit(0)


@pytest.mark.filterwarnings("ignore::nodebits.core.errors.TornLogWarning")
@pytest.mark.parametrize(
    "kills", [5, pytest.param(100, marks=pytest.mark.slow)], ids=lambda count: f"{count} kills"
)
def test_no_acknowledged_update_is_lost(
    kills: int, tmp_path: Path, packed: nodebits.PackedModel
) -> None:
    lost = []
    with threads(1):
        for seed in range(kills):
            folder = tmp_path / str(seed)
            acknowledged = killed(folder, packed, seed)
            with nodebits.GraphSession.open(packed, folder) as found:
                expected = begun(packed, None)
                updates = torch.Generator().manual_seed(seed)
                states = []
                for i in range(COUNT):
                    if i >= acknowledged:
                        states.append(same(found, expected))
                    step(expected, UPDATES[i % len(UPDATES)], updates)
                    if i == acknowledged:
                        break
                # The one that was being made may be there or not.
                if not any([*states, same(found, expected)]):
                    lost.append((seed, acknowledged))
                assert torch.equal(found.predict(), whole(packed, found))
    assert lost == []
