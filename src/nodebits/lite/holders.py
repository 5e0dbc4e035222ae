"""Arguments that hold arrays by type: dictionaries, in place of those and of PyG's ``Data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..core.errors import ConfigError, FileFormatError, UnknownNameError


class Named(Protocol):
    """An input of a model."""

    @property
    def name(self) -> str:
        """Of the input."""

    @property
    def is_graph(self) -> bool:
        """Whether it is an edge index."""


@dataclass
class Holder:
    """An argument of ``predict``.

    Attributes:
        name: Its name.
        inputs: Places among the inputs, by keys in it; by no key where it holds no others.
        known: Keys by which it may hold what the model does not take.
    """

    name: str
    inputs: dict[tuple[Any, ...], int] = field(default_factory=dict)
    known: set[tuple[Any, ...]] = field(default_factory=set)


def holders_of(arguments: Sequence[Mapping[str, Any]], inputs: Sequence[Named]) -> list[Holder]:
    """The arguments of a plan; none where no argument holds others.

    Args:
        arguments: Of the plan.
        inputs: Of the model.

    Raises:
        FileFormatError: If they are no arguments; C reads them for packed features only.
    """
    _check(arguments)
    places = [as_key(one.get("place")) for one in arguments]
    if not any(isinstance(place, tuple) for place in places):
        return []
    numbers = {item.name: i for i, item in enumerate(inputs)}
    found: dict[int | str, Holder] = {}
    for place, argument in zip(places, arguments, strict=True):
        top, *keys = place if isinstance(place, tuple) else (place,)
        name = str(argument["name"])
        holder = found.setdefault(top, Holder(top_name(name)))
        path = tuple(as_key(key) for key in keys)
        holder.known.add(path)
        for input_name, number in numbers.items():
            if input_name == name or input_name.startswith(f"{name}/"):
                holder.inputs[(*path, *input_name[len(name) :].split("/")[1:])] = number
    return list(found.values())


def _check(arguments: Any) -> None:
    if not isinstance(arguments, list):
        raise FileFormatError(f"the plan's arguments are {str(arguments)[:60]!r}, not a list")
    for number, one in enumerate(arguments):
        where = f"argument {number} of the plan"
        if not isinstance(one, Mapping) or not isinstance(one.get("name"), str):
            raise FileFormatError(f"{where} has no name")
        place = one.get("place")
        if place == [] or not _is_key(place):
            raise FileFormatError(f"{where} has the place {str(place)[:60]!r}")


def _is_key(key: Any) -> bool:
    if isinstance(key, list):
        return all(map(_is_key, key))
    return key is None or isinstance(key, str | int | float)


def top_name(name: str) -> str:
    """Name of the argument that holds an input."""
    return name.partition("[")[0].partition(".")[0]


def as_key(key: Any) -> Any:
    """A key, of what stands for it in JSON."""
    return tuple(as_key(part) for part in key) if isinstance(key, list) else key


def taken_apart(
    holders: Sequence[Holder], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """An array per input, None where there is none.

    Args:
        holders: The arguments of the model.
        args: What was given by position.
        kwargs: What was given by name.

    Raises:
        ConfigError: If there are too many, one was given twice, or is no dictionary.
        UnknownNameError: If the model does not take one of that name or type.
    """
    given = _by_holder(holders, args, kwargs)
    count = 1 + max((i for holder in holders for i in holder.inputs.values()), default=-1)
    found: list[Any] = [None] * count
    for holder in holders:
        value = given.get(holder.name)
        if value is None:
            continue
        if () in holder.known:
            for number in holder.inputs.values():
                found[number] = value
            continue
        for path, array in _leaves(holder, value):
            if path in holder.inputs:
                found[holder.inputs[path]] = array
            elif path not in holder.known:
                known = [_shown(one) for one in holder.known]
                raise UnknownNameError.for_name(f"key of {holder.name}", _shown(path), known)
    return tuple(found)


def _by_holder(
    holders: Sequence[Holder], args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    names = [holder.name for holder in holders]
    if len(args) > len(holders):
        raise ConfigError(f"predict got {len(args)} arguments, the model takes {', '.join(names)}")
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name in given:
            raise ConfigError(f"predict got {name} twice, by place and by name")
        if name not in names:
            raise UnknownNameError.for_name("input", name, names)
        given[name] = value
    return given


def _leaves(holder: Holder, value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """What a dictionary holds, by its keys; as deep as those of the model go."""
    depth = max(map(len, holder.known))
    found: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    for _ in range(depth):
        further: list[tuple[tuple[Any, ...], Any]] = []
        for path, held in found:
            if path in holder.known:
                further.append((path, held))
            elif isinstance(held, Mapping):
                further += [((*path, key), part) for key, part in held.items()]
            else:
                where = f"{holder.name}{''.join(f'[{key!r}]' for key in path)}"
                raise ConfigError(
                    f"{where} is a {type(held).__name__}: expected a dictionary by type, with "
                    + ", ".join(_shown(one[len(path) :]) for one in holder.known)
                )
        found = further
    return found


def _shown(path: tuple[Any, ...]) -> str:
    return " ".join(",".join(key) if isinstance(key, tuple) else str(key) for key in path)


def graph_of_type(holders: Sequence[Holder], of: tuple[str, ...], inputs: Sequence[Named]) -> str:
    """Name of the input that is the edges of a type.

    Raises:
        UnknownNameError: If there is none.
    """
    known = {}
    for holder in holders:
        for path, number in holder.inputs.items():
            types = [key for key in path if isinstance(key, tuple)]
            if types and inputs[number].is_graph:
                known[types[0]] = inputs[number].name
    if of not in known:
        raise UnknownNameError.for_name("edge type", _shown((of,)), [_shown((k,)) for k in known])
    return known[of]
