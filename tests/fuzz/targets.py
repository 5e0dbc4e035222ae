"""What is fuzzed: a reader each, with seeds, mutations, and what is done with what was read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from fuzz.bytewise import mutate_bytes
from fuzz.containerwise import Parts
from fuzz.jsonwise import mutate_json
from fuzz.models import MODELS, NODES, graph, inputs_of
from fuzz.runs import FINGERPRINT, new_loop, new_study
from fuzz.tomlwise import mutate_toml
from nodebits import lite, load
from nodebits.cli.toml import load_config
from nodebits.core.errors import NodebitsError
from nodebits.data.pyg import read_raw_npz
from nodebits.runtime import container
from nodebits.search.latency import LatencyTable
from nodebits.train.checkpoint import load_checkpoint

CORPUS = Path(__file__).resolve().parent / "corpus"
LITE_MODELS = CORPUS.parents[1] / "lite" / "models"
# How deep an input got; the last one means that it gave a result.
REFUSED, CHECKED, LOADED, RAN = "refused", "checksums right", "loaded", "ran"


class Target:
    """A reader.

    Attributes:
        name: For the report; the folder of its seeds.
        share: Of all inputs.
        depth: How far the last input got.
    """

    name: str
    share: float
    depth: str = REFUSED
    expected: tuple[type[BaseException], ...] = (NodebitsError,)

    def __init__(self) -> None:
        self.seeds = {path.name: path.read_bytes() for path in sorted(self.files())}
        self.names = list(self.seeds)

    def files(self) -> Iterable[Path]:
        """The seeds."""
        return (CORPUS / self.name).iterdir()

    def input(self, r: random.Random) -> tuple[str, bytes]:
        """Name of a seed, and a file made of it."""
        name = self.seed(r)
        return name, self.mutated(r, name)

    def seed(self, r: random.Random) -> str:
        """Name of the seed that the next input is made of."""
        return r.choice(self.names)

    def mutated(self, r: random.Random, name: str) -> bytes:
        """A file made of this seed."""
        if r.random() < 0.3:
            return mutate_bytes(r, self.seeds[name], self.seeds[r.choice(self.names)])
        text = self.seeds[name].decode()
        return mutate_json(r, text).encode(errors="surrogatepass")

    def warm_up(self, path: Path) -> None:
        """Runs every seed once: PyG and torch make much at the first use of a layer."""
        for name, data in self.seeds.items():
            path.write_bytes(data)
            self.run(name, path)
            if self.depth != RAN:
                raise SystemExit(f"the seed {self.name}/{name} does not run: make them anew")

    def run(self, name: str, path: Path) -> None:
        """Reads the file and uses what it holds; sets :attr:`depth` on the way."""
        raise NotImplementedError


class _Container(Target):
    """A file of :mod:`nodebits.runtime.container`."""

    known = 0.15  # share of the inputs whose mutation knows the form

    def __init__(self) -> None:
        super().__init__()
        self.parts = {name: Parts(data) for name, data in self.seeds.items()}

    def mutated(self, r: random.Random, name: str) -> bytes:
        if r.random() < self.known:
            return self.parts[name].mutated(r)
        return mutate_bytes(r, self.seeds[name], self.seeds[r.choice(self.names)])

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Notes that a file passed its checksums."""
        read = container.read

        def reading(path: str | Path, kind: str) -> Any:
            result = read(path, kind)
            self.depth = CHECKED
            return result

        container.read = reading
        try:
            yield
        finally:
            container.read = read


class ModelFile(_Container):
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


class LiteFile(_Container):
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


class FeaturesFile(_Container):
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


class Checkpoint(_Container):
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
)
