"""Dictionaries by type among the arguments of a model."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from nodebits.lite import errors
from nodebits.lite.holders import graph_of_type, holders_of, taken_apart


class _Input(NamedTuple):
    name: str
    is_graph: bool = False


CITES = ("paper", "cites", "paper")
ARGUMENTS: list[dict[str, Any]] = [
    {"place": [0, "paper"], "name": "x_dict[paper]"},
    {"place": [0, "author"], "name": "x_dict[author]"},
    {"place": [1, list(CITES)], "name": "edge_index_dict[paper,cites,paper]"},
    {"place": "scale", "name": "scale"},
]
INPUTS = [_Input("edge_index_dict[paper,cites,paper]", True), _Input("x_dict[paper]")]
HOLDERS = holders_of(ARGUMENTS, INPUTS)


def test_plain_arguments_have_no_holders() -> None:
    assert holders_of([{"place": 0, "name": "x"}], [_Input("x")]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        {},
        1.5,
        [1],
        ["x"],
        [{"place": 0}],
        [{"place": 0, "name": 1}],
        [{"place": [], "name": "x"}],
        [{"place": [0, {}], "name": "x"}],
        [{"place": [0, [{}]], "name": "x"}],
        [{"place": {}, "name": "x"}],
    ],
)
def test_arguments_that_are_none(arguments: Any) -> None:
    with pytest.raises(errors.FileFormatError, match="plan"):
        holders_of(arguments, [_Input("x")])


def test_arrays_go_to_their_inputs() -> None:
    assert taken_apart(HOLDERS, ({"paper": 1, "author": 2}, {CITES: 3}), {}) == (3, 1)
    assert taken_apart(HOLDERS, (), {"x_dict": {"paper": 1}}) == (None, 1)


def test_data_is_two_dictionaries_deep() -> None:
    arguments = [
        {"place": [0, "paper", "x"], "name": "data[paper].x"},
        {"place": [0, list(CITES), "edge_index"], "name": "data[paper,cites,paper].edge_index"},
    ]
    inputs = [_Input(one["name"], "edge" in one["name"]) for one in arguments]
    holders = holders_of(arguments, inputs)
    given = {"paper": {"x": 1}, CITES: {"edge_index": 2}}
    assert taken_apart(holders, (given,), {}) == (1, 2)
    assert graph_of_type(holders, CITES, inputs) == inputs[1].name
    with pytest.raises(errors.ConfigError, match=r"data\['paper'\] is a int"):
        taken_apart(holders, ({"paper": 3},), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "told"),
    [
        (({"venue": 1},), {}, errors.UnknownNameError, "venue"),
        ((1,), {}, errors.ConfigError, "expected a dictionary by type"),
        ((), {"y": 1}, errors.UnknownNameError, "y"),
        (({},), {"x_dict": {}}, errors.ConfigError, "twice"),
        (({}, {}, 1, 2), {}, errors.ConfigError, "4 arguments"),
    ],
)
def test_what_does_not_fit_is_told(
    args: tuple[Any, ...], kwargs: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        taken_apart(HOLDERS, args, kwargs)


def test_graphs_by_the_type_of_their_edges() -> None:
    assert graph_of_type(HOLDERS, CITES, INPUTS) == INPUTS[0].name
    with pytest.raises(errors.UnknownNameError, match="paper,cites,paper"):
        graph_of_type(HOLDERS, ("paper", "cites", "venue"), INPUTS)
