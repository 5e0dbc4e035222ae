"""What is fuzzed: a reader each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from fuzz.large import LogFile, PartFile, PartitionFile, RowsFile, SnapshotFile
from fuzz.models import MODELS, NODES, graph, inputs_of
from fuzz.runs import FINGERPRINT, new_loop, new_study
from fuzz.target import CORPUS, LOADED, RAN, ContainerTarget, Target
from fuzz.tomlwise import mutate_toml
from nodebits import lite, load
from nodebits.cli.toml import load_config
from nodebits.core.errors import NodebitsError
from nodebits.data.pyg import read_raw_npz
from nodebits.search.latency import LatencyTable
from nodebits.train.checkpoint import load_checkpoint

LITE_MODELS = CORPUS.parents[1] / "lite" / "models"


class ModelFile(ContainerTarget):
    """Model files; what loads is run."""

    name, share = "model", 0.27

    def __init__(self) -> None:
        super().__init__()
        self.floats = {n: None if m.spec else m.float() for n, m in MODELS.items()}
        self.floats["version1_gcn"] = None
        self.inputs = {n: inputs_of(n) for n in MODELS}
        generator = torch.Generator().manual_seed(0)
        wide = torch.randn(NODES, 12, generator=generator)
        self.inputs["version1_gcn"] = (wide, graph()[1])

    def seed(self, r: random.Random) -> str:
        # A model of one layer reaches everything but the layers of others, at a tenth of the cost.
        return "linear" if r.random() < 0.9 else r.choice(self.names)

    def run(self, name: str, path: Path) -> None:
        with self.counted():
            model = load(path, self.floats[name])
        self.depth = LOADED
        model.predict(*self.inputs[name])
        self.depth = RAN


class LiteFile(ContainerTarget):
    """Model files as C reads them; the plan of what loads is run."""

    name, share = "lite", 0.1
    known = 0.7  # the damage that checksums find is soon tried

    def __init__(self) -> None:
        super().__init__()
        self.inputs = {}
        for path in self.files():
            kept = np.load(path.with_suffix(".npz"))
            first = {key.partition("/")[2]: kept[key] for key in kept if key.startswith("0/")}
            first.pop("result")
            self.inputs[path.name] = tuple(first.values())

    def files(self) -> Iterable[Path]:
        return LITE_MODELS.glob("*.safetensors")

    def run(self, name: str, path: Path) -> None:
        model = lite.load(path, threads=1)
        self.depth = LOADED
        model.predict(*self.inputs[name])
        self.depth = RAN


class FeaturesFile(ContainerTarget):
    """Files of packed features; what loads is given to its model."""

    name, share = "features", 0.25

    def __init__(self) -> None:
        super().__init__()
        floats = {n: None if MODELS[n].spec else MODELS[n].float() for n in self.names}
        self.models = {n: load(CORPUS / "model" / n, floats[n]) for n in self.names}
        self.rest = {n: inputs_of(n)[1:] for n in self.names}

    def run(self, name: str, path: Path) -> None:
        with self.counted():
            rows = self.models[name].load_input(path)
        self.depth = LOADED
        self.models[name].predict(rows, *self.rest[name])
        self.depth = RAN


class Checkpoint(ContainerTarget):
    """Checkpoints; what loads continues its run for an epoch."""

    name, share = "checkpoint", 0.05

    def run(self, name: str, path: Path) -> None:
        with self.counted():
            state = load_checkpoint(path, FINGERPRINT)
        if state is None:
            return
        loop = new_loop(name)
        loop.restore(state)
        self.depth = LOADED
        loop.train_epoch(lambda: False)
        loop.validate()
        self.depth = RAN


class StudyFile(Target):
    """Files of a search."""

    name, share = "study", 0.18

    def __init__(self) -> None:
        super().__init__()
        self.study = new_study()

    def run(self, name: str, path: Path) -> None:
        self.study.path = path
        self.study.resume()
        self.depth = LOADED
        self.study.best()
        self.study.front()
        self.depth = RAN


class CostsFile(Target):
    """Tables of kernel costs."""

    name, share = "costs", 0.225

    def run(self, name: str, path: Path) -> None:
        table = LatencyTable.read(path)
        self.depth = LOADED
        table.predict(_Space(), (8, 4))  # type: ignore[arg-type]
        self.depth = RAN


class ConfigFile(Target):
    """The file of options of ``nodebits quantize``."""

    name, share = "config", 0.02

    def __init__(self) -> None:
        from typer.main import get_command

        from nodebits.cli.app import app

        super().__init__()
        self.command: Any = get_command(app).commands["quantize"]  # type: ignore[attr-defined]
        self.context = self.command.make_context("quantize", ["--out", "out"])
        # typer brings its own classes of click's errors.
        self.expected = (NodebitsError, typer.BadParameter.__mro__[1])

    def mutated(self, r: random.Random, name: str) -> bytes:
        return mutate_toml(r, self.seeds[name])

    def run(self, name: str, path: Path) -> None:
        self.context.default_map = None
        load_config(self.context, path)
        self.depth = LOADED
        # The values pass the checks that they would pass on the command line.
        self.command.make_context("quantize", ["--out", "out", "--config", str(path)])
        self.depth = RAN


class DataFile(Target):
    """Sparse data sets."""

    name, share = "data", 0.005

    def mutated(self, r: random.Random, name: str) -> bytes:
        from fuzz.npzwise import mutate_npz

        return mutate_npz(r, self.seeds[name])

    def run(self, name: str, path: Path) -> None:
        data = read_raw_npz(path, "fuzz")
        self.depth = LOADED
        data.validate()
        self.depth = RAN


class _Space:
    """Two sites, one of them with a width per degree."""

    def table(self, point: Any) -> dict[str, Any]:
        return {"a": 4, "b": [8, 4, 1]}


TARGETS: tuple[Callable[[], Target], ...] = (
    ModelFile,
    LiteFile,
    FeaturesFile,
    Checkpoint,
    StudyFile,
    CostsFile,
    ConfigFile,
    DataFile,
    RowsFile,
    PartFile,
    PartitionFile,
    SnapshotFile,
    LogFile,
)
