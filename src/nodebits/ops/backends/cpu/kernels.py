"""Which compiled level executes the operators: what was found, what is used, why one is off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils import dlpack

from nodebits.core.errors import UnsupportedIsaError
from nodebits.core.memory import check_memory

ENV_VARIABLE = "NODEBITS_ISA"
REFERENCE = "reference"

_kernels: ModuleType | None = None
_import_error = ""
try:
    _kernels = import_module("nodebits._kernels")
except ImportError as error:  # a source tree that was never built
    _import_error = str(error)

uses_reference = _kernels is None


def _exchanged(values: Iterable[Any]) -> list[Any]:
    """Tensors as DLPack capsules: a tenth of what the extension's own request for them takes."""
    made: list[Any] = []
    for value in values:
        kind = type(value)
        if kind is Tensor or kind is nn.Parameter:
            if value.data_ptr() == 0:
                check_memory(value, "an argument")
            made.append(dlpack.to_dlpack(value))  # type: ignore[attr-defined]
        elif kind is int or value is None:  # most of the rest, told without a search
            made.append(value)
        elif kind is list or isinstance(value, tuple):  # records are tuples
            made.append(_exchanged(value))
        else:
            made.append(value)
    return made


class _Compiled:
    """The functions of the extension module, called with tensors."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(_kernels, name)

        def call(*args: Any) -> Any:
            return function(*_exchanged(args))

        setattr(self, name, call)  # found without this method from now on
        return call


_compiled = _Compiled()


def guard(
    dictionaries: list[dict[Any, Any]],
    lists: list[list[Any]],
    sets: list[set[Any]],
    tensors: list[tuple[Tensor, bool, int]],
) -> Any:
    """Tells by ``same()`` whether all hold what they held.

    Args:
        dictionaries: Compared by identity of what is in them.
        lists: Likewise.
        sets: Compared by what equals what.
        tensors: Compared by their address; by torch's version counters where True stands beside
            them; and as many of their first bytes with a copy.
    """
    if _kernels is None:
        raise UnsupportedIsaError(_import_error)

    return _kernels.Guard(dictionaries, lists, sets, tensors)


def compiled_plan(text: str, constants: dict[str, Tensor]) -> Any:
    """A plan (``csrc/plan/plan.h``) with the tensors of its constants, which it keeps."""
    if _kernels is None:
        raise UnsupportedIsaError(_import_error)
    return _kernels.Plan(text, constants)


def plan_run(plan: Any) -> Any:
    """A run of a compiled plan in ranges of steps."""
    assert _kernels is not None
    return _kernels.Run(plan)


def graph_store() -> Any:
    """What is kept with one graph between runs of plans."""
    assert _kernels is not None
    return _kernels.GraphStore()


def changing_rows(indptr: Tensor, entries: Tensor, weight: Tensor | None) -> Any:
    """Rows that grow and shrink (``csrc/run/changing.h``)."""
    if _kernels is None:
        raise UnsupportedIsaError(_import_error)
    return compiled_call(_kernels.ChangingRows, indptr, entries, weight)


def compiled_call(function: Callable[..., Any], *args: Any) -> Any:
    """A method of an object of the extension module, called with tensors."""
    return function(*_exchanged(args))


def available_isas() -> tuple[str, ...]:
    """Levels that this process can use, slowest first; ``reference`` is always one."""
    found = () if _kernels is None else _kernels.isa_levels()
    return (REFERENCE, *(name for name, available, _ in found if available))


def current_isa() -> str:
    """The level in use."""
    return REFERENCE if uses_reference or _kernels is None else str(_kernels.isa())


def compiled() -> Any:
    """The functions of the extension module, or None where the reference runs."""
    return None if uses_reference else _compiled


def kernels_for(t: Tensor) -> Any:
    """The extension module if it serves this tensor, or None."""
    return compiled() if t.device.type == "cpu" else None


def _why_not(name: str) -> str:
    if _kernels is None:
        return f"the compiled kernels could not be imported ({_import_error})"
    for level, _, reason in _kernels.isa_levels():
        if level == name:
            return str(reason)
    return "no such level exists"


def set_isa(name: str, source: str = "set_isa") -> None:
    """Switches the process to one level.

    Args:
        name: One of :func:`available_isas`.
        source: Where the name came from, for the message.

    Raises:
        UnsupportedIsaError: If the level is unknown or not available here.
    """
    global uses_reference
    if name not in available_isas():
        raise UnsupportedIsaError(
            f"{source}: instruction set {name!r} cannot be used: {_why_not(name)}; "
            f"available: {', '.join(available_isas())}"
        )
    if name != REFERENCE and _kernels is not None:
        _kernels.set_isa(name)
    uses_reference = name == REFERENCE


@contextmanager
def force_isa(name: str) -> Iterator[None]:
    """Runs a block on one level; the whole process switches, so it is meant for tests.

    Raises:
        UnsupportedIsaError: If the level is unknown or not available here.
    """
    before = current_isa()
    set_isa(name, "force_isa")
    try:
        yield
    finally:
        set_isa(before)


def describe() -> dict[str, Any]:
    """What ``nodebits info`` prints: the level in use, those found, and why the others are off."""
    levels = [] if _kernels is None else _kernels.isa_levels()
    off = {name: reason for name, available, reason in levels if not available}
    if _kernels is None:
        off = {"compiled": _import_error}
    return {
        "isa": current_isa(),
        "available": list(available_isas()),
        "unavailable": off,
        "forced": os.environ.get(ENV_VARIABLE),
    }


if os.environ.get(ENV_VARIABLE):
    set_isa(os.environ[ENV_VARIABLE], ENV_VARIABLE)
