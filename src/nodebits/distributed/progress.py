"""Finished layers of a run, so that another one goes on where this one ended."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from nodebits.core.errors import FileFormatError
from nodebits.runtime import container

# Ranks are at most one layer apart when one ends: all wait for each other in every layer.
_KEPT = 2


class Progress:
    """Files of one rank; what they hold is told by the model, the plan and the parts.

    Args:
        folder: Of the parts.
        rank: Whose files they are.
        key: Of all that results depend on.
    """

    def __init__(self, folder: Path, rank: int, key: str) -> None:
        self._folder, self._rank = folder / "progress", rank
        self._key = hashlib.sha256(key.encode()).hexdigest()[:16]

    def layers(self) -> list[int]:
        """Layers that are whole in files, ascending."""
        names = self._folder.glob(f"{self._key}-{self._rank}-*.safetensors")
        return sorted(int(path.stem.rpartition("-")[2]) for path in names)

    def save(self, layer: int, values: dict[int, Tensor]) -> None:
        """Keeps what layer ``layer`` and later ones read."""
        tensors = {str(number): value for number, value in values.items()}
        about = {"progress": {"layer": layer, "key": self._key}}
        container.write(self._file(layer), container.PROGRESS, about, tensors)
        self._remove(layer - _KEPT)

    def load(self, layer: int) -> dict[int, Tensor]:
        """What :meth:`save` kept.

        Raises:
            FileFormatError: A file is damaged.
        """
        header, tensors = container.read(self._file(layer), container.PROGRESS)
        if header.get("progress") != {"layer": layer, "key": self._key}:
            raise FileFormatError(f"{self._file(layer)} is of another run: delete it")
        return {int(name): value for name, value in tensors.items()}

    def clear(self) -> None:
        """Removes all files: the run is over."""
        for layer in self.layers():
            self._remove(layer)
        with suppress(OSError):  # files of others are there
            self._folder.rmdir()

    def _remove(self, layer: int) -> None:
        self._file(layer).unlink(missing_ok=True)

    def _file(self, layer: int) -> Path:
        return self._folder / f"{self._key}-{self._rank}-{layer}.safetensors"
