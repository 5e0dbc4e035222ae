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
from nodebits.plan.containers import ALL, Place, at_place, note_reads
from nodebits.plan.example import Example, weight_name
from nodebits.plan.plan import Plan
from nodebits.plan.record import Recorder
from nodebits.plan.recording import Unplannable, hooked
from nodebits.plan.run import ReferenceRunner
from nodebits.plan.sizes import SizesSeen
from nodebits.plan.trace import Trace
from nodebits.plan.unify import Differs, unify

# Copies of the part: one graph alone would be two or fewer, which are sizes of much else.
_FEW = 3
# Copies of the part, and a remainder, of the example whose sizes are no multiples of the others'.
_ODD = -8
# Likewise, of arguments by type: sums of sizes that are equal in one are not in the other.
_ODD_TOO = -9
# Modules that are taken whole, before a forward is given up.
_MOST_WHOLE = 64
_lock = threading.Lock()


Features = Callable[..., tuple[list[Any], dict[str, Any]]]


class NoPlan(Exception):
    """There is no plan for this model on these arguments; the message says why."""


def plan_of(
    module: nn.Module, features: Features, names: Sequence[str], example: Example
) -> tuple[Plan, Example]:
    """The plan of a forward, and the example of what that reads.

    It is compared with the module on data of a third size.

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
    with _lock:
        try:
            # Settles which results are computed at once.
            example = _read_part(_Call(module, features, names, example), example)
            call = _Call(module, features, names, example)
            whole, trace = call.whole()
            traces = [trace, call.trace(_FEW + 1, whole), call.trace(_ODD, whole)]
            plan = unify(traces, example.arguments)
            call.compare(plan, _FEW + 2 if not example.containers else _ODD_TOO)
        except Unplannable as error:
            raise NoPlan(error.reason) from error
        except Differs as error:
            raise NoPlan(str(error)) from error
        except NodebitsError as error:
            raise NoPlan(f"its forward fails on a small part of these data: {error}") from error
    return plan, example


def _read_part(call: _Call, example: Example) -> Example:
    """An example of what a forward reads of ``Data`` objects, and nothing else.

    Raises:
        NoPlan: If it reads what is neither edges nor has a row for every node or edge.
    """
    reads: set[Place] = set()
    call.result(_FEW, reads)
    # Who asks which attributes there are, asks for those that the example lacks, too.
    asked = {place[:-1] for place in reads if isinstance(place, tuple) and place[-1] == ALL}
    listed = {p for p in example.left_out if isinstance(p, tuple) and p[:-1] in asked}
    hidden = sorted(map(repr, (reads & example.left_out) | listed))
    if hidden:
        raise NoPlan(f"it reads {', '.join(hidden)} of its data, which has no rows of a type")
    held = {top for top, one in example.containers.items() if one.kind is not dict}
    places = [a.place for a in example.arguments if isinstance(a.place, tuple)]
    return example.reading(reads, {p for p in places if p[0] in held and p not in reads})


class _Call:
    """A forward on copies of an example."""

    def __init__(
        self, module: nn.Module, features: Features, names: Sequence[str], example: Example
    ) -> None:
        self._module, self._features, self._names = module, features, names
        self._example = example

    def _forward(
        self,
        tensors: Mapping[str, Tensor],
        count: int,
        graphs: Mapping[str, Any] | None = None,
        reads: set[Place] | None = None,
    ) -> Any:
        args, keywords = self._example.call(tensors, count, graphs)
        with deferring(), opened(example=True):
            args, keywords = self._features(self._names, args, keywords, unread)
            if reads is not None:
                for top in self._example.containers:
                    note_reads(top, at_place(args, keywords, top), reads)
            return settle(self._module(*args, **keywords))

    def result(self, count: int, reads: set[Place] | None = None) -> Any:
        """What the module returns.

        Args:
            count: Of copies.
            reads: Takes what is read of PyG's ``Data`` among the arguments.
        """
        with torch.inference_mode(False), torch.no_grad():
            return self._forward(self._example.repeated(count), count, None, reads)

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
        batches = [tensors[a.name] for a in self._example.arguments if a.role == "batch"]
        sizes.update(int(batch.max()) + 1 for batch in batches if batch.numel())
        recorder = Recorder(whole, frozenset(sizes))
        for name, t in tensors.items():
            recorder.input(name, t)
        inside = torch.inference_mode(False), torch.no_grad(), recorder.following(self._module)
        with inside[0], inside[1], inside[2], opened(recorder=recorder), recorder, SizesSeen():
            result = self._forward(tensors, count, self._graphs(recorder, tensors, count))
        recorder.returned(result)
        return recorder.trace

    def _graphs(
        self, recorder: Recorder, tensors: Mapping[str, Tensor], count: int
    ) -> dict[str, Any]:
        """The graphs among the arguments, as values of the trace."""
        made = {}
        for argument in self._example.graphs:
            weight = tensors.get(weight_name(argument.name))
            sizes = [self._example.nodes_of(of, count) for of in (argument.of[0], argument.of[-1])]
            edges = tensors[argument.name]
            made[argument.name] = recorder.given_graph(edges, sizes, argument.value.form, weight)
        return made

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
