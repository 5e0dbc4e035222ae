"""What every source of data keeps: names that find themselves, data that fit, wrong names."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodebits.core.errors import DataNotFoundError, NodebitsError, UnknownNameError
from nodebits.core.registry import SOURCES
from nodebits.data import dataset_names, load_dataset
from nodebits.data.sources.base import Request, Source, find_source

every_source = pytest.mark.parametrize("kind", SOURCES.names())


def source(kind: str) -> Source:
    made = SOURCES.get(kind)()
    assert isinstance(made, Source)
    return made


@every_source
def test_its_names_find_it_and_themselves(kind: str) -> None:
    for name, line in source(kind).names().items():
        assert line.strip() and "\n" not in line
        if name in dataset_names():  # others are patterns, such as of files
            found, canonical = find_source(name, None)
            assert (type(found), canonical) == (type(source(kind)), name)
            assert find_source(name.lower(), None)[1] == name


@every_source
def test_a_name_of_nothing(kind: str, tmp_path: Path) -> None:
    for wrong in ("", "no such data set", "../x", "Coraa"):
        try:
            assert source(kind).find(wrong, tmp_path) is None
        except NodebitsError as error:
            assert isinstance(error, UnknownNameError)


@every_source
def test_what_is_missing_is_named(kind: str, tmp_path: Path) -> None:
    for name in list(source(kind).names())[-2:]:  # the first are embedded, and need nothing
        try:
            dataset = source(kind).load(Request(name, tmp_path / "nowhere", tmp_path))
        except DataNotFoundError as error:
            assert "nowhere" in str(error) or name in str(error)
        else:
            assert dataset.name == name  # it needs no folder


def test_a_wrong_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'Cora'"):
        load_dataset("Coraa")
