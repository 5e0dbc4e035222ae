"""Readers of what is beyond one machine and one moment: rows, parts of graphs, logs of sessions."""

from __future__ import annotations

import random
import shutil
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fuzz.bytewise import mutate_bytes
from fuzz.models import NODES
from fuzz.target import CORPUS, LOADED, ContainerTarget, Target
from nodebits import GraphSession, PackedFeatures, load
from nodebits.distributed.files import CONTENTS, read_part
from nodebits.distributed.run import run_part
from nodebits.session.records import KINDS, Update, encoded, head_of

MODEL = CORPUS / "model" / "gcn"
_NUMBERS = (-1, 0, 1, NODES - 1, NODES, 255, 2**31, 2**62, -(2**63))
_FLOATS = (float("nan"), float("inf"), -1e30, 0.0, 1e38)


class RowsFile(ContainerTarget):
    """Packed features in a file of their own, which is mapped."""

    name, share = "rows", 0.05

    def run(self, name: str, path: Path) -> None:
        features = PackedFeatures(path)
        self.depth = LOADED
        features[:]
        features[[0, len(features) - 1]]
        self.depth = "ran"


class PartFile(ContainerTarget):
    """The part of a rank; that of one rank is run."""

    name, share = "part", 0.04
    known = 0.6

    def __init__(self) -> None:
        super().__init__()
        self.model = load(MODEL)

    def files(self) -> Iterator[Path]:
        return (path for path in (CORPUS / self.name).iterdir() if path.suffix != ".json")

    def run(self, name: str, path: Path) -> None:
        with placed(path, "part") as folder:
            shutil.copy(path, folder / "part-0.safetensors")
            shutil.copy(CORPUS / self.name / f"{name}.json", folder / CONTENTS)
            with self.counted():
                loaded = read_part(folder, 0)
        self.depth = LOADED
        if name == "alone":
            run_part(self.model, loaded)
        self.depth = "ran"


class PartitionFile(Target):
    """What a folder of parts says of itself."""

    name, share = "partition", 0.02

    def run(self, name: str, path: Path) -> None:
        with placed(path, "partition") as folder:
            shutil.copy(path, folder / CONTENTS)
            shutil.copy(CORPUS / "part" / "alone", folder / "part-0.safetensors")
            read_part(folder, 0)
        self.depth = "ran"


class _Session(Target):
    """A folder of a session, one of whose files is changed."""

    changed: str

    def __init__(self) -> None:
        super().__init__()
        self.model = load(MODEL)

    def run(self, name: str, path: Path) -> None:
        with placed(path, self.name) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a torn end is cut off
            for kind, end in (("snapshot", "safetensors"), ("updates", "log")):
                file = path if kind == self.changed else CORPUS / kind / "gcn"
                shutil.copy(file, folder / f"{kind}-{0:020d}.{end}")
            with GraphSession.open(self.model, folder) as session:
                self.depth = LOADED
                session.predict()
        self.depth = "ran"


class SnapshotFile(_Session, ContainerTarget):
    """The state that a session begins with."""

    name, share, changed = "snapshot", 0.02, "snapshot"


class LogFile(_Session):
    """The updates of a session."""

    name, share, changed = "updates", 0.04, "updates"

    def mutated(self, r: random.Random, name: str) -> bytes:
        data = self.seeds[name]
        if r.random() < 0.4:
            return mutate_bytes(r, data, data)
        records, at = [], 0
        while (head := head_of(memoryview(data)[at:])) is not None:
            records.append(data[at : at + head.record_bytes])
            at += head.record_bytes
        kept = r.randrange(len(records) + 1)
        made = [encoded(kept + 1 + i, _update(r)) for i in range(r.choice((1, 1, 2, 4)))]
        if r.random() < 0.2:  # one that no update is, with its checksums right
            made[-1] = _bent(r, made[-1])
        return b"".join(records[:kept] + made)


def _update(r: random.Random) -> Update:
    """One that nobody checked."""

    def numbers(*shape: int) -> torch.Tensor:
        values = [r.choice(_NUMBERS) if r.random() < 0.3 else r.randrange(NODES)
                  for _ in range(torch.Size(shape).numel())]  # fmt: skip
        return torch.tensor(values, dtype=torch.int64).view(shape)

    count, width = r.choice((0, 1, 2, 5)), r.choice((0, 1, 6, 6, 6, 7))
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(r.getrandbits(30)))
    if rows.numel() and r.random() < 0.3:
        rows.view(-1)[r.randrange(rows.numel())] = r.choice(_FLOATS)
    choices = [numbers(2, count), numbers(count), rows, rows[:, :1].reshape(-1), numbers(count, 2)]
    given = r.choices(choices, k=r.choice((0, 1, 1, 2, 3)))
    if r.random() < 0.6:
        given = {"add_edges": choices[:1], "remove_edges": choices[:1], "add_nodes": [rows],
                 "remove_nodes": choices[1:2], "set_features": choices[1:3]}[
            kind := r.choice(KINDS)]  # fmt: skip
        return Update(kind, tuple(given))
    return Update(r.choice(KINDS), tuple(given))


def _bent(r: random.Random, record: bytes) -> bytes:
    """The record with another payload and the checksums of that."""
    import zlib

    head = head_of(memoryview(record))
    assert head is not None
    begin = len(record) - head.size - len(head.end)
    payload = mutate_bytes(r, record[begin : begin + head.size], record)
    start = struct.pack("<4sIQI", record[:4], len(payload), head.number, zlib.crc32(payload))
    return start + struct.pack("<I", zlib.crc32(start)) + payload + head.end


@contextmanager
def placed(path: Path, name: str) -> Iterator[Path]:
    """A folder for one input."""
    folder = path.parent / f"{path.name}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
