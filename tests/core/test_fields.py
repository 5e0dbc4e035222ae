"""Settings refuse values of another type, whatever the class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from nodebits.core.errors import ConfigError
from nodebits.core.fields import check_fields
from nodebits.jobs.quantize_config import JobConfig
from nodebits.jobs.search import SearchConfig
from nodebits.methods import make_config, method_names


@dataclass(frozen=True)
class Settings:
    count: int = 1
    rate: float = 0.5
    limit: float | None = None
    name: Literal["one", "two"] = "one"
    folder: Path | None = None
    flag: bool = False
    table: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    steps: tuple[int, ...] = ()
    anything: Any = None

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    "given",
    [
        {"count": 0},
        {"rate": 1},
        {"limit": None},
        {"limit": -2.5},
        {"name": "two"},
        {"folder": Path("x")},
        {"table": {"a": 1, "b": [1, 2], "c": (3,)}},
        {"steps": (1, 2)},
        {"anything": object()},
    ],
)
def test_values_of_the_right_type(given: dict[str, Any]) -> None:
    Settings(**given)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", True, "whole number"),
        ("count", 2.0, "whole number"),
        ("count", "2", "whole number"),
        ("count", None, "whole number"),
        ("rate", "0.5", "finite number"),
        ("rate", True, "finite number"),
        ("rate", float("nan"), "finite number"),
        ("limit", float("inf"), "finite number or None"),
        ("name", "three", "'one' or 'two'"),
        ("folder", "x", "path or None"),
        ("flag", 1, "True or False"),
        ("table", {"a": 1.5}, "mapping of a string"),
        ("table", {"a": [True]}, "mapping of a string"),
        ("table", {1: 1}, "mapping of a string"),
        ("table", [("a", 1)], "mapping of a string"),
        ("steps", [1], "sequence of a whole number"),
        ("steps", (1, "2"), "sequence of a whole number"),
    ],
)
def test_values_of_another_type(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is ") as caught:
        Settings(**{name: value})
    assert expected in str(caught.value)


def wrong_values(hint: str) -> list[Any]:
    wrong: list[Any] = [object(), ["x"]]
    if "str" not in hint:
        wrong.append("4")
    if "bool" not in hint:
        wrong.append(True)
    if "float" in hint:
        wrong += [float("nan"), float("inf")]
    elif "int" in hint:
        wrong.append(4.0)
    return wrong


def cases() -> list[Any]:
    """Every field of every method and job with every kind of wrong value."""
    makers: list[tuple[str, Any, Any]] = [
        (name, type(make_config(name)), lambda name=name, **o: make_config(name, **o))
        for name in method_names()
    ]
    makers.append(("job", JobConfig, lambda **o: JobConfig(**{"out": Path("x"), **o})))
    makers.append(("search", SearchConfig, lambda **o: SearchConfig(**{"out": Path("x"), **o})))
    return [
        pytest.param(make, f.name, value, id=f"{label}-{f.name}-{value!r:.12}")
        for label, cls, make in makers
        for f in dataclasses.fields(cls)
        for value in wrong_values(str(f.type))
    ]


@pytest.mark.parametrize(("make", "name", "value"), cases())
def test_every_field_of_every_method_and_job(make: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        make(**{name: value})


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'message_bits'"):
        make_config("uniform", mesage_bits=4)
