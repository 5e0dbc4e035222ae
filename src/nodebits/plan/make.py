"""From a packed model and what it was called with to a plan, or a reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from nodebits.core.context import opened
from nodebits.core.errors import NodebitsError
from nodebits.engine.chain import deferring
from nodebits.engine.pending import settle, unread
from nodebits.plan.example import Example, weight_name
from nodebits.plan.plan import Plan
from nodebits.plan.record import Recorder, Unplannable, hooked
from nodebits.plan.run import ReferenceRunner
from nodebits.plan.sizes import SizesSeen
from nodebits.plan.trace import Trace
from nodebits.plan.unify import Differs, unify

# Copies of the part: one graph alone would be two or fewer, which are sizes of much else.
_FEW = 3
# Copies of the part, and a remainder, of the example whose sizes are no multiples of the others'.
_ODD = -8
# Modules that are taken whole, before a forward is given up.
_MOST_WHOLE = 64
_lock = threading.Lock()


Features = Callable[..., tuple[list[Any], dict[str, Any]]]


class NoPlan(Exception):
    """There is no plan for this model on these arguments; the message says why."""


def plan_of(module: nn.Module, features: Features, names: Sequence[str], example: Example) -> Plan:
    """The plan of a forward, compared with the module on data of a third size.

    Args:
        module: The module of a packed model.
        features: Makes the features among the arguments wait for who reads them.
        names: Names of its positional arguments.
        example: What it is called with.

    Raises:
        NoPlan: If there is none; says why.
    """
    if hooked(module):
        raise NoPlan("hooks are attached to it, which are called in its forward alone")
    call = _Call(module, features, names, example)
    with _lock:
        try:
            call.result(_FEW)  # settles which results are computed at once
            whole, trace = call.whole()
            traces = [trace, call.trace(_FEW + 1, whole), call.trace(_ODD, whole)]
            plan = unify(traces, example.arguments)
            call.compare(plan, _FEW + 2)
        except Unplannable as error:
            raise NoPlan(error.reason) from error
        except Differs as error:
            raise NoPlan(str(error)) from error
        except NodebitsError as error:
            raise NoPlan(f"its forward fails on a small part of these data: {error}") from error
    return plan


class _Call:
    """A forward on copies of an example."""

    def __init__(
        self, module: nn.Module, features: Features, names: Sequence[str], example: Example
    ) -> None:
        self._module, self._features, self._names = module, features, names
        self._example = example

    def _forward(self, tensors: Mapping[str, Tensor], graph: Any = None) -> Any:
        args, keywords = self._example.call(tensors, graph)
        with deferring(), opened(example=True):
            args, keywords = self._features(self._names, args, keywords, unread)
            return settle(self._module(*args, **keywords))

    def result(self, count: int) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return self._forward(self._example.repeated(count))

    def whole(self) -> tuple[frozenset[str], Trace]:
        """Modules that are one step each, and the trace that has them as such."""
        whole: frozenset[str] = frozenset()
        for _ in range(_MOST_WHOLE):
            try:
                return whole, self.trace(_FEW, whole)
            except Unplannable as error:
                if not error.path or error.path in whole:
                    raise
                whole |= {error.path}
        raise NoPlan(f"more than {_MOST_WHOLE} of its modules are no steps")

    def trace(self, count: int, whole: frozenset[str]) -> Trace:
        tensors = self._example.repeated(count)
        sizes = {n for t in tensors.values() for n in t.shape if n > 2}
        batch = tensors.get("batch")
        if batch is not None and batch.numel():
            sizes.add(int(batch.max()) + 1)
        recorder = Recorder(whole, frozenset(sizes))
        for name, t in tensors.items():
            recorder.input(name, t)
        inside = torch.inference_mode(False), torch.no_grad(), recorder.following(self._module)
        with inside[0], inside[1], inside[2], opened(recorder=recorder), recorder, SizesSeen():
            result = self._forward(tensors, self._graph(recorder, tensors, count))
        recorder.returned(result)
        return recorder.trace

    def _graph(self, recorder: Recorder, tensors: Mapping[str, Tensor], count: int) -> Any:
        """The graph among the arguments, as a value of the trace."""
        argument = self._example.graph
        if argument is None:
            return None
        weight = tensors.get(weight_name(argument.name))
        nodes = self._example.nodes_of(count)
        return recorder.given(tensors[argument.name], nodes, argument.value.form, weight)

    def compare(self, plan: Plan, count: int) -> None:
        """Refuses a plan that gives other bits than the module.

        Raises:
            NoPlan: If it does.
        """
        tensors = self._example.repeated(count)
        expected = self.result(count)
        inputs = {one["value"]: tensors[one["name"]] for one in plan.about["inputs"]}
        with opened(example=True):
            found = ReferenceRunner(plan, self._module).run(inputs)
        mine, theirs = tree_flatten(expected), tree_flatten(found)
        same = mine[1] == theirs[1] and all(
            torch.equal(a, b) if isinstance(a, Tensor) else a == b
            for a, b in zip(mine[0], theirs[0], strict=True)
        )
        if not same:
            raise NoPlan("its steps give another result than the module on data of another size")
