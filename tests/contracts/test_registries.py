"""What everything that is found by name keeps: listed without an import, described, looked up.

A new registry joins by one line of ``REGISTRIES``.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from nodebits.core.errors import UnknownNameError
from nodebits.core.registry import METHODS, MODELS, SOURCES, TASKS, Registry


class Listed(NamedTuple):
    """A registry and the command that lists it; ``lists`` is False where it shows more."""

    registry: Registry[Any]
    command: str
    lists: bool = True


REGISTRIES = (
    Listed(METHODS, "methods"),
    Listed(MODELS, "models"),
    Listed(TASKS, "tasks"),
    Listed(SOURCES, "datasets", lists=False),
)
every_registry = pytest.mark.parametrize("listed", REGISTRIES, ids=lambda r: r.command)
every_entry = pytest.mark.parametrize(
    ("registry", "name"),
    [
        pytest.param(r.registry, n, id=f"{r.command}-{n}")
        for r in REGISTRIES
        for n in r.registry.names()
    ],
)


@every_entry
def test_an_entry_says_what_it_is(registry: Registry[Any], name: str) -> None:
    entry = next(one for one in registry.list() if one.name == name)
    assert entry.summary and entry.summary.endswith("."), f"{entry.origin}: a first docstring line"
    assert entry.definition is not None and len(entry.summary) <= 100
    registry.get(name)


@every_entry
def test_a_wrong_name_is_refused_with_the_nearest(registry: Registry[Any], name: str) -> None:
    for wrong in (name + "x", name[:-1] + "_", name.swapcase()):
        with pytest.raises(UnknownNameError, match=f"did you mean '{name}'|, {name}|'{name}'"):
            registry.get(wrong)


@every_registry
def test_no_file_of_its_folder_adds_nothing(listed: Listed) -> None:
    """The decorator is read from the source: a file that names it otherwise would be unlisted."""
    for entry in listed.registry.listed.values():
        assert entry.origin.startswith("nodebits." + listed.registry.folder.replace("/", "."))
        listed.registry.get(entry.name)
    assert set(listed.registry._values) >= set(listed.registry.listed)


@every_registry
def test_the_command_lists_them(listed: Listed, run: Any) -> None:
    shown = run(listed.command, "--json").json()
    assert shown and all(isinstance(text, str) and text for text in shown.values())
    if listed.lists:
        assert list(shown) == listed.registry.names()
    table = run(listed.command)
    assert table.code == 0 and all(name in table.out for name in shown)
    assert json.dumps(shown)
