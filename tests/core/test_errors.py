"""Errors are caught as ours and as the builtin that Python users expect."""

from __future__ import annotations

import inspect

import pytest

from nodebits.core import errors

BUILTIN = {
    "BitwidthError": ValueError,
    "CaptureError": RuntimeError,
    "CodingError": ValueError,
    "ConfigError": ValueError,
    "NonFiniteError": ValueError,
    "ShapeError": ValueError,
    "GraphError": ValueError,
    "GraphMismatchError": ValueError,
    "NodeIndexError": IndexError,
    "AccumulatorOverflowError": OverflowError,
    "UnsupportedLayerError": TypeError,
    "NothingToQuantizeError": ValueError,
    "NotCalibratedError": RuntimeError,
    "UnknownNameError": ValueError,
    "DataNotFoundError": FileNotFoundError,
    "OutOfMemoryError": MemoryError,
    "OutputError": OSError,
    "OutputExistsError": FileExistsError,
    "OutputBusyError": errors.OutputError,
    "UnsupportedTaskError": ValueError,
    "UnsupportedIsaError": ValueError,
    "MissingExtraError": ImportError,
    "FileFormatError": ValueError,
    "FileVersionError": errors.FileFormatError,
}


@pytest.mark.parametrize("name", BUILTIN)
def test_bases(name: str) -> None:
    cls = getattr(errors, name)
    assert issubclass(cls, errors.NodebitsError) and issubclass(cls, BUILTIN[name])


def test_the_table_is_complete() -> None:
    classes = inspect.getmembers(errors, inspect.isclass)
    ours = {n for n, c in classes if issubclass(c, errors.NodebitsError)}
    assert ours - {"NodebitsError"} == set(BUILTIN)
    assert issubclass(errors.UnsupportedLayerWarning, UserWarning)


def test_unknown_names_suggest_close_ones() -> None:
    error = errors.UnknownNameError.for_name("dataset", "coar", ["pubmed", "Cora", "citeseer"])
    assert str(error).startswith("unknown dataset 'coar'; did you mean 'Cora'?")
    assert "Known: Cora, citeseer, pubmed" in str(error)
    far = errors.UnknownNameError.for_name("model", "zzz", ["gcn"])
    assert "did you mean" not in str(far) and str(far).endswith("Known: gcn")
