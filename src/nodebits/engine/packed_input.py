"""Features that were packed ahead of a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import RowQuantizer
from nodebits.graph.reorder import ReorderedGraph
from nodebits.ops import host


class _FloatsAskedError(ConfigError, AttributeError):
    """So that ``hasattr`` says that there is no such method."""


@dataclass(frozen=True)
class PackedInput:
    """Features packed ahead for every site that reads them; takes the place of ``x``.

    Attributes:
        rows: Packed rows by site path.
        shape: ``(N, C)`` before packing.
        graph: The reordered graph in whose order the rows are, or None for the user's order.
        reader: The device that reads the rows in the host's memory, after :meth:`on_host`.
    """

    rows: dict[str, Rows]
    shape: tuple[int, int]
    graph: ReorderedGraph | None = None
    reader: torch.device | None = None

    def __post_init__(self) -> None:
        """Checks that all rows are of the matrix that was packed.

        Raises:
            ShapeError: Names the site whose rows are others.
        """
        for name, rows in self.rows.items():
            if tuple(rows.shape) != tuple(self.shape):
                raise ShapeError(
                    f"the packed rows of site {name} are {list(rows.shape)}, those of the features "
                    f"{list(self.shape)}: pack all of them from one matrix"
                )

    def selected(self, index: Tensor) -> PackedInput:
        """Some of the rows, int64 ``[n]``, packed as they are; those of a user's order only."""
        rows = {name: rows.selected(index) for name, rows in self.rows.items()}
        return PackedInput(rows, (index.numel(), self.shape[1]))

    def on_host(self, device: torch.device | str) -> PackedInput:
        """These rows in the host's memory, from which a device takes those that it needs.

        They are copied once, to pinned memory, unless the device is the CPU. For
        :meth:`nodebits.PackedModel.predict_nodes` of a model on that device.

        Args:
            device: That of the model, such as ``"cuda"``.

        Raises:
            ConfigError: If the device is not there or cannot read the host's memory (says why), if
                the rows are on a device, or in the order of a reordered graph.
            OutOfMemoryError: If they cannot be pinned.
        """
        if self.graph is not None:
            raise ConfigError(
                "the features were packed for a reordered graph, which is not sampled: call "
                "pack_input without it"
            )
        there = host.reader(device)
        if there.type == "cpu":
            return PackedInput(self.rows, self.shape, reader=there)
        placed: dict[int, Rows] = {}  # several sites may read the same rows
        for rows in self.rows.values():
            if id(rows) not in placed:
                placed[id(rows)] = rows.on_host(there)
        rows_of = {name: placed[id(rows)] for name, rows in self.rows.items()}
        return PackedInput(rows_of, self.shape, reader=there)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch makes of features: a dropout that drops nothing leaves them as they are.

        Raises:
            ConfigError: Names what else a forward computes with them.
        """
        options = kwargs or {}
        if function is functional.dropout and not (options["training"] and options["p"]):
            return args[0]
        raise _floats_asked(getattr(function, "__name__", str(function)))

    def __getattr__(self, name: str) -> Any:
        """Called where there is no such attribute: refuses what a tensor has, by its name."""
        if hasattr(Tensor, name) and not name.startswith("__"):
            raise _floats_asked(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def is_apart(self) -> bool:
        """Whether the rows lie in the host's memory, and a device of its own reads them there."""
        return self.reader is not None and self.reader.type != "cpu"

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(rows.nbytes for rows in self.rows.values())


def _floats_asked(what: str) -> ConfigError:
    return _FloatsAskedError(
        f"the forward computes {what!r} of features that were packed ahead, which are no floats: "
        "pass the float matrix"
    )


def packed_ahead(site: RowQuantizer, x: PackedInput, row_factor: Tensor | None = None) -> Rows:
    """The rows that were packed for ``site``.

    Raises:
        ConfigError: If there are none, or another model's.
    """
    name = site.site_name
    if name not in x.rows or row_factor is not None:
        raise ConfigError(
            f"the features were packed for {', '.join(x.rows)}, but {name or 'another site'} reads "
            "them: call pack_input of this model"
        )
    if x.is_apart:
        raise ConfigError(
            f"the features lie in the host's memory, from which {x.reader} takes the rows that "
            "predict_nodes asks for; a forward over all nodes needs them on the device"
        )
    packed = x.rows[name]
    if not packed.is_float and not packed.data.transient and not site.made(packed):
        raise ConfigError(
            f"the features were packed for {name} of another model, with other widths or "
            "scales: call pack_input of this model"
        )
    return packed
