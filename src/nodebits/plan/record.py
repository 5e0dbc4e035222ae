"""A forward noted step by step, on small data that stands for any.

What the model holds, and what follows from that alone, is constant. Everything that follows from
the arguments is a value, and what makes it is a step: an operator of this library, one of torch
(:mod:`nodebits.plan.torch_steps`), a function that says it is one
(:mod:`nodebits.core.recorded`), or a whole module that cannot be taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import TorchDispatchMode

from nodebits.core.context import current
from nodebits.engine.pending import settle, waiting
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph, Part
from nodebits.graph.adjacency import as_graph
from nodebits.plan.graphs import RecordedGraph, plain_graph, record_joined
from nodebits.plan.sizes import plain
from nodebits.plan.torch_steps import (
    ANY_STRIDES,
    BROADCASTING,
    FACTORIES,
    bound,
    in_place_twin,
    step_of,
)
from nodebits.plan.trace import (
    Read,
    Ref,
    Sized,
    Step,
    TextArgument,
    Trace,
    leaves,
    mapped,
    sum_of,
)

# Comparisons that are repeated one after another are noted once.
_NEAR = 8
# Tensors that torch sums in their order, whatever their sizes.
_FEW_PARTS = 4
# Steps that follow from a number of rows, whatever else they are given.
_SIZED = ("own_nodes",)
# Results of these are the tensor itself, for other readers.
_SAME = ("detach", "alias", "lift_fresh")


class Unplannable(Exception):
    """A forward that cannot be repeated by its steps.

    Attributes:
        reason: Why, to follow "since".
        path: The innermost module that did it.
    """

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(f"{path or 'the model'}: {reason}")
        self.reason, self.path = reason, path


class Recorder(TorchDispatchMode):
    """Notes what happens to the tensors of the arguments.

    Args:
        opaque: Paths of modules that are one step each.
        sizes: Numbers of nodes, edges, graphs: a tensor made with one of them as a size is no
            constant.
    """

    def __init__(self, opaque: frozenset[str], sizes: frozenset[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self._opaque, self._sizes = opaque, set(sizes)
        # By identity. The tensors are held: another one must not get the number of one that died.
        self._known: dict[int, int] = {}
        self._held: list[Any] = []
        self._column: dict[int, Tensor] = {}  # the vector that a column is a view of
        self._expanded: dict[int, Tensor] = {}  # the vector that an index of entries repeats
        self._wide: dict[int, Tensor] = {}  # what a tensor repeats
        self._zeros: set[int] = set()  # tensors that were made of zeros and not written to since
        self._stacked: dict[int, list[Tensor]] = {}  # what was stacked to a tensor
        self._largest: set[int] = set()  # values that are the largest number of an index
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

    # --- torch ---

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """For every operator of torch, nodebits' own included."""
        keywords = kwargs or {}
        if self.hidden:
            return func(*args, **keywords)
        if any(waiting(t) is not None for t in leaves((args, keywords))):
            with self:
                args = mapped(tuple(args), self._settled)
                keywords = mapped(keywords, self._settled)
        with self.hide():
            given = bound(func, args, keywords)
            result = func(*args, **keywords)
        if func._opname in ("zeros", "new_zeros", "zeros_like"):
            self._zeros.add(id(result))
            self._held.append(result)
        if not self._traced(given) and not self._sized(func, given):
            return result
        made = [t for t in leaves(result) if isinstance(t, Tensor)]
        if func.namespace == "nodebits":
            counts = self._counts.get(id(given.get("order")))
            if counts is not None:  # what the operator takes as numbers is a value of the plan
                given["counts"] = counts
            self.add(func._opname, list(given.values()), made, False)
        elif func._opname in _SAME or (
            (func._opname == "view" or (func._opname == "expand" and made[0].dim() == 1))
            and made[0].shape == given["self"].shape
            and made[0].dtype == given["self"].dtype
        ):
            self._tag(made[0], self._known[id(given["self"])])
        elif func._opname == "_local_scalar_dense":
            self._read(given["self"], result)
        elif func._schema.is_mutable:
            self._changed(func, given, made)
        elif not made or len(made) != len([t for t in leaves(result) if t is not None]):
            self.refuse(f"torch's {func} asks for values that follow from the data")
        else:
            self._noted(func, given, made)
        return result

    def _sized(self, func: Any, given: dict[str, Any]) -> bool:
        """Whether a tensor is made whose size may be another for other data."""
        if func.namespace == "nodebits" or func._opname not in FACTORIES:
            return False
        numbers = [v for v in leaves(given) if isinstance(v, int) and not isinstance(v, bool)]
        return any(n in self._sizes for n in numbers)

    def _read(self, t: Tensor, number: Any) -> None:
        value = self._known[id(t)]
        if value not in self._largest:
            self.refuse("it goes on by values that follow from the data")
        self.trace.reads.append(Read(value, int(number)))

    def _changed(self, func: Any, given: dict[str, Any], made: list[Tensor]) -> None:
        """An operator that writes to an argument: from here on that is another value."""
        twin = in_place_twin(func)
        target = given.get("self")
        if twin is None or not isinstance(target, Tensor) or len(made) != 1:
            self.refuse(f"torch's {func} changes a tensor in a way that is no step")
            return
        if not self.knows(target):
            if id(target) not in self._zeros:
                self.refuse(f"torch's {func} changes a tensor that was there before")
            self._noted(twin, given, [target])
            self._zeros.discard(id(target))
            return
        old = self._known[id(target)]
        names = set(self._memory.get(target.untyped_storage().data_ptr(), ()))
        if names - {old} or old in self.trace.inputs.values():
            self.refuse(f"torch's {func} changes a tensor that has another name")
        self._memory.pop(target.untyped_storage().data_ptr(), None)
        self._noted(twin, given, [target])
        self._zeros.discard(id(target))

    def _noted(self, func: Any, given: dict[str, Any], made: list[Tensor]) -> None:
        index = given.get("index")
        if isinstance(index, Tensor) and id(index) in self._expanded:
            given = {**given, "index": self._expanded[id(index)], "is_expanded": True}
        if func._opname == "squeeze":
            self._squeezed(given)
        if func._opname in BROADCASTING:
            given = {key: self._narrow(value) for key, value in given.items()}
        if func._opname in ("split", "split_with_sizes"):
            self._split(given, made)
            return
        given["from_zero"] = id(given.get("self")) in self._zeros
        if func._opname in ("sum", "mean") and self._summed(func, given, made[0]):
            return
        if func._opname in ("max", "min") and len(made) == 2 and made[0].dtype == torch.float32:
            # As two steps: as a rule nobody asks where these values lie.
            dim = int(given["dim"]) % given["self"].dim()
            self.add(
                f"a{func._opname}", [given["self"], dim, bool(given["keepdim"])], made[:1], False
            )
            made = [made[0].clone(), made[1]]
        found = step_of(func, given, made)
        if (found.op == "torch" or found.approx) and func._opname not in ANY_STRIDES:
            for t in leaves(given):
                if self.knows(t) and t.is_floating_point() and not t.is_contiguous():
                    self.refuse(
                        f"torch's {func} gets a tensor whose rows are not one after another, and "
                        "rounds otherwise where they are"
                    )
        if func._opname == "expand" and self.knows(given["self"]):
            self._wide[id(made[0])] = given["self"]
            self._note_expanded(given["self"], made[0])
        self.add(found.op, found.args, made[:1] if found.op == "layer_norm" else made, found.approx)
        if found.op == "max_index":
            self._largest.add(self._known[id(made[0])])
        source = given.get("self")
        if found.op == "stack" and found.args[1] == 0 and len(found.args[0]) <= _FEW_PARTS:
            self._stacked[id(made[0])] = found.args[0]
        if found.op == "view" and isinstance(source, Tensor) and source.dim() == 1:
            self._column[id(made[0])] = source

    def _summed(self, func: Any, given: dict[str, Any], made: Tensor) -> bool:
        """A sum or mean over a few tensors that were stacked, which torch adds one by one."""
        parts = self._stacked.get(id(given["self"]), [])
        along = given.get("dim")
        if along is None or list(along) != [0] or given.get("keepdim") or not parts:
            return False
        if made.dtype != torch.float32 or any(t.dtype != torch.float32 for t in parts):
            return False
        steps: list[tuple[str, Any, Any, Tensor]] = []
        with self.hide():
            total = parts[0]
            terms: list[Any] = [0.0, *parts[1:]]  # from zero on: a negative zero becomes one
            for term in terms:
                steps.append(("add", total, term, total + term))
                total = steps[-1][-1]
            if func._opname == "mean":
                steps.append(("div", total, float(len(parts)), total / len(parts)))
                total = steps[-1][-1]
            if not torch.equal(total, made):
                return False
        for op, left, right, result in steps:
            self.add(op, [left, right], [made if result is total else result], False)
        return True

    def _split(self, given: dict[str, Any], made: list[Tensor]) -> None:
        """Parts along an axis, a step each; together they are all of it."""
        dim = int(given.get("dim", 0)) % given["self"].dim()
        size, parts = given["self"].size(dim), [part.size(dim) for part in made]
        if isinstance(given.get("split_size"), int):  # how many parts there are depends on the size
            most = len(made) * int(given["split_size"])
            self.expect((size, most, "le"), True)
            self.expect((size, most - int(given["split_size"]), "gt"), size > 0)
        else:
            self.expect((size, *self._sum(parts), "eq"), True)
        for i, part in enumerate(made):
            start, end = (Sized(sum(parts[:n]), self._sum(parts[:n])) for n in (i, i + 1))
            last = i == len(made) - 1
            self.add("slice", [given["self"], dim, start, None if last else end, 1], [part], False)
            self.trace.steps[-1].exact = True

    def _sum(self, sizes: Sequence[int]) -> tuple[int | float | str, ...]:
        """How a sum of sizes is computed."""
        return sum_of(self._counted.get(size, (size,)) for size in sizes)

    def _squeezed(self, given: dict[str, Any]) -> None:
        """Which axes go depends on which have one entry."""
        x, dims = given["self"], given.get("dim", range(given["self"].dim()))
        for dim in [dims] if isinstance(dims, int) else dims:
            self.expect((x.size(dim), 1, "eq"), x.size(dim) == 1)

    def _narrow(self, value: Any) -> Any:
        """What was made as wide as another operand, for an operator that does so itself."""
        return self._wide.get(id(value), value) if isinstance(value, Tensor) else value

    def _note_expanded(self, source: Tensor, wide: Tensor) -> None:
        """A vector as a column, made as wide as what is summed by it."""
        if source.dim() == 2 and source.size(1) == 1 and id(source) in self._column:
            self._expanded[id(wide)] = self._column[id(source)]


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
