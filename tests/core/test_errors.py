"""Errors are caught as ours and as the builtin that Python users expect."""

from __future__ import annotations

import inspect

import pytest
import torch

from nodebits.core import errors
from nodebits.core.errors import OutOfMemoryError, memory_errors

BUILTIN = {
    "AccumulatorOverflowError": OverflowError,
    "BitwidthError": ValueError,
    "CodingError": ValueError,
    "ConfigError": ValueError,
    "DataNotFoundError": FileNotFoundError,
    "FileFormatError": ValueError,
    "FileVersionError": errors.FileFormatError,
    "GraphError": ValueError,
    "GraphMismatchError": ValueError,
    "LabelError": ValueError,
    "MissingExtraError": ImportError,
    "NodeIndexError": IndexError,
    "NonFiniteError": ValueError,
    "NotCalibratedError": RuntimeError,
    "NothingToQuantizeError": ValueError,
    "OutOfMemoryError": MemoryError,
    "OutputBusyError": errors.OutputError,
    "OutputError": OSError,
    "OutputExistsError": FileExistsError,
    "PlanRefused": RuntimeError,
    "ShapeError": ValueError,
    "UnknownNameError": ValueError,
    "UnsupportedIsaError": ValueError,
    "UnsupportedLayerError": TypeError,
    "UnsupportedTaskError": ValueError,
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


def test_memory_of_a_device_that_ran_out() -> None:
    words = "CUDA out of memory. Tried to allocate 2.00 GiB."
    with pytest.raises(OutOfMemoryError, match="Tried to allocate") as found, memory_errors():
        raise torch.OutOfMemoryError(words)
    assert isinstance(found.value, MemoryError)
