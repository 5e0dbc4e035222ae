"""Numpy's arrays as ``nb_array``, and back."""

from __future__ import annotations

import ctypes
import math
import struct
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
# Written and read at once: ctypes takes microseconds for the fields of three inputs.
_LAYOUT = struct.Struct(f"@ii{MOST_AXES}qP")
_NO_AXES = tuple((0,) * (MOST_AXES - ndim) for ndim in range(MOST_AXES + 1))
# Copied twice, which is less than to ask an array of its own where it lies.
_SMALL_BYTES = 1 << 14


def as_array(value: Any, name: str) -> Array:
    """``value`` as a contiguous, aligned array of a type that the library knows.

    Args:
        value: An array, or what numpy makes one of: nested lists, a tensor on the CPU.
        name: What to call it in an error.

    Raises:
        ShapeError: If its type is none of :data:`DTYPES`, it has more than 8 axes, or entries of it
            are masked.
    """
    array = np.asarray(value)
    if array is not value and np.ma.is_masked(value):
        masked = int(np.asarray(np.ma.getmaskarray(value)).sum())
        raise ShapeError(
            f"{name} is a masked array, of which {masked} entries are masked: "
            "a model has no mask. Say what stands there, with .filled(...)"
        )
    if array.dtype not in _CODES:
        known = ", ".join(map(str, DTYPES))
        raise ShapeError(f"{name} has dtype {array.dtype}; one of {known} is expected")
    if array.ndim > MOST_AXES:
        raise ShapeError(f"{name} has {array.ndim} axes; at most {MOST_AXES} are possible")
    good = array.flags.c_contiguous and array.flags.aligned
    return array if good else array.copy(order="C")


class Described:
    """Several ``nb_array``, one after another.

    Attributes:
        pointer: To the first, for the library.
    """

    def __init__(self, count: int) -> None:
        self._memory = bytearray(count * _LAYOUT.size)
        self.pointer = (NbArray * count).from_buffer(self._memory) if count else (NbArray * 0)()

    def __len__(self) -> int:
        return len(self.pointer)

    def fill(self, index: int, array: Array | None) -> None:
        """Lets one of them describe ``array``, which must outlive its use; None is nothing."""
        if array is None:
            _LAYOUT.pack_into(self._memory, index * _LAYOUT.size, 0, -1, *_NO_AXES[0], 0)
            return
        ndim = array.ndim
        _LAYOUT.pack_into(
            self._memory,
            index * _LAYOUT.size,
            _CODES[array.dtype],
            ndim,
            *array.shape,
            *_NO_AXES[ndim],
            _address(array),
        )

    def copied(self, index: int) -> Array:
        """An array of its own with what one of them describes."""
        code, ndim, *shape, data = _LAYOUT.unpack_from(self._memory, index * _LAYOUT.size)
        dtype, shape = DTYPES[code], shape[:ndim]
        size = math.prod(shape) * dtype.itemsize
        if 0 < size <= _SMALL_BYTES:
            return np.ndarray(shape, dtype, bytearray(ctypes.string_at(data, size)))
        made: Array = np.empty(shape, dtype)
        if size:
            ctypes.memmove(_address(made), data, size)
        return made


def _address(array: Array) -> int:
    """Where its first number lies."""
    if array.nbytes and array.flags.writeable:  # half the time of the attribute
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    return array.ctypes.data


def described(array: Array) -> Described:
    """A description of one array."""
    made = Described(1)
    made.fill(0, array)
    return made
