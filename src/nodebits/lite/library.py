"""The compiled library as ctypes sees it; what its functions mean is said in ``nodebits.h``."""

from __future__ import annotations

import builtins
import ctypes
import functools
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

# Relative, as elsewhere in this package: the distribution nodebits-lite has it under another root.
from ..core import errors

API_VERSION = 1
MOST_AXES = 8
SKIP_CHECKSUMS = 1


class NbArray(ctypes.Structure):
    """``nb_array``."""

    _fields_ = (
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MOST_AXES),
        ("data", ctypes.c_void_p),
    )


class NbInputInfo(ctypes.Structure):
    """``nb_input_info``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MOST_AXES),
        ("is_graph", ctypes.c_int32),
    )


_HANDLE, _INT, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_OUT, _ARRAY = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(NbArray)
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "nb_api_version": (_INT, ()),
    "nb_version": (_TEXT, ()),
    "nb_error": (_TEXT, ()),
    "nb_error_kind": (_TEXT, ()),
    "nb_isa": (_TEXT, ()),
    "nb_set_isa": (_INT, (_TEXT,)),
    "nb_isa_level": (_TEXT, (_INT, ctypes.POINTER(_INT))),
    "nb_load": (_INT, (_TEXT, ctypes.c_uint, _OUT)),
    "nb_model_free": (None, (_HANDLE,)),
    "nb_model_header": (_TEXT, (_HANDLE,)),
    "nb_num_inputs": (_INT, (_HANDLE,)),
    "nb_num_outputs": (_INT, (_HANDLE,)),
    "nb_input": (_INT, (_HANDLE, _INT, ctypes.POINTER(NbInputInfo))),
    "nb_graph_coo": (_INT, (_ARRAY, ctypes.c_int64, ctypes.c_int64, _OUT)),
    "nb_graph_csr": (_INT, (_ARRAY, _ARRAY, ctypes.c_int64, _OUT)),
    "nb_graph_free": (None, (_HANDLE,)),
    "nb_features_load": (_INT, (_TEXT, ctypes.c_uint, _OUT)),
    "nb_features_free": (None, (_HANDLE,)),
    "nb_run_new": (_INT, (_HANDLE, _OUT)),
    "nb_run_free": (None, (_HANDLE,)),
    "nb_set_threads": (_INT, (_HANDLE, _INT)),
    "nb_set_graph": (_INT, (_HANDLE, _TEXT, _HANDLE)),
    "nb_set_packed_features": (_INT, (_HANDLE, _TEXT, _HANDLE)),
    "nb_predict": (_INT, (_HANDLE, _ARRAY, _INT, _ARRAY, _INT)),
    "nb_interrupt": (None, (_HANDLE,)),
}


def _candidates() -> list[Path]:
    """Where the functions may be: a library beside this file, else nodebits' extension module."""
    suffix = "dylib" if sys.platform == "darwin" else "so"
    found = [Path(__file__).with_name(f"libnodebits.{suffix}")]
    name = f"{__name__.split('.')[0]}._kernels"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__:
        return [*found, Path(loaded.__file__)]
    spec = importlib.util.find_spec(name)
    return [*found, Path(spec.origin)] if spec is not None and spec.origin else found


@functools.cache
def library() -> ctypes.CDLL:
    """The library, loaded once.

    Raises:
        ImportError: If it is not installed, or is of another version.
    """
    places = _candidates()
    path = next((place for place in places if place.exists()), None)
    if path is None:
        looked = " and ".join(map(str, places))
        raise ImportError(f"the compiled library of nodebits is missing; looked at {looked}")
    loaded = ctypes.CDLL(str(path))
    try:
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise ImportError(f"{path} is of another version of nodebits: {error}") from error
    if loaded.nb_api_version() != API_VERSION:
        raise ImportError(
            f"{path} has version {loaded.nb_api_version()} of the C interface, {API_VERSION} is "
            "needed: install one version of nodebits"
        )
    return loaded


def encoded(path: str | os.PathLike[str]) -> bytes:
    """A path as the library takes it.

    Raises:
        ValueError: If it holds a null character, where the library would end it.
    """
    found = os.fsencode(path)
    if b"\0" in found:
        raise ValueError(f"the path {path!r} holds a null character")
    return found


def check(status: int) -> None:
    """Raises the error that a function of the library has left on this thread."""
    if status:
        text = library().nb_error().decode(errors="replace")
        kind = library().nb_error_kind().decode()
        found: type[Exception] = getattr(errors, kind, None) or getattr(builtins, kind)
        raise found(text)
