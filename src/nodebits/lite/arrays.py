"""Numpy's arrays as ``nb_array``, and back."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import ShapeError
from .library import MOST_AXES, NbArray

Array = npt.NDArray[Any]

# The order of nb_dtype.
DTYPES = tuple(
    np.dtype(t) for t in (np.float32, np.float64, np.uint8, np.int32, np.int64, np.bool_)
)
_CODES = {dtype: code for code, dtype in enumerate(DTYPES)}


def as_array(value: Any, name: str) -> Array:
    """``value`` as a contiguous, aligned array of a type that the library knows.

    Args:
        value: An array, or what numpy makes one of: nested lists, a tensor on the CPU.
        name: What to call it in an error.

    Raises:
        ShapeError: If its type is none of :data:`DTYPES`, or it has more than 8 axes.
    """
    array = np.asarray(value)
    if array.dtype not in _CODES:
        known = ", ".join(map(str, DTYPES))
        raise ShapeError(f"{name} has dtype {array.dtype}; one of {known} is expected")
    if array.ndim > MOST_AXES:
        raise ShapeError(f"{name} has {array.ndim} axes; at most {MOST_AXES} are possible")
    good = array.flags.c_contiguous and array.flags.aligned
    return array if good else array.copy(order="C")


def fill(target: NbArray, array: Array) -> None:
    """Lets ``target`` describe ``array``, which must outlive its use."""
    target.dtype = _CODES[array.dtype]
    target.ndim = array.ndim
    target.shape[: array.ndim] = array.shape
    target.data = array.__array_interface__["data"][0]


def described(array: Array) -> NbArray:
    """A new description of ``array``."""
    made = NbArray()
    fill(made, array)
    return made


def copied(source: NbArray) -> Array:
    """An array of its own with what ``source`` describes."""
    made = np.empty(source.shape[: source.ndim], DTYPES[source.dtype])
    if made.nbytes:
        ctypes.memmove(made.__array_interface__["data"][0], source.data, made.nbytes)
    return made
