"""Settings refuse values of another type, whatever the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from nodebits.core.errors import ConfigError
from nodebits.core.fields import check_fields


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
