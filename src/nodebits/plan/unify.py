"""Two traces of one forward, on data of different sizes, become one plan.

They must have the same steps and the same constants. Where a number differs it is a size: that of
a value along an axis, or the largest number of an index plus one. Steps whose results nobody reads
are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nodebits.plan.example import Argument, weight_name
from nodebits.plan.parts import parts_of
from nodebits.plan.plan import DTYPES, Plan
from nodebits.plan.trace import Ref, Step, TextArgument, Trace, mapped


class Differs(Exception):
    """The two traces are not of one plan; the message says where."""


def unify(one: Trace, other: Trace, arguments: Sequence[Argument]) -> Plan:
    """The plan of both.

    Args:
        one: A trace.
        other: One of the same model on data of other sizes.
        arguments: What the forward was called with.

    Raises:
        Differs: If they do not belong to one plan.
    """
    return _Unifier(one, other).plan(arguments)


class _Unifier:
    def __init__(self, one: Trace, other: Trace) -> None:
        self._one, self._other = one, other
        self._constants: dict[int, Tensor] = {}
        if [s.op for s in one.steps] != [s.op for s in other.steps]:
            raise Differs("its steps are others on data of another size")
        if len(one.shapes) != len(other.shapes) or one.inputs != other.inputs:
            raise Differs("it has other values on data of another size")
        if one.dtypes != other.dtypes:
            raise Differs("its results have other types on data of another size")

    def plan(self, arguments: Sequence[Argument]) -> Plan:
        one, other = self._one, self._other
        roles = {argument.name: argument.role for argument in arguments}
        needed = {ref.value for ref in _refs(one.result)}
        steps, missing = self._steps(needed)
        while missing:  # a size may be that of a value which is computed for nothing else
            needed |= missing
            steps, missing = self._steps(needed)
        csr = {s["outs"][0]: s for s in steps if s["op"] == "csr"}
        inputs = []
        for name, value in one.inputs.items():
            shape = [
                a if a == b else None
                for a, b in zip(one.shapes[value], other.shapes[value], strict=True)
            ]
            about: dict[str, Any] = {
                "name": name, "value": value, "dtype": DTYPES[one.dtypes[value]], "shape": shape,
            }  # fmt: skip
            found = [s for s in csr.values() if s["args"][0] == f"v{value}"]
            if roles.get(name) in ("edges", "graph") and len(found) == 1:
                about["graph"] = dict(
                    zip(("indptr", "indices", "perm"), found[0]["outs"], strict=True)
                )
                weight = f"v{one.inputs.get(weight_name(name), -1)}"
                for step in steps:
                    if step["op"] == "in_order" and step["args"][0] == weight:
                        about["graph"]["weight"] = step["outs"][0]
            inputs.append(about)
        result = self._result(one.result, other.result)
        given = [argument.to_json() for argument in arguments]
        parts = parts_of(inputs, steps, result, roles)
        return Plan.of(inputs, self._constants, steps, result, given, parts)

    def _steps(self, results: set[int]) -> tuple[list[dict[str, Any]], set[int]]:
        """Steps that lead to some values, and values that are missing, of which they take sizes."""
        one, other, needed = self._one, self._other, set(results)
        kept: list[tuple[Step, Step]] = []
        for mine, theirs in reversed(list(zip(one.steps, other.steps, strict=True))):
            if not mine.outs or needed & set(mine.outs):  # without results: a check
                kept.append((mine, theirs))
                needed |= {ref.value for ref in _refs(mine.args)}
        steps: list[dict[str, Any]] = []
        for mine, theirs in reversed(kept):
            before = min(mine.outs, default=len(one.shapes))
            args = [
                self._same(a, b, before, mine.op)
                for a, b in zip(mine.args, theirs.args, strict=True)
            ]
            approx = {"approx": True} if mine.approx else {}
            steps.append({"op": mine.op, "args": args, "outs": mine.outs, **approx})
        made = {v for step in steps for v in step["outs"]} | set(one.inputs.values())
        return steps, self._sizes_of(steps) - made

    def _same(self, a: Any, b: Any, before: int, op: str) -> Any:
        """One argument of both, as the plan writes it."""
        if isinstance(a, Ref) and isinstance(b, Ref) and a.value == b.value:
            return f"v{a.value}"
        if isinstance(a, TextArgument) and a == b:
            return f"={a.text}"
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return f"v{self._constant(a, b, op)}"
        if type(a) is not type(b):
            raise Differs(f"{op} gets a {type(a).__name__} and then a {type(b).__name__}")
        if isinstance(a, list | tuple) and len(a) == len(b):
            return [self._same(x, y, before, op) for x, y in zip(a, b, strict=True)]
        if a is None or (isinstance(a, bool | float | int) and a == b):
            return a
        if isinstance(a, int):
            return self._size(a, b, before, op)
        raise Differs(f"{op} gets {a!r} and then {b!r}")

    def _constant(self, a: Tensor, b: Tensor, op: str) -> int:
        if a is not b and (a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a, b)):
            raise Differs(f"{op} gets a tensor that follows from the data in a way nobody saw")
        for number, tensor in self._constants.items():
            if tensor is a:
                return number
        number = len(self._one.shapes) + len(self._constants)
        self._constants[number] = a
        return number

    def _size(self, a: int, b: int, before: int, op: str) -> str:
        # What exists in any case comes first: another value might be computed for its size alone.
        inputs = self._axis_of(a, b, sorted(self._one.inputs.values()))
        return (
            inputs
            or self._read_of(a, b)
            or self._axis_of(a, b, range(before))
            or _unknown(op, a, b)
        )

    def _axis_of(self, a: int, b: int, values: Iterable[int]) -> str:
        for value in values:
            sizes = zip(self._one.shapes[value], self._other.shapes[value], strict=True)
            for axis, pair in enumerate(sizes):
                if pair == (a, b):
                    return f"d{value}.{axis}"
        return ""

    def _shape(self, value: int) -> list[Any]:
        """Of a result: numbers, sizes of inputs, or None for what only a run can tell."""
        inputs = sorted(self._one.inputs.values())
        sizes = zip(self._one.shapes[value], self._other.shapes[value], strict=True)
        return [a if a == b else self._axis_of(a, b, inputs) or None for a, b in sizes]

    def _read_of(self, a: int, b: int) -> str:
        for one, other in zip(self._one.reads, self._other.reads, strict=True):
            for plus in (0, 1):
                if (one.number + plus, other.number + plus) == (a, b):
                    return f"n{one.value}+{plus}"
        return ""

    def _sizes_of(self, steps: list[dict[str, Any]]) -> set[int]:
        found: set[int] = set()

        def look(value: Any) -> None:
            if isinstance(value, str) and value[0] in "dn":
                found.add(int(value[1:].replace("+", ".").split(".")[0]))

        for step in steps:
            mapped(step["args"], look)
        return found

    def _result(self, a: Any, b: Any) -> Any:
        if isinstance(a, Ref) and a == b:
            dtype = DTYPES[self._one.dtypes[a.value]]
            return {"value": a.value, "shape": self._shape(a.value), "dtype": dtype}
        if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
            if not all(isinstance(key, str) for key in a):
                raise Differs("it returns a dictionary by other things than texts")
            return {"dict": {key: self._result(a[key], b[key]) for key in a}}
        if type(a) in (list, tuple) and type(a) is type(b) and len(a) == len(b):
            parts = [self._result(x, y) for x, y in zip(a, b, strict=True)]
            return {"tuple": parts} if isinstance(a, tuple) else parts
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            about = {"shape": list(a.shape), "dtype": DTYPES[a.dtype]}
            return {"value": self._constant(a, b, "the result"), **about}
        raise Differs(f"it returns a {type(a).__name__}, which is no tensor")


def _unknown(op: str, a: int, b: int) -> str:
    raise Differs(f"{op} gets {a} and then {b}, which is no size that is known")


def _refs(value: Any) -> list[Ref]:
    found: list[Ref] = []

    def look(leaf: Any) -> None:
        if isinstance(leaf, Ref):
            found.append(leaf)

    mapped(value, look)
    return found
