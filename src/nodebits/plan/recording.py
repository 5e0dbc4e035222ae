"""What is noted of a forward: its values, its graphs, and the modules that it runs through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from nodebits.core.context import current
from nodebits.engine.pending import settle, waiting
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph, Part
from nodebits.graph.adjacency import as_graph
from nodebits.plan.graphs import RecordedGraph, plain_graph, record_joined
from nodebits.plan.sizes import plain
from nodebits.plan.trace import (
    Ref,
    Sized,
    Step,
    TextArgument,
    Trace,
    leaves,
    mapped,
)

# Comparisons that are repeated one after another are noted once.
_NEAR = 8
# Steps that follow from a number of rows, whatever else they are given.
_SIZED = ("own_nodes",)


class Unplannable(Exception):
    """A forward that cannot be repeated by its steps.

    Attributes:
        reason: Why, to follow "since".
        path: The innermost module that did it.
    """

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(f"{path or 'the model'}: {reason}")
        self.reason, self.path = reason, path


class Recording:
    """Notes what happens to the tensors of the arguments, as it is told.

    Args:
        opaque: Paths of modules that are one step each.
        sizes: Numbers of nodes, edges, graphs: a tensor made with one of them as a size is no
            constant.
    """

    def __init__(self, opaque: frozenset[str], sizes: frozenset[int]) -> None:
        super().__init__()
        self.trace = Trace()
        self._opaque, self._sizes = opaque, set(sizes)
        # By identity. The tensors are held: another one must not get the number of one that died.
        self._known: dict[int, int] = {}
        self._held: list[Any] = []
        self._memory: dict[int, list[int]] = {}  # values by where their memory begins
        self._graphs: dict[tuple[int, int, int, int], Graph] = {}
        self._counts: dict[int, Tensor] = {}  # rows of each width, by the order of the rows
        self._counted: dict[int, tuple[Any, ...]] = {}  # see given()
        self._hidden = 0
        self._inside: list[str] = [""]

    # --- values ---

    def input(self, name: str, t: Tensor) -> None:
        """Makes ``t`` an input."""
        self.trace.inputs[name] = self._tag(t)

    def _tag(self, t: Tensor, number: int | None = None) -> int:
        number = self.trace.value(t) if number is None else number
        self._known[id(t)] = number
        self._held.append(t)
        rows = t.shape[:1] if t.is_floating_point() else t.shape
        self._sizes.update(n for n in rows if n > 2)
        if t.numel():
            places = self._memory.setdefault(t.untyped_storage().data_ptr(), [])
            places.append(number)
        return number

    def knows(self, value: Any) -> bool:
        """Whether ``value`` is a tensor that follows from the arguments."""
        return isinstance(value, Tensor) and id(value) in self._known

    def _ref(self, value: Any) -> Any:
        if isinstance(value, str):
            return TextArgument(value)
        value = plain(value)
        if isinstance(value, torch.dtype | torch.layout | torch.device | torch.memory_format):
            return TextArgument(str(value))
        if not isinstance(value, Tensor):
            whole = isinstance(value, int) and not isinstance(value, bool)
            terms = self._counted.get(value) if whole else None
            return value if terms is None else Sized(value, terms)
        number = self._known.get(id(value))
        if number is not None:
            return Ref(number)
        self._held.append(value)
        return value

    def add(self, op: str, args: Sequence[Any], made: Sequence[Tensor], approx: bool) -> None:
        """One more step."""
        step = Step(op, [mapped(arg, self._ref) for arg in args], [], approx, self._inside[-1])
        step.outs = [self._tag(t) for t in made]
        self.trace.steps.append(step)

    def expect(self, terms: Sequence[Any], outcome: bool) -> None:
        """A comparison of sizes: its outcome says which way the forward goes."""
        told = [TextArgument(term) if isinstance(term, str) else term for term in terms]
        step = Step("expect", [told, TextArgument(str(outcome).lower())], [])
        if step not in self.trace.steps[-_NEAR:]:
            self.trace.steps.append(step)

    @contextmanager
    def given(self, counts: dict[int, tuple[Any, ...]]) -> Iterator[None]:
        """Knows how numbers that an operator is given were computed from sizes."""
        before, self._counted = self._counted, counts or self._counted
        try:
            yield
        finally:
            self._counted = before

    def escaped(self, number: Any) -> None:
        """A plain number made of sizes: nobody sees what becomes of it."""
        self.trace.steps.append(
            Step("expect", [[TextArgument(f"{number}")], TextArgument("true")], [])
        )

    def _traced(self, value: Any) -> bool:
        return any(self.knows(leaf) for leaf in leaves(value))

    # --- what is not looked into ---

    @property
    def hidden(self) -> bool:
        """Whether what happens now is part of a step."""
        return self._hidden > 0

    @contextmanager
    def hide(self) -> Iterator[None]:
        """What happens inside is no step of its own."""
        self._hidden += 1
        try:
            yield
        finally:
            self._hidden -= 1

    def unseen_size(self, least: int) -> int:
        """The first number from ``least`` up that no value so far has as a size."""
        while least in self._sizes:
            least += 1
        return least

    def refuse(self, reason: str) -> None:
        """Gives up taking the innermost module apart.

        Raises:
            Unplannable: Unless this is inside of a step.
        """
        if not self.hidden:
            raise Unplannable(reason, self._inside[-1])

    def composite(self, op: str, run: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        """What ``run`` returns, as one step: :func:`nodebits.core.recorded.recorded`."""
        if self.hidden:
            return run()
        args = tuple(mapped(arg, self._settled) for arg in args)
        with self.hide():
            result = run()
        if self._traced(list(args)) or op in _SIZED:
            made = [t for t in leaves(result) if isinstance(t, Tensor)]
            if any(self.knows(t) for t in made):
                self.refuse(f"{op} returns what it was given")
            self.add(op, args, made, False)
            if op == "row_layout":
                self._counts[id(result[0])] = result[2]
        return result

    def graph(self, adjacency: Any, num_src: int, num_dst: int, weight: Tensor | None) -> Graph:
        """The graph of an adjacency, whose facts are steps."""
        if self.hidden:
            return as_graph(plain_graph(adjacency), num_src, num_dst, weight)
        if isinstance(adjacency, RecordedGraph):
            as_graph(adjacency.real, num_src, num_dst)  # checks the sizes
            return adjacency if weight is None else adjacency.weighted(weight)
        if not self.knows(adjacency):
            if self.knows(weight):
                self.refuse("its edges are constant and their weights are not")
            with self.hide():
                return as_graph(adjacency, num_src, num_dst, weight)
        key = (id(adjacency), num_src, num_dst, id(weight))
        if key not in self._graphs:
            made = self._rows(adjacency, num_src, num_dst)
            self._graphs[key] = made if weight is None else made.weighted(weight)
        return self._graphs[key]

    def given_graph(
        self, edges: Tensor, sizes: Sequence[int], form: str, weight: Tensor | None
    ) -> Graph:
        """A graph that is an argument itself.

        Args:
            edges: int64 ``[2, E]``, an input.
            sizes: Numbers of sources and of targets.
            form: Of the graph.
            weight: float32 ``[E]``, an input, or None.
        """
        made = self._rows(edges, sizes[0], sizes[1]).with_form(form)
        return made if weight is None else made.weighted(weight)

    def joined_graph(self, parts: Sequence[Part], counts: Sequence[int]) -> Graph:
        """One graph of several, as a step."""
        return record_joined(self, parts, counts)

    def _rows(self, edges: Tensor, num_src: int, num_dst: int) -> RecordedGraph:
        """The rows of edges, as a step."""
        with self.hide():
            real = as_graph(edges, num_src, num_dst)
            perm = (
                torch.arange(real.num_edges, device=real.device)
                if real.perm is None
                else real.perm.clone()
            )
            parts = (real.indptr.clone(), real.indices.clone(), perm)
        self.add("csr", [edges, num_src, num_dst], parts, False)
        return RecordedGraph(self, real, *parts)

    def _settled(self, value: Any) -> Any:
        rows = waiting(value)
        return value if rows is None else rows.floats("a step")

    def returned(self, result: Any) -> None:
        """Notes what the model returned."""
        self.trace.result = mapped(result, self._ref)

    # --- modules ---

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Knows which module of ``model`` is running while it is open, in this thread.

        At its end the recorder lets go of its graphs, which hold it: with it go the weights that
        its steps have, and not when Python's collector comes by.
        """
        changed = []
        for path, module in model.named_modules():
            if isinstance(module, RowQuantizer | PackedWeight):
                continue
            own = vars(module).get("forward")
            changed.append((module, own))
            module.forward = self._follower(path, module, module.forward)
        try:
            yield
        finally:
            for module, own in changed:
                if own is None:
                    del module.forward
                else:
                    module.forward = own
            self._graphs.clear()

    def _follower(
        self, path: str, module: nn.Module, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        def follow(*args: Any, **keywords: Any) -> Any:
            if current().recorder is not self or self.hidden:
                return forward(*args, **keywords)
            if path in self._opaque:
                return self._whole(path, forward, args, keywords)
            self._inside.append(path)
            before = {} if hasattr(type(module), "eager") else _held_by(module)
            result = forward(*args, **keywords)
            if before and before != _held_by(module):
                self.refuse("it keeps something of its forward in itself")
            self._inside.pop()
            return result

        return follow

    def _whole(
        self, path: str, forward: Callable[..., Any], args: Any, keywords: dict[str, Any]
    ) -> Any:
        """A module as one step."""
        args = [mapped(arg, self._settled) for arg in args]
        keywords = {name: mapped(value, self._settled) for name, value in keywords.items()}
        with self.hide():
            given = mapped(list(args), plain_graph)
            result = settle(forward(*given, **mapped(keywords, plain_graph)))
        made = leaves(result)
        if not all(isinstance(t, Tensor) or t is None for t in made):
            self._inside.append(path.rpartition(".")[0])
            self.refuse(f"{path!r} returns a {type(made[0]).__name__}")
        tensors = [t for t in made if isinstance(t, Tensor)]
        # What was passed through is a value already; the step gives it another name.
        renamed = {id(t): t.view_as(t) for t in tensors if self.knows(t)}
        result = mapped(result, lambda t: renamed.get(id(t), t))
        tensors = [renamed.get(id(t), t) for t in tensors]
        args = [_module_argument(arg) for arg in args]
        named = [[name, _module_argument(value)] for name, value in keywords.items()]
        self.add("module", [path, args, named], tensors, False)
        return result


def _held_by(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Which objects a module holds, and how many things are in those that hold others."""
    sized = (list, dict, set)
    return {k: (id(v), len(v) if isinstance(v, sized) else 0) for k, v in vars(module).items()}


def global_hooks() -> list[dict[int, Any]]:
    """What is called in the forward of every module of the process."""
    return [torch_module._global_forward_pre_hooks, torch_module._global_forward_hooks]


def hooked(model: nn.Module) -> bool:
    """Whether functions are attached to a module that are called in its forward."""
    return any(global_hooks()) or any(
        name.endswith("_hooks") and "state_dict" not in name and bool(value)
        for module in model.modules()
        for name, value in vars(module).items()
    )


def _module_argument(value: Any) -> Any:
    """An argument of a module as a step has it: lists alone hold others."""
    if isinstance(value, RecordedGraph):
        parts = value.indptr, value.indices, value.perm, value.num_src, value.edge_weight
        return ["graph", *parts, value.form]
    if isinstance(value, dict):
        keys = [list(key) if isinstance(key, tuple) else key for key in value]
        held = [_module_argument(part) for part in value.values()]
        return ["dict", *map(list, zip(keys, held, strict=True))]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ["tuple", *map(_module_argument, value)]
    if isinstance(value, list):
        return ["list", *map(_module_argument, value)]
    return value
