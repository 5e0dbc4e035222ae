"""What a reader under test is: its seeds, mutations, and what is done with what was read."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz.bytewise import mutate_bytes
from fuzz.containerwise import Parts, built_folded
from fuzz.jsonwise import mutate_json
from nodebits.core.errors import NodebitsError
from nodebits.runtime import container

CORPUS = Path(__file__).resolve().parent / "corpus"
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


class ContainerTarget(Target):
    """A file of :mod:`nodebits.runtime.container`."""

    known = 0.15  # share of the inputs whose mutation knows the form

    def __init__(self) -> None:
        super().__init__()
        self.parts = {name: Parts(data) for name, data in self.seeds.items()}
        # Seeds in both forms, where there are two.
        self.forms = {
            name: [data, built_folded(self.parts[name])] if self.parts[name].folds else [data]
            for name, data in self.seeds.items()
        }

    def mutated(self, r: random.Random, name: str) -> bytes:
        if r.random() < self.known:
            return self.parts[name].mutated(r)
        data, other = (r.choice(self.forms[n]) for n in (name, r.choice(self.names)))
        return mutate_bytes(r, data, other)

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
