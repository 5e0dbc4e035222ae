"""The plans of a packed model: made by itself, and left where a call is not what they were made of.

A forward of a kind that was seen before runs as a plan (:mod:`nodebits.plan`). What a plan has no
steps for, and whatever is wrong with its arguments, the module is asked: it has the words for it.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from nodebits.core.context import current
from nodebits.core.errors import NodebitsError, OutOfMemoryError, raise_memory_error
from nodebits.core.signature import names_of
from nodebits.graph import Graph
from nodebits.ops.backends.cpu import kernels as backend
from nodebits.plan.example import Example, NoExample, TooSmall
from nodebits.plan.make import NoPlan, plan_of
from nodebits.plan.operator import watch
from nodebits.plan.plan import Plan
from nodebits.plan.taking import example_of, guessed_example
from nodebits.runtime.arguments import with_features
from nodebits.runtime.guard import Guard
from nodebits.runtime.kinds import (
    MATRIX,
    Reads,
    difference,
    kind_of,
    kinds_like,
    shown_kind,
    traced_kind,
    with_graphs,
    with_reads,
)
from nodebits.runtime.places import CPU, device_of, on_cpu
from nodebits.runtime.planned import NOTHING, Planned
from nodebits.runtime.traced import OperatorPlan, operator_plan

# A model that changes ever again, or is called in ever new ways, is none to make plans for.
_MOST_CHANGES, _MOST_KINDS = 8, 16

_ASK_FIRST = "call predict once, or plan(...) with arguments"
_UNKNOWN = f"nothing is known of what it is called with: {_ASK_FIRST}"


class Plans:
    """The plans of a model by the kind of arguments that they are for."""

    def __init__(self) -> None:
        self._planned: dict[Any, Planned | str] = {}
        self._reads: Reads = {}
        # What compiled programs read: those of forgotten plans are gone, so they look again.
        self.operators: dict[str, OperatorPlan] = {}
        self._counted = 0
        self._seen: set[Any] = set()
        self._called: Example | None = None
        self._guard: Any = None
        self._of_file: tuple[Plan | str, Any] | None = None
        self._asked: Any = None  # the kind of the last plan that somebody asked for
        self._changes = 0
        self._device: torch.device | None = CPU
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Plans:
        return Plans()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Plans, ())

    def result(
        self,
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        reached: Sequence[int] | None = None,
        use_graphs: bool = True,
    ) -> Any:
        """What a plan returns; :data:`NOTHING` where none is for these arguments.

        Args:
            args: By position.
            keywords: By name.
            reached: Of a sample whose seeds alone are asked for, see :class:`Planned`.
            use_graphs: Whether CUDA graphs may be made.
        """
        if not self._planned or self._lock.locked():  # while one is made nothing is as it was
            return NOTHING
        there = "" if self._device is None else self._device.type
        kind = kind_of(args, keywords, self._reads, there)
        if kind is MATRIX:
            given = with_graphs(args, keywords, there)
            if given is None:
                return NOTHING
            args, keywords = given
            kind = kind_of(args, keywords, self._reads, there)
        planned = self._planned.get(kind)
        if type(planned) is not Planned or backend.uses_reference:
            return NOTHING
        if not (self._guard.same() or self._guard.holds()):
            self.forget()
            return NOTHING
        try:
            if reached is not None:
                return planned.run_sampled(args, keywords, reached)
            return planned.run(args, keywords, use_graphs)
        except OutOfMemoryError:
            raise
        except NodebitsError:
            return NOTHING
        except (RuntimeError, MemoryError) as error:
            raise_memory_error(error)
            raise

    def seen(self, module: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Takes note of a call that the module answered; the second of a kind makes its plan."""
        there = self._place(module)
        given = with_graphs(args, keywords, there)
        if given is None or backend.compiled() is None or current().recorder is not None:
            return
        args, keywords = given
        kind = kind_of(args, keywords, self._reads, there)
        if kind is None:
            return
        with self._lock:
            if kind in self._planned or self._changes > _MOST_CHANGES:
                return
            if kind not in self._seen:
                if len(self._seen) < _MOST_KINDS:
                    self._seen.add(kind)
                    self._note(module, args, keywords)
                return
            self._make(module, kind, args, keywords)

    def _note(self, module: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Keeps a small part of the first call: a file says what such calls do."""
        if self._called is None:
            # Arguments may hold anything: what no example is made of has no plan either.
            with suppress(Exception):
                self._called = self._example(module, args, keywords)

    def made(
        self, module: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Planned | str:
        """The plan for a call, or why there is none."""
        elsewhere = _elsewhere(module)
        if elsewhere is not None:
            return elsewhere
        there = self._place(module)
        given = with_graphs(args, keywords, there)
        args, keywords = (args, keywords) if given is None else given
        kind = None if given is None else kind_of(args, keywords, self._reads, there)
        if kind is None:
            return _reason(module, args, keywords)
        with self._lock:
            self._drop_stale()
            if kind not in self._planned:
                reason = self._make(module, kind, args, keywords)
                if reason:
                    return reason
                kind = kind_of(args, keywords, self._reads, there)
            self._asked = kind
            return self._planned[kind]

    def _make(
        self, module: nn.Module, kind: Any, args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> str:
        """Makes the plan for a kind, or notes why there is none; returns why that stays open."""
        self._drop_stale()
        try:
            example = self._example(module, args, keywords)
            made, example = _planned(module, example)
            self._reads = with_reads(self._reads, example, args, keywords)
            self._planned[kind_of(args, keywords, self._reads, self._place(module))] = made
        except TooSmall as error:
            return str(error)
        except NoExample as error:
            self._planned[kind] = str(error)
        except Exception as error:  # arguments may hold anything, which the module may know
            self._planned[kind] = f"making an example failed: {type(error).__name__}: {error}"
        self._guard = Guard(module)
        return ""

    def _place(self, module: nn.Module) -> str:
        """Type of the device that the model is on, which is looked at anew."""
        self._device = device_of(module)
        return "" if self._device is None else self._device.type

    def _example(
        self, module: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Example:
        """A small part of arguments, on the CPU."""
        if self._device != CPU:
            args, keywords = on_cpu(list(args)), on_cpu(dict(keywords))
        return example_of(names_of(module.forward), args, keywords)

    def move(self, module: nn.Module, move: Callable[[], Any]) -> None:
        """Moves a model to another device, and its plans with it.

        Args:
            module: The model.
            move: Moves what it holds, and changes no value of it.
        """
        with self._lock:
            kept = self._guard is not None and self._guard.holds()
            file = self._of_file
            of_file = file[0] if file is not None and file[1].holds() else None
            move()
            self._place(module)
            self.operators.clear()  # compiled programs hold tensors of where it was
            if of_file is not None:
                self.keep(module, of_file)
            if not kept or _elsewhere(module) is not None:
                self._planned.clear()
                return
            self._planned = {
                kind: Planned(one.plan, module, self._there) if isinstance(one, Planned) else one
                for kind, one in self._planned.items()
            }
            self._guard = Guard(module)

    @property
    def _there(self) -> torch.device:
        return CPU if self._device is None else self._device

    def _drop_stale(self) -> None:
        """Forgets plans of what the model was: the guard to come would take them for present."""
        if self._is_stale():
            self._planned.clear()
            self.operators.clear()

    def adopt(self, module: nn.Module, example: Example) -> Plan | str:
        """Makes the plan for calls like an example, before there is one."""
        with self._lock:
            self._drop_stale()
            self._place(module)
            made, example = _planned(module, example)
            self._reads = with_reads(self._reads, example, *example.call(example.parts))
            for kind in kinds_like(example, self._reads):
                self._planned[kind] = made
            self._guard = Guard(module)
            return made.plan if isinstance(made, Planned) else made

    def _is_stale(self) -> bool:
        """Whether the model is another one than when the last plan was made."""
        return self._guard is not None and not self._guard.holds()

    def keep(self, module: nn.Module, plan: Plan | str | None) -> None:
        """Keeps what a file holds for :meth:`for_file`, while the model is as it is now."""
        compiled = backend.compiled() is not None
        self._of_file = (plan, Guard(module)) if plan is not None and compiled else None

    def for_file(self, module: nn.Module, example: Example | None) -> Plan | str:
        """A plan that says what the model does, or why there is none.

        Args:
            module: The module.
            example: What it was calibrated on, where that is known.
        """
        with self._lock:
            asked = self._planned.get(self._asked)
            if isinstance(asked, Planned) and self._guard is not None and self._guard.holds():
                return asked.plan
            kept = self._of_file
            of_file = kept[0] if kept is not None and kept[1].holds() else _UNKNOWN
            if isinstance(of_file, Plan):
                return of_file
            known = [one.plan for one in self._planned.values() if isinstance(one, Planned)]
            if known and self._guard is not None and self._guard.holds():
                return min(known, key=lambda plan: not plan.is_portable)
            example = self._called if example is None else example
            guessed = guessed_example(module) if example is None else None
            taken = guessed if example is None else example
            if taken is not None:
                made = _plan(module, taken)[0]
                if guessed is None or isinstance(made, Plan):
                    return made
                return f"{made}. These data were a guess: {_ASK_FIRST}"
            reasons = [one for one in self._planned.values() if isinstance(one, str)]
            return reasons[0] if reasons else of_file

    def running(self, use_graphs: bool) -> list[dict[str, Any]]:
        """What runs calls now, see :meth:`nodebits.PackedModel.running`."""
        with self._lock:
            known = [one for one in self._planned.values() if isinstance(one, Planned)]
        each = {id(one): one for one in known}.values()
        return [one.running(use_graphs) for one in each]

    def forget(self) -> None:
        """Forgets all plans: the model is another one now."""
        with self._lock:
            self._planned.clear()
            self.operators.clear()
            self._seen.clear()
            self._changes += 1

    def forget_stale(self) -> None:
        """Forgets all plans if the model is another one than when they were made."""
        if self._planned and not self._lock.locked() and self._is_stale():
            self.forget()

    def like(
        self, module: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Planned | str:
        """The plan for a call whose tensors have types and sizes alone, or why there is none."""
        known = [kind for kind, one in self._planned.items() if isinstance(one, Planned)]
        kind = traced_kind(args, keywords)
        if kind in known:
            return self._planned[kind]
        names = names_of(module.forward)
        told = [difference(names, one, kind) for one in known if Graph not in one]
        which = f"; there is one, but {min(told, key=len)}" if told else ""
        return (
            f"there is none for a call with {', '.join(shown_kind(names, kind))}{which}. "
            "Call packed.plan(...) once with these very arguments before torch.export: it is made "
            "for them, and for the model as it is then"
        )

    def operator_of(self, model: nn.Module, planned: Planned) -> str:
        """Where :attr:`operators` has what torch's operator is given of a plan.

        Raises:
            ConfigError: If only the module can run it.
        """
        for key, one in self.operators.items():
            if one is planned.operator:
                return key
        plan = planned.plan.on(planned.device)
        planned.operator = operator_plan(plan, watch(model, self._guard))
        self._counted += 1
        self.operators[str(self._counted)] = planned.operator
        return str(self._counted)


def _planned(module: nn.Module, example: Example) -> tuple[Planned | str, Example]:
    """A plan or why there is none, and the example of what its forward reads."""
    plan, example = _plan(module, example)
    if isinstance(plan, str):
        return plan, example
    try:
        return Planned(plan, module, device_of(module) or CPU), example
    except NodebitsError as error:
        return str(error), example


def _elsewhere(module: nn.Module) -> str | None:
    """Why a model has no plan where it is; None for others."""
    device = device_of(module)
    if device is None:
        return "plans run on one device, and the model is on several: its layers run there"
    if device.type == "meta":
        return "the model is on meta, where tensors have no values"
    return None


def _reason(module: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """Why there is no plan for arguments of no kind."""
    try:
        example_of(names_of(module.forward), on_cpu(list(args)), on_cpu(dict(keywords)))
    except (NoExample, NodebitsError) as error:
        return str(error)
    return "its arguments are no tensors and graphs alone"


def _plan(module: nn.Module, example: Example) -> tuple[Plan | str, Example]:
    elsewhere = _elsewhere(module)
    if elsewhere is not None:
        return elsewhere, example
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if device_of(module) != CPU:  # where a plan is made and compared
                module = copy.deepcopy(module).to("cpu")
            return plan_of(module, with_features, names_of(module.forward), example)
        except NoPlan as error:
            return str(error), example
        except Exception as error:  # a model may do anything: its own forward answers then
            return f"making it failed: {type(error).__name__}: {error}", example
