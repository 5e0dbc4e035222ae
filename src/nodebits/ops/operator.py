"""One definition per operator: the record of its arguments, which says what it means, in torch.

From its fields and methods the rest is made: the schema of ``torch.ops.nodebits.*``, the fake
kernel, the entry point that Python calls, and the calls of the backends
(:mod:`nodebits.ops.backends`). A field may be a record (:mod:`nodebits.ops.records`) or a list of
records; in the schema their fields stand in its place, one after another, those of a list as one
list each.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from types import GenericAlias
from typing import (
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError, raise_memory_error
from nodebits.core.packing import row_bytes
from nodebits.ops.host import why_unreadable

LIBRARY = torch.library.Library("nodebits", "DEF")

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Result(NamedTuple):
    """What an operator returns, before it is computed.

    Attributes:
        shape: Its sizes.
        dtype: Its type.
        widths: uint8 ``[rows]`` where the result is the bytes of rows of several widths, whose
            number follows from the values; ``shape`` is then that of their codes.
        work: What a row takes: its edges, or a fourth of its columns; 0 where it takes little.
    """

    shape: tuple[Any, ...]
    dtype: torch.dtype
    widths: Tensor | None = None
    work: float = 0.0

    @staticmethod
    def packed(rows: Any, cols: Any, bits: int, work: float = 0.0) -> Result:
        """Rows of one width."""
        return Result((rows, row_bytes(cols, bits)), torch.uint8, None, work)

    def fake(self, device: torch.device) -> Tensor:
        """A tensor without data."""
        shape = self.shape
        if self.widths is not None:
            shape = (torch.library.get_ctx().new_dynamic_size(),)
        return torch.empty(shape, dtype=self.dtype, device=device)


class _Leaf(NamedTuple):
    """A parameter of the schema."""

    name: str
    kind: Any
    default: Any


class _Part(NamedTuple):
    """A parameter of the definition: a leaf, a record, or a list of records."""

    kind: Any  # the record's class, or None
    several: bool
    fields: tuple[_Part, ...]  # of a record
    leaf: _Leaf | None

    @property
    def leaves(self) -> list[_Leaf]:
        """What stands in its place in the schema."""
        if self.leaf is not None:
            return [self.leaf]
        made = [leaf for part in self.fields for leaf in part.leaves]
        if not self.several:
            return made
        return [
            _Leaf(one.name, GenericAlias(list, (one.kind,)), inspect.Parameter.empty)
            for one in made
        ]

    def write_flat(self, value: str) -> list[str]:
        """Expressions of the leaves of ``value``."""
        if self.leaf is not None:
            return [value]
        if not self.several:
            return [
                one
                for i, part in enumerate(self.fields)
                for one in part.write_flat(f"{value}[{i}]")
            ]
        each = [one for i, part in enumerate(self.fields) for one in part.write_flat(f"r[{i}]")]
        return [f"[{one} for r in {value}]" for one in each]

    def write_record(self, names: Iterator[str], kinds: dict[str, Any]) -> str:
        """An expression that makes its value of the leaves whose names come next."""
        if self.leaf is not None:
            return next(names)
        kinds[self.kind.__name__] = self.kind
        if not self.several:
            inner = ", ".join(part.write_record(names, kinds) for part in self.fields)
            return f"{self.kind.__name__}({inner})"
        columns = [next(names) for _ in self.leaves]
        each = iter([f"_{name}" for name in columns])
        inner = ", ".join(part.write_record(each, kinds) for part in self.fields)
        loop = ", ".join(f"_{name}" for name in columns)
        given = f"({', '.join(columns)})"
        title = self.kind.__name__
        return f"[{title}({inner}) for {loop} in _zipped({title!r}, {given})]"


def _zipped(title: str, columns: tuple[Sequence[Any], ...]) -> Iterator[tuple[Any, ...]]:
    lengths = list(map(len, columns))
    if min(lengths) != max(lengths):
        raise ShapeError(f"lists need one entry per {title.lower()}, got {lengths}")
    return zip(*columns, strict=True)


def _part(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> _Part:
    several = get_origin(kind) is list and hasattr(get_args(kind)[0], "_fields")
    record = get_args(kind)[0] if several else kind
    if not hasattr(record, "_fields"):
        return _Part(None, False, (), _Leaf(name, kind, default))
    hints = get_type_hints(record)
    fields = tuple(_part(field, hints[field]) for field in record._fields)
    return _Part(record, several, fields, None)


class Arguments(Protocol[R_co]):
    """The record of an operator's arguments, a named tuple. Its docstring is the operator's."""

    def checked(self) -> Any:
        """The same, checked: contiguous, detached, of documented types and shapes.

        The definition and the backends see only these. Raises a typed error otherwise.
        """

    def results(self) -> Sequence[Result] | Result:
        """Shapes and types of what is returned, from checked or fake arguments."""

    def compute(self) -> R_co:
        """The definition, from checked arguments."""


class Operator(Generic[P, R]):
    """An operator: called with its arguments, it goes through torch's dispatcher.

    Attributes:
        name: In ``torch.ops.nodebits``.
        schema: There.
        arguments: The record of its arguments.
        signature: How it is called.
        num_outputs: Arrays that a compiled call writes; the results of a list are one argument.
        hosted: Tensors that may lie in the host's memory, read in place by the device of the
            others (:mod:`nodebits.ops.host`).
    """

    def __init__(self, arguments: Callable[P, Arguments[R]], hosted: Sequence[str] = ()) -> None:
        kind: Any = arguments
        self.__doc__, self.__module__ = kind.__doc__, kind.__module__
        # Named in snake case after the record.
        self.name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__.lstrip("_")).lower()
        self.__name__ = self.__qualname__ = self.name
        self.arguments, self.hosted = arguments, frozenset(hosted)
        # What is made of results for the arguments as they were given; as a rule nothing.
        self._as_given: Callable[[Any, Any], R] | None = getattr(kind, "as_given", None)
        self.signature = inspect.signature(kind)
        hints = get_type_hints(kind)
        given = self.signature.parameters.values()
        self._parts = [_part(p.name, hints[p.name], p.default) for p in given]
        self._leaves = [leaf for part in self._parts for leaf in part.leaves]
        self._needs = [leaf.kind in (Tensor, list[Tensor]) for leaf in self._leaves]
        self.returns: Any = get_type_hints(kind.compute)["return"]
        self.num_outputs = len(get_args(self.returns)) if get_origin(self.returns) is tuple else 1
        self._write()
        LIBRARY.define(self.name + self._schema())
        torch.library.register_fake(f"nodebits::{self.name}", self._fake, lib=LIBRARY)
        self.schema: Any = getattr(torch.ops.nodebits, self.name).default

    def _schema(self) -> str:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        flat: Any = lambda: None  # noqa: E731  it only carries the signature
        flat.__signature__ = inspect.Signature(
            [
                inspect.Parameter(one.name, kind, annotation=one.kind, default=one.default)
                for one in self._leaves
            ],
            return_annotation=self.returns,
        )
        return torch.library.infer_schema(flat, mutates_args=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the operator on the device of its arguments."""
        given: Sequence[Any] = args
        if kwargs or len(args) < len(self._parts):
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.args
        made: R = self.schema(*self.flat(given))
        return made

    def reference(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The definition, from checked arguments, without torch's dispatcher."""
        return self.arguments(*args, **kwargs).compute()

    def _write(self) -> None:
        """Makes ``flat`` and ``record``; written out, since every call goes through both."""
        flat = [one for i, part in enumerate(self._parts) for one in part.write_flat(f"given[{i}]")]
        #: The schema's arguments from those of the definition.
        self.flat: Callable[[Sequence[Any]], list[Any]] = eval(
            f"lambda given: [{', '.join(flat)}]", {}
        )
        names = [leaf.name for leaf in self._leaves]
        kinds: dict[str, Any] = {"_zipped": _zipped, "_arguments": self.arguments}
        left = iter(names)
        records = ", ".join(part.write_record(left, kinds) for part in self._parts)
        # torch leaves out last arguments that equal their defaults.
        parameters = [
            leaf.name if leaf.default is inspect.Parameter.empty else f"{leaf.name}={leaf.default}"
            for leaf in self._leaves
        ]
        #: The record of the arguments from those of the schema.
        self.record: Callable[..., Arguments[R]] = eval(
            f"lambda {', '.join(parameters)}: _arguments({records})", kinds
        )

    def run(self, compute: Callable[[Any], Any], *flat: Any) -> Any:
        """A backend's implementation, from the schema's arguments.

        Args:
            compute: From the record of checked arguments to the results.
            *flat: As torch passes them.

        Raises:
            ShapeError: If a tensor is missing or tensors are on different devices, or what
                :meth:`Arguments.checked` raises.
            OutOfMemoryError: If memory runs out.
        """
        try:
            self._one_device(flat)
            given = self.record(*flat)
            made = compute(given.checked())
            return made if self._as_given is None else self._as_given(given, made)
        except (RuntimeError, MemoryError) as error:
            raise_memory_error(error)
            raise

    def _one_device(self, flat: Sequence[Any]) -> torch.device:
        first, at = None, 0
        for i, value in enumerate(flat):
            for t in value if type(value) is list else (value,):
                if not isinstance(t, Tensor):
                    if t is None and self._needs[i]:  # torch passes None for a tensor, too
                        raise ShapeError(
                            f"{self._leaves[i].name} of {self.name} is or holds None: it must be a "
                            "tensor"
                        )
                    continue
                if first is None:
                    first, at = t.device, i
                elif t.device != first:
                    name, other = self._leaves[i].name, self._leaves[at].name
                    said = f"{name} is on {t.device} but {other} is on {first}: move both to one"
                    return self._reading_host(flat, said)
        if first is None:
            raise ShapeError(f"{self.name} was given no tensor")
        return first

    def _reading_host(self, flat: Sequence[Any], said: str) -> torch.device:
        """The device of all tensors but those in the host's memory, which it reads in place."""
        tensors = [(leaf.name, t) for leaf, t in zip(self._leaves, flat, strict=False)]
        given = [(name, t) for name, t in tensors if isinstance(t, Tensor)]
        devices = {t.device for name, t in given if name not in self.hosted}
        if not self.hosted or len(devices) != 1:
            raise ShapeError(said)
        device = devices.pop()
        for name, t in given:
            why = why_unreadable(t, device)
            if why is not None:
                raise ShapeError(f"{said}; {name} is not read where it lies, since {why}")
        return device

    def _fake(self, *flat: Any) -> Any:
        device = self._one_device(flat)
        made = self.record(*flat).results()
        if isinstance(made, Result):
            return made.fake(device)
        several = [one.fake(device) for one in made]
        return tuple(several) if get_origin(self.returns) is tuple else several


OPERATORS: dict[str, Operator[..., Any]] = {}


def operator(arguments: Callable[P, Arguments[R]], hosted: Sequence[str] = ()) -> Operator[P, R]:
    """The operator of a record of arguments, named in snake case after it.

    Args:
        arguments: The record.
        hosted: See :class:`Operator`.
    """
    made = Operator(arguments, hosted)
    OPERATORS[made.name] = made
    return made
