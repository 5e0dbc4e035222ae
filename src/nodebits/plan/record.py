"""A forward noted step by step, on small data that stands for any.

What the model holds, and what follows from that alone, is constant. Everything that follows from
the arguments is a value, and what makes it is a step: an operator of this library, one of torch
(:mod:`nodebits.plan.torch_steps`), a function that says it is one
(:mod:`nodebits.core.recorded`), or a whole module that cannot be taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nodebits.engine.pending import waiting
from nodebits.plan.recording import Recording
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
    Sized,
    leaves,
    mapped,
    sum_of,
)

# Tensors that torch sums in their order, whatever their sizes.
_FEW_PARTS = 4
# Results of these are the tensor itself, for other readers.
_SAME = ("detach", "alias", "lift_fresh")


class Recorder(Recording, TorchDispatchMode):
    """A recording that sees by itself what torch does with tensors.

    Args:
        opaque: See :class:`Recording`.
        sizes: Likewise.
    """

    def __init__(self, opaque: frozenset[str], sizes: frozenset[int]) -> None:
        super().__init__(opaque, sizes)
        self._column: dict[int, Tensor] = {}  # the vector that a column is a view of
        self._expanded: dict[int, Tensor] = {}  # the vector that an index of entries repeats
        self._wide: dict[int, Tensor] = {}  # what a tensor repeats
        self._zeros: set[int] = set()  # tensors that were made of zeros and not written to since
        self._stacked: dict[int, list[Tensor]] = {}  # what was stacked to a tensor
        self._largest: set[int] = set()  # values that are the largest number of an index

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
