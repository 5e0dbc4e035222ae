"""What a source of data is. Names are looked up before torch is imported; ``load`` needs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from nodebits.core.errors import ConfigError, UnknownNameError
from nodebits.core.registry import SOURCES
from nodebits.data.own.options import OwnOptions

if TYPE_CHECKING:
    from nodebits.data.base import Dataset


@dataclass(frozen=True)
class Request:
    """What is asked for; see ``load_dataset`` for the fields.

    Attributes:
        name: As the user wrote it.
        root: Folder of raw data.
        cache: Folder of processed data.
        split: Which split.
        normalize_features: Whether rows are divided by their sum.
        use_node_attr: Whether node attributes are used.
        task: Name of the task; None where the data say it.
        own: Roles of columns, of data of the user's own.
        seed_given: Seed of a draw, where ``split`` says something else.
    """

    name: str
    root: Path | None = None
    cache: Path | None = None
    split: int | str | None = None
    normalize_features: bool | None = None
    use_node_attr: bool = False
    task: str | None = None
    own: OwnOptions = field(default_factory=OwnOptions)
    seed_given: int | None = None

    def seed(self) -> int:
        """``split`` as the seed of a split that is drawn.

        Raises:
            ConfigError: It is none.
        """
        seed = (self.seed_given or 0) if self.split is None else self.split
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ConfigError(f"split of {self.name} is a seed, 0 or more, not {self.split!r}")
        return seed


class Source(ABC):
    """A source. Derive in one file, decorate with :func:`register_source`.

    Attributes:
        own: Whether it reads the user's own data, whose columns have roles.
    """

    own: ClassVar[bool] = False

    @abstractmethod
    def find(self, name: str, root: Path | None) -> str | None:
        """Returns the canonical name of a data set, or None where it is not this source's.

        A model file carries the canonical name: it holds no path.
        """

    @abstractmethod
    def load(self, request: Request) -> Dataset:
        """Loads a data set that :meth:`find` has found."""

    @abstractmethod
    def names(self) -> dict[str, str]:
        """What can be asked for, with a line each."""


S = TypeVar("S", bound=type[Source])


def register_source(name: str) -> Callable[[S], S]:
    """Class decorator: makes the source known under ``name``."""

    def decorate(cls: S) -> S:
        SOURCES.add(name, cls)
        return cls

    return decorate


def find_source(name: Any, root: Path | None) -> tuple[Source, str]:
    """Returns the source of a data set, and the set's canonical name.

    Args:
        name: As the user wrote it.
        root: Folder of raw data.

    Raises:
        UnknownNameError: No source has it; the message lists the closest names.
        UnsupportedTaskError: It is for a task that no loader of it prepares.
    """
    if not isinstance(name, str):
        raise UnknownNameError(f"name is {name!r} ({type(name).__name__}): pass a string")
    last = "named"  # the one that says what is near to an unknown name
    for kind in [*(k for k in SOURCES.names() if k != last), last]:
        source: Source = SOURCES.get(kind)()
        found = source.find(name, root)
        if found is not None:
            return source, found
    raise AssertionError("the last source finds or raises")


def refuse_roles(source: Source, request: Request) -> None:
    """Refuses roles of columns for data that have none.

    Raises:
        ConfigError: Names the option.
    """
    for name in () if source.own else ("target", "ignore"):
        if getattr(request.own, name):
            raise ConfigError(
                f"{name} is for data of your own (a file or folder), not {request.name}"
            )
