"""Captured forwards: the compiled calls of one forward, made again without Python between them.

On a small graph most of a forward is Python: modules, operators, checks, allocations. A capture
runs the model once and notes its compiled calls, and torch's operators on their results. From then
on a forward is those, one after the other, into memory that is kept.

:mod:`nodebits.runtime.watch` says which forwards can be captured.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from nodebits.core.context import opened
from nodebits.core.errors import CaptureError, ConfigError, ShapeError
from nodebits.engine.packed_input import PackedInput, packed_ahead
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph, ReorderedGraph, as_graph
from nodebits.ops.backends.cpu import kernels as backend
from nodebits.runtime.watch import CompiledCall, TorchCall, Watch, mapped, tensors_in


class Captured(Protocol):
    """What of a packed model a capture needs."""

    module: nn.Module

    def predict(self, *args: Any, **keywords: Any) -> Any:
        """Runs it."""

    def pack_input(self, x: Tensor, *, edge_index: Any = None) -> PackedInput:
        """Packs features."""

    def row_sites(self) -> dict[str, RowQuantizer]:
        """Sites by path."""


class CapturedForward:
    """A packed model's forward on one graph, as a program of compiled calls.

    Made by :meth:`nodebits.PackedModel.capture`. Weights and graph are those of the capture: after
    changing a model in place, capture again. Calls from several threads wait for each other.
    """

    def __init__(
        self,
        model: Captured,
        x: PackedInput | Tensor,
        edge_index: Any,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self._model, self._args, self._keywords = model, args, keywords
        self._lock = threading.Lock()
        self._current: PackedInput | None = None
        self._sites = model.row_sites()
        if isinstance(edge_index, ReorderedGraph):
            raise CaptureError(
                "a reordered graph moves features and results in torch: capture on a graph that "
                "was prepared without reorder"
            )
        if not isinstance(x, Tensor | PackedInput):
            raise ShapeError(
                f"features are a {type(x).__name__}: a capture takes a float tensor [num_nodes, "
                "channels], or what pack_input returned"
            )
        nodes = x.shape[0]
        self._graph: Graph = as_graph(edge_index, nodes, nodes)
        self._record(self._packed(x))

    @property
    def steps(self) -> list[str]:
        """What one forward does, in order: compiled calls by name, torch's operators by theirs."""
        return [
            step.name if isinstance(step, CompiledCall) else f"torch: {step.function}"
            for step in self._steps
        ]

    def __call__(self, x: PackedInput | Tensor) -> Any:
        """Runs the program.

        Args:
            x: What ``pack_input`` returned: of the same nodes, for this model; or float ``[N, C]``,
                which is packed first. Features that pack to another form than the captured ones
                (sparse rows instead of dense ones, say) are captured anew.

        Returns:
            What :meth:`nodebits.PackedModel.predict` returns for the same arguments, bit for bit,
            in memory of its own.

        Raises:
            ShapeError: If ``x`` has another shape than the captured features.
            NonFiniteError: As ``predict``.
            ConfigError: If the features were packed for another model.
        """
        if isinstance(x, Tensor | PackedInput) and tuple(x.shape) != self._shape:
            raise ShapeError(f"features are {list(x.shape)}: the capture is of {list(self._shape)}")
        packed = self._packed(x)
        with self._lock:
            if packed is not self._current or torch.get_num_threads() != self._threads:
                own = self._own(packed)
                if _form(own, self._state) != self._form or not self._bind(packed, own):
                    self._record(packed)
            with torch.no_grad():
                for part in self._program:
                    part()
            return tree_map_only(Tensor, lambda t: _copy(self._value(t)), self._result)

    def _packed(self, x: PackedInput | Tensor) -> PackedInput:
        if isinstance(x, PackedInput):
            if x.graph is not None:
                raise ConfigError("the features were packed for a reordered graph")
            return x
        return self._model.pack_input(x, edge_index=self._graph)

    def _own(self, x: PackedInput) -> dict[str, Any]:
        """The rows by site, in order, with the site's own tensors in place of equal ones."""
        own: dict[str, Any] = {}
        for name in sorted(x.rows):
            site = self._sites.get(name)
            if site is None:
                raise ConfigError(
                    f"the features were packed for {name} of another model: call pack_input of "
                    "this one"
                )
            rows = packed_ahead(site, x)
            own[name] = site.reread(rows)
        return own

    def _record(self, x: PackedInput) -> None:
        if backend.compiled() is None:
            raise CaptureError(
                "the reference operators run here, there are no compiled calls to capture"
            )
        self._state = self._state_tensors()
        own = self._own(x)
        fresh: list[Tensor] = []
        renewed = {name: _renewed(rows, self._state, fresh) for name, rows in own.items()}
        watch = Watch(fresh)
        # Not in inference mode, whose tensors could not be written to by later calls outside of it.
        with torch.inference_mode(False), torch.no_grad(), watch, opened(watcher=watch.called):
            result = self._model.predict(
                dataclasses.replace(x, rows=renewed), self._graph, *self._args, **self._keywords
            )
        self._watch, self._steps, self._result = watch, watch.steps, result
        self._shape, self._form = x.shape, _form(own, self._state)
        self._watched = [id(t) for t in fresh]
        self._reading = [
            i
            for i, step in enumerate(self._steps)
            if any(watch.depends_on_input(t) for t in tensors_in(step[1:]))
        ]
        self._bound: list[Any] = [None] * len(self._steps)
        self._threads = 0
        self._bind(x, own)

    def _state_tensors(self) -> set[int]:
        """Identities of the model's own tensors, which packed features may share."""
        module = self._model.module
        found = {id(t) for t in (*module.parameters(), *module.buffers())}
        for site in self._sites.values():
            layout = site.own_layout
            if layout is not None:
                found |= {id(t) for t in _tensors(layout, set())}
        return found

    def _bind(self, x: PackedInput, own: dict[str, Any]) -> bool:
        """Makes a program of the steps with the tensors of ``x``, unless it takes other steps."""
        self._current = None  # until all is in place
        tensors = [t for rows in own.values() for t in _tensors(rows, self._state)]
        self._inputs = dict(zip(self._watched, tensors, strict=True))
        self._computed: dict[int, Tensor] = {}
        if not self._watch.same_guards(self._inputs, self._computed):
            return False
        threads = torch.get_num_threads()
        for i in range(len(self._steps)) if threads != self._threads else self._reading:
            step = self._steps[i]
            args = mapped(step.args, self._value)
            if isinstance(step, CompiledCall):
                # The last argument of every call is the number of threads.
                self._bound[i] = backend.bind(step.name, (*args[:-1], threads))
            else:
                keywords = mapped(step.keywords, self._value)
                self._bound[i] = _operator(step.function, args, keywords, step.made)
        self._threads = threads
        self._program = _program(self._steps, self._bound)
        self._current = x
        return True

    def _value(self, t: Tensor) -> Tensor:
        return self._watch.value(t, self._inputs, self._computed)


