"""Typed errors. Each names the offending value, the place, and the fix.

Every error also derives from the builtin that Python users expect (``ValueError``, ``OSError``
...), so code that does not know nodebits still catches it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that ``name`` may have meant, whatever their case, best first."""
    lowered = {candidate.lower(): candidate for candidate in known}
    return [lowered[c] for c in difflib.get_close_matches(name.lower(), lowered, count, 0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'a' or 'b'?"`` for a message, a full stop where no known name is near."""
    close = nearest(name, known)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else "."


class NodebitsError(Exception):
    """Base of all errors raised on purpose by nodebits."""


class BitwidthError(NodebitsError, ValueError):
    """A bitwidth outside 1 to 8, or not an integer."""


class CodingError(NodebitsError, ValueError):
    """Rows in a coding that is unknown, or that has not their width or their fields."""


class ConfigError(NodebitsError, ValueError):
    """A configuration that contradicts itself or the model."""


class NonFiniteError(NodebitsError, ValueError):
    """NaN or infinity where numbers are quantized."""


class ShapeError(NodebitsError, ValueError):
    """A tensor of the wrong shape or dtype."""


class GraphError(NodebitsError, ValueError):
    """An adjacency that is malformed (dtype, shape, order)."""


class GraphMismatchError(NodebitsError, ValueError):
    """A graph other than the one whose nodes a model has parameters for."""


class NodeIndexError(NodebitsError, IndexError):
    """A node index that is negative or not below the number of nodes."""


@contextmanager
def indices_of(place: Callable[[], str]) -> Iterator[None]:
    """Puts a place before what a :class:`NodeIndexError` says; it is asked for only then."""
    try:
        yield
    except NodeIndexError as error:
        raise NodeIndexError(f"{place()}{error}") from None


class AccumulatorOverflowError(NodebitsError, OverflowError):
    """A sum that could pass the int32 accumulator; refused, never wrapped."""


# Of an UnsupportedLayerError, which eager and compiled models raise.
NO_GRADIENTS = (
    "a packed model has no gradients, since its features and weights are integers, but "
    "backward() came to its result. Explain, attack or train the model that prepare() "
    "returned: in evaluation it computes the same numbers"
)


class UnsupportedLayerError(NodebitsError, TypeError):
    """A layer, or an option of a layer, that has no quantized form."""


class NothingToQuantizeError(NodebitsError, ValueError):
    """``prepare`` found no layer that it knows."""


class NotCalibratedError(NodebitsError, RuntimeError):
    """A quantizer has no range yet: it has seen no data."""


class UnknownNameError(NodebitsError, ValueError):
    """A name (dataset, model, method, layer) that does not exist."""

    @classmethod
    def for_name(cls, what: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Builds the error for ``name``, with the closest known names first."""
        known = sorted(known)
        return cls(f"unknown {what} {name!r}{did_you_mean(name, known)} Known: {', '.join(known)}")


class DataNotFoundError(NodebitsError, FileNotFoundError):
    """A data folder or raw file that is not there."""


class OutOfMemoryError(NodebitsError, MemoryError):
    """Something that does not fit the memory of this machine."""


# How torch words it, where sizes are too large to be computed too.
_NO_MEMORY = (
    "can't allocate memory",
    "torage size calculation overflowed",
    "CUDA out of memory",
)


def raise_memory_error(error: BaseException) -> None:
    """Raises :class:`OutOfMemoryError` where ``error`` says that memory ran out, else returns."""
    if isinstance(error, OutOfMemoryError):
        return
    text = str(error)
    if not isinstance(error, MemoryError) and not any(part in text for part in _NO_MEMORY):
        return
    reason = text.partition("DefaultCPUAllocator: ")[2] or text or "no reason given"
    raise OutOfMemoryError(
        f"memory ran out: {reason}; run smaller batches, or pack features ahead (pack_input)"
    ) from error


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns errors of memory that ran out, torch's and others, into :class:`OutOfMemoryError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise_memory_error(error)
        raise


class UnsupportedTaskError(NodebitsError, ValueError):
    """A data set whose task no loader of it prepares."""


class LabelError(NodebitsError, ValueError):
    """Targets that a task or a model does not take: missing, of another form, or out of range."""


class OutputError(NodebitsError, OSError):
    """A file or folder that cannot be written."""

    def __str__(self) -> str:
        return str(self.strerror or super().__str__())


class OutputExistsError(OutputError, FileExistsError):
    """A result that is there already; it is replaced only when asked for."""


class OutputBusyError(OutputError):
    """A file or folder that another command is writing at the moment."""


class UnsupportedIsaError(NodebitsError, ValueError):
    """An instruction set that is unknown or that this machine lacks."""


class PlanRefused(NodebitsError, RuntimeError):
    """Data that a plan has no steps for; within nodebits the module runs instead."""


class MissingExtraError(NodebitsError, ImportError):
    """An optional package that is not installed; the message names the extra that brings it."""


class FileFormatError(NodebitsError, ValueError):
    """A model file that is foreign, truncated or damaged."""


class FileVersionError(FileFormatError):
    """A model file written by a newer version of the format."""


class UnsupportedLayerWarning(UserWarning):
    """A layer stays in float; the message says which and what to do."""


class DegenerateSiteWarning(UserWarning):
    """A site whose codes keep next to nothing of its data; the message says which and why."""


class SaturationWarning(UserWarning):
    """A packed model got data beyond the ranges it was made for; the message says where."""


class FloatSumWarning(UserWarning):
    """A layer of integer sums ran on decoded rows; the message says which and why."""


class TargetScaleWarning(UserWarning):
    """Numbers to learn that are far from where a model's outputs begin; says how to scale them."""


class TornLogWarning(UserWarning):
    """A log ends in a record that a killed process did not finish; says where it was cut."""


class LostEdgeWeightsWarning(UserWarning):
    """Edge weights that are not zero became code 0 in numbers that matter; names the site."""
