"""Features that were packed ahead of a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import RowQuantizer
from nodebits.graph.reorder import ReorderedGraph


class _FloatsAskedError(ConfigError, AttributeError):
    """So that ``hasattr`` says that there is no such method."""


@dataclass(frozen=True)
class PackedInput:
    """Features packed ahead for every site that reads them; takes the place of ``x``.

    Attributes:
        rows: Packed rows by site path.
        shape: ``(N, C)`` before packing.
        graph: The reordered graph in whose order the rows are, or None for the user's order.
    """

    rows: dict[str, Rows]
    shape: tuple[int, int]
    graph: ReorderedGraph | None = None

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
    packed = x.rows[name]
    if not packed.is_float and not packed.data.transient and not site.made(packed):
        raise ConfigError(
            f"the features were packed for {name} of another model, with other widths or "
            "scales: call pack_input of this model"
        )
    return packed