def _program(
    steps: Sequence[CompiledCall | TorchCall], bound: list[Any]
) -> list[Callable[[], Any]]:
    """The steps as functions, compiled calls that follow each other as one."""
    parts: list[Callable[[], Any]] = []
    for compiled, group in itertools.groupby(
        zip(steps, bound, strict=True), lambda pair: isinstance(pair[0], CompiledCall)
    ):
        ready = [one for _, one in group]
        parts += [backend.program(ready).run] if compiled else ready
    return parts


def _operator(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    made: tuple[Tensor, ...],
) -> Callable[[], None]:
    """An operator of torch whose results go where those of the captured forward are."""

    def run() -> None:
        result = function(*args, **keywords)
        for to, value in zip(made, tensors_in(result), strict=False):
            to.copy_(value)

    return run


def _copy(t: Tensor) -> Tensor:
    """A copy made by this thread alone: torch's would start OpenMP threads that spin afterwards."""
    result = torch.empty_like(t)
    try:
        np.copyto(result.numpy(), t.numpy())
    except TypeError:  # a type that numpy does not have, such as bfloat16
        result.copy_(t)
    return result


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Fields of a dataclass that are part of its value: not what it keeps for itself."""
    for field in dataclasses.fields(value):
        if not field.name.startswith("_"):
            yield field.name, getattr(value, field.name)


def _tensors(value: Any, state: set[int]) -> list[Tensor]:
    """The tensors in packed rows, but the model's own."""
    if isinstance(value, Tensor):
        return [] if id(value) in state else [value]
    if dataclasses.is_dataclass(value):
        return [t for _, part in _fields(value) for t in _tensors(part, state)]
    return []


def _renewed(value: Any, state: set[int], made: list[Tensor]) -> Any:
    """Packed rows with other objects for the same memory; lists those in ``made``.

    What was kept for the old objects (sums by graph, say) is then computed in sight.
    """
    if isinstance(value, Tensor):
        if id(value) in state:
            return value
        made.append(value.detach())
        return made[-1]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    if not _tensors(value, state):
        return value
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        if field.name.startswith("_"):
            if field.default_factory is not dataclasses.MISSING:
                changes[field.name] = field.default_factory()
        else:
            changes[field.name] = _renewed(getattr(value, field.name), state, made)
    return dataclasses.replace(value, **changes)


def _form(value: Any, state: set[int]) -> Any:
    """What two packed inputs must have in common to be run by one program."""
    if isinstance(value, Tensor):
        return id(value) if id(value) in state else (value.dtype, value.dim())
    if isinstance(value, dict):
        return {key: _form(part, state) for key, part in value.items()}
    if dataclasses.is_dataclass(value):
        return type(value), [(name, _form(part, state)) for name, part in _fields(value)]
    return value


__all__ = ["CapturedForward"]
