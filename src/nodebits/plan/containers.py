"""Arguments that hold others: dictionaries by type of node or edge, and PyG's ``Data`` objects.

What they hold is an argument of its own, whose place is that of the container and its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch_geometric.data import Data, HeteroData

Type = str | tuple[str, ...]
# A position or name, or one of a container and keys in it.
Place = int | str | tuple[Any, ...]


class Unfit(Exception):
    """A container that is not looked into; the message says why."""


@dataclass(frozen=True)
class Container:
    """An argument that holds others.

    Attributes:
        kind: Its class.
        types: Of nodes and edges, in order, also those of which it holds nothing.
    """

    kind: Any
    types: tuple[Type, ...] = ()

    def made(self) -> Any:
        """An empty one."""
        value = self.kind()
        if self.kind is HeteroData:
            for one in self.types:
                value[one]  # makes its store
        return value


class Leaf(NamedTuple):
    """What is no container.

    Attributes:
        place: Where it is.
        name: What messages and files call it.
        key: What it is called where it lies; tells features, edges and weights.
        of: The type that it is of; ``""`` where nothing is by type, None for what is in no
            container.
        value: Itself.
    """

    place: Place
    name: str
    key: str
    of: Type | None
    value: Any


def is_container(value: Any) -> bool:
    """Whether :func:`leaves_of` looks into it."""
    return type(value) in (dict, Data, HeteroData)


def leaves_of(top: int | str, name: str, value: Any) -> tuple[Container | None, list[Leaf]]:
    """An argument taken apart.

    Args:
        top: Its position, or its name.
        name: Its name.
        value: Itself.

    Raises:
        Unfit: If it holds what has no place by type.
    """
    if type(value) is dict:
        types = tuple(value)
        for key in types:
            if not is_type(key):
                raise Unfit(f"{name!r} has the key {key!r}, which is no type of nodes or edges")
        found = [Leaf((top, k), f"{name}[{shown(k)}]", name, k, v) for k, v in value.items()]
        return Container(dict, types), found
    if type(value) is Data:
        stores: list[tuple[Type, Any]] = [("", value)]
    elif type(value) is HeteroData:
        stores = [*value.node_items(), *value.edge_items()]
    else:
        return None, [Leaf(top, name, name, None, value)]
    found = []
    for of, store in stores:
        where = (top, of) if of else (top,)
        which = f"[{shown(of)}]" if of else ""
        found += [Leaf((*where, k), f"{name}{which}.{k}", k, of, store[k]) for k in store.keys()]
    return Container(type(value), tuple(of for of, _ in stores if of)), found


def is_type(key: Any) -> bool:
    """Whether a key may be that of a type of nodes or edges."""
    if isinstance(key, tuple):
        return len(key) in (2, 3) and all(isinstance(part, str) for part in key)
    return isinstance(key, str)


def shown(of: Type) -> str:
    """A type in a name, where a slash has another meaning."""
    text = of if isinstance(of, str) else ",".join(of)
    return text.replace("%", "%25").replace("/", "%2F")


def put_together(
    containers: Mapping[int | str, Container], values: Iterable[tuple[Place, Any]]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by position and by name, of what they hold.

    Args:
        containers: Those that hold others.
        values: By place, in order.
    """
    made: dict[int | str, Any] = {top: one.made() for top, one in containers.items()}
    for place, value in values:
        if not isinstance(place, tuple):
            made[place] = value
        elif len(place) == 3:
            made[place[0]][place[1]][place[2]] = value
        else:
            made[place[0]][place[1]] = value
    args = [made[i] for i in sorted(top for top in made if isinstance(top, int))]
    return args, {top: value for top, value in made.items() if isinstance(top, str)}


def at_place(args: Sequence[Any], keywords: Mapping[str, Any], place: Place) -> Any:
    """What lies at a place."""
    if not isinstance(place, tuple):
        return args[place] if isinstance(place, int) else keywords[place]
    value = args[place[0]] if isinstance(place[0], int) else keywords[place[0]]
    for key in place[1:]:
        value = value[key]
    return value


class Noting(dict[str, Any]):
    """What a ``Data`` has of one type, which notes what of it is read.

    Args:
        values: What it has.
        where: Place of the store.
        reads: Takes the places of what was asked for, whether it is there or not.
    """

    def __init__(
        self, values: Mapping[str, Any], where: tuple[Any, ...], reads: set[Place]
    ) -> None:
        super().__init__(values)
        self._where, self._reads = where, reads

    def _note(self, key: Any) -> None:
        self._reads.add((*self._where, key))

    def _note_all(self) -> None:
        for key in (*super().keys(), ALL):
            self._note(key)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self._note_all()
        return super().__iter__()

    def keys(self) -> Any:
        self._note_all()
        return super().keys()

    def values(self) -> Any:
        self._note_all()
        return super().values()

    def items(self) -> Any:
        self._note_all()
        return super().items()

    def __len__(self) -> int:
        self._note_all()
        return super().__len__()


# In place of a key: which ones there are was asked for.
ALL = "*"


def note_reads(top: int | str, data: Any, reads: set[Place]) -> None:
    """Notes from here on what is read of a ``Data`` that is an argument.

    Args:
        top: Its position, or its name.
        data: Itself.
        reads: Takes the places of what was asked for.
    """
    if type(data) is Data:
        stores: list[tuple[tuple[Any, ...], Any]] = [((top,), data._store)]
    elif type(data) is HeteroData:
        found = [*data.node_items(), *data.edge_items()]
        stores = [((top, of), store) for of, store in found]
        stores.append(((top,), data._global_store))
    else:
        return
    for where, store in stores:
        vars(store)["_mapping"] = Noting(store._mapping, where, reads)
