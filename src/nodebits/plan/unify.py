"""Traces of one forward, on data of different sizes, become one plan.

They must have the same steps and the same constants. Where a number differs it is a size: that of
a value along an axis, or the largest number of an index plus one. Steps whose results nobody reads
are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nodebits.plan.containers import is_type
from nodebits.plan.example import Argument, weight_name
from nodebits.plan.indexing import checks_index
from nodebits.plan.parts import parts_of
from nodebits.plan.plan import DTYPES, Plan
from nodebits.plan.trace import Ref, Sized, Step, TextArgument, Trace, mapped


class Differs(Exception):
    """The traces are not of one plan; the message says where."""


def unify(traces: Sequence[Trace], arguments: Sequence[Argument]) -> Plan:
    """The plan of all traces.

    Args:
        traces: Of the same model, on data of sizes that have nothing in common.
        arguments: What the forward was called with.

    Raises:
        Differs: If they do not belong to one plan.
    """
    return _Unifier(traces).plan(arguments)


class _Unifier:
    def __init__(self, traces: Sequence[Trace]) -> None:
        self._traces, self._first = traces, traces[0]
        self._constants: dict[int, Tensor] = {}
        self._edges: list[str] = []
        self._numbers: dict[tuple[Any, ...], int] = {}  # values that are computed from sizes
        self._computed: list[dict[str, Any]] = []  # the steps that make them, once
        if not _equal([[s.op for s in trace.steps] for trace in traces]):
            raise Differs("its forward goes another way on data of another size")
        if not _equal([(len(trace.shapes), trace.inputs) for trace in traces]):
            raise Differs("it has other values on data of another size")
        if not _equal([trace.dtypes for trace in traces]):
            raise Differs("its results have other types on data of another size")

    def plan(self, arguments: Sequence[Argument]) -> Plan:
        roles = {argument.name: argument.role for argument in arguments}
        self._edges = [name for name, role in roles.items() if role in ("edges", "graph")]
        needed = {ref.value for ref in _refs(self._first.result)}
        steps, missing = self._steps(needed)
        while missing:  # a size may be that of a value which is computed for nothing else
            needed |= missing
            steps, missing = self._steps(needed)
        csr = {s["outs"][0]: s for s in steps if s["op"] == "csr"}
        inputs = []
        for name, value in self._first.inputs.items():
            shape = [sizes[0] if _equal(sizes) else None for sizes in self._sizes(value)]
            about: dict[str, Any] = {
                "name": name, "value": value, "dtype": DTYPES[self._first.dtypes[value]],
                "shape": shape,
            }  # fmt: skip
            found = [s for s in csr.values() if s["args"][0] == f"v{value}"]
            if roles.get(name) in ("edges", "graph") and len(found) == 1:
                about["graph"] = dict(
                    zip(("indptr", "indices", "perm"), found[0]["outs"], strict=True)
                )
                weight = f"v{self._first.inputs.get(weight_name(name), -1)}"
                for step in steps:
                    if step["op"] == "in_order" and step["args"][0] == weight:
                        about["graph"]["weight"] = step["outs"][0]
            inputs.append(about)
        result = self._result([trace.result for trace in self._traces])
        given = [argument.to_json() for argument in arguments]
        typed = any(any(argument.of) for argument in arguments)
        parts = None if typed else parts_of(inputs, steps, result, roles)
        return Plan.of(inputs, self._constants, steps, result, given, parts)

    def _sizes(self, value: int) -> list[tuple[int, ...]]:
        """Along each axis of a value its size in every trace."""
        return list(zip(*[trace.shapes[value] for trace in self._traces], strict=True))

    def _steps(self, results: set[int]) -> tuple[list[dict[str, Any]], set[int]]:
        """Steps that lead to some values, and values that are missing, of which they take sizes."""
        needed = set(results)
        kept: list[tuple[Step, ...]] = []
        for same in reversed(list(zip(*[trace.steps for trace in self._traces], strict=True))):
            read = bool(needed & set(same[0].outs))
            check = not same[0].outs or checks_index(same[0], self._first, self._edges)
            if read or check:
                kept.append(same)
                needed |= {ref.value for ref in _refs(same[0].args)}
        steps: list[dict[str, Any]] = []
        expected: list[dict[str, Any]] = []
        self._computed = []
        done = 0
        for same in reversed(kept):
            first = same[0]
            before = min(first.outs, default=len(self._first.shapes))
            if not _equal([len(step.args) for step in same]):
                raise Differs(f"{first.op} gets other arguments on data of another size")
            if first.op == "view":
                same = self._merged(same, before)
            args = [
                self._same(given, before, first.op)
                for given in zip(*[step.args for step in same], strict=True)
            ]
            if first.op == "slice":
                expected += self._sliced(same, args)
            if first.op == "view":
                self._viewed(same, args)
            approx = {"approx": True} if first.approx else {}
            step = {"op": first.op, "args": args, "outs": first.outs, **approx}
            steps += self._computed[done:]
            done = len(self._computed)
            if first.op != "expect":
                steps.append({**step, "path": first.path})
            elif _may_fail(args[0]) and step not in expected:
                expected.append(step)
        steps = self._with_expected(steps, expected)
        made = {v for step in steps for v in step["outs"]} | set(self._first.inputs.values())
        return steps, self._sizes_of(steps) - made

    def _sliced(self, same: Sequence[Step], args: list[Any]) -> list[dict[str, Any]]:
        """What is expected of the end of a slice; one at the end of its axis has no number.

        An end beyond its axis is cut there, which no trace may have in common with the others by
        chance.
        """
        value, dim, end = same[0].args[0], same[0].args[1], args[3]
        if not isinstance(value, Ref) or end is None:
            return []
        sizes = self._sizes(value.value)[dim]
        ends = [_plain(step.args[3]) for step in same]
        if list(sizes) == ends:
            args[3] = None
            return []
        if same[0].exact:
            return []
        beyond = [n < 0 or n >= size for n, size in zip(ends, sizes, strict=True)]
        if _equal(sizes) and _equal(ends):
            return []
        if not isinstance(end, str) and not _equal(beyond):
            return []  # both were seen
        if not _equal(beyond) or any(n < 0 for n in ends):
            raise Differs("it takes a part whose end lies beyond the data at times")
        size = sizes[0] if _equal(sizes) else f"d{value.value}.{dim}"
        outcome = str(beyond[0]).lower()
        return [{"op": "expect", "args": [[end, size, "=ge"], f"={outcome}"], "outs": []}]

    def _viewed(self, same: Sequence[Step], args: list[Any]) -> None:
        """Writes sizes of a view as those of what is viewed, wherever these are the same.

        Others may be so in examples alone: an edge_index has as many edges as what is left of it
        without loops, if there were none.
        """
        value, sizes = same[0].args[0], args[1]
        if isinstance(value, Ref):
            every = zip(*[step.args[1] for step in same], strict=True)
            own = [self._axis_of(tuple(map(_plain, some)), [value.value]) for some in every]
            args[1] = [
                mine if mine and isinstance(size, str) and size[0] == "d" else size
                for mine, size in zip(own, sizes, strict=True)
            ]

    def _merged(self, same: Sequence[Step], before: int) -> list[Step]:
        """Views whose one unknown size is said as what it is: the rest of what is viewed.

        It is that of axes made one: a linear map takes ``[N, 3, C]`` as ``3 N`` rows.
        """
        value = same[0].args[0]
        every = list(zip(*[step.args[1] for step in same], strict=True))
        moving = [axis for axis, some in enumerate(every) if not _equal(some)]
        fixed = math.prod(int(_plain(some[0])) for some in every if _equal(some))
        if len(moving) != 1 or not isinstance(value, Ref) or fixed < 1:
            return list(same)
        axis = moving[0]
        try:
            self._same(every[axis], before, "view")
            return list(same)
        except Differs:
            pass
        made = []
        for number, step in enumerate(same):
            terms: list[Any] = []
            for sizes in self._sizes(value.value):
                terms += [sizes[number], "mul"] if terms else [sizes[number]]
            size = Sized(_plain(step.args[1][axis]), (*terms, fixed, "floordiv"))
            viewed = [*step.args[1][:axis], size, *step.args[1][axis + 1 :]]
            made.append(replace(step, args=[value, viewed, *step.args[2:]]))
        return made

    def _with_expected(
        self, steps: list[dict[str, Any]], expected: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Steps, and what is expected of sizes as soon as these are known, which costs little."""
        known = set(self._first.inputs.values()) | set(self._constants)
        found: list[dict[str, Any]] = []
        for step in [None, *steps]:
            if step is not None:
                found.append(step)
                known |= set(step["outs"])
            ready = [one for one in expected if self._sizes_of([one]) <= known]
            found += ready
            expected = [one for one in expected if one not in ready]
        return found + expected

    def _same(self, given: Sequence[Any], before: int, op: str) -> Any:
        """One argument of all, as the plan writes it."""
        first = given[0]
        if any(isinstance(one, Sized) for one in given):
            return self._counted(given, before, op)
        if isinstance(first, Ref) and _equal(given):
            return f"v{first.value}"
        if isinstance(first, TextArgument) and _equal(given):
            return f"={first.text}"
        if all(isinstance(one, Tensor) for one in given):
            return f"v{self._constant(given, op)}"
        kinds = [type(one) for one in given]
        if not _equal(kinds):
            other = next(kind for kind in kinds if kind is not kinds[0])
            raise Differs(f"{op} gets a {kinds[0].__name__} and then a {other.__name__}")
        if isinstance(first, list | tuple) and _equal([len(one) for one in given]):
            return [self._same(parts, before, op) for parts in zip(*given, strict=True)]
        if first is None or (isinstance(first, bool | float | int) and _equal(given)):
            return first
        if op == "expect" and isinstance(first, TextArgument):
            raise Differs("its forward goes another way on data of another size")
        if isinstance(first, int) and not isinstance(first, bool):
            return self._size(tuple(given), before, op)
        raise Differs(f"{op} gets {' and then '.join(map(repr, given[:2]))}")

    def _counted(self, given: Sequence[Any], before: int, op: str) -> Any:
        """A number that was computed from sizes: a size itself, or what a step computes."""
        values = tuple([_plain(one) for one in given])
        try:
            return self._same(values, before, op)
        except Differs:
            terms = [one.terms for one in given if isinstance(one, Sized)]
            if len(terms) < len(given) or not _equal([len(one) for one in terms]):
                raise
        told = [
            f"={some[0]}" if isinstance(some[0], str) else self._same(some, before, op)
            for some in zip(*terms, strict=True)
        ]
        key = tuple(told)
        if key not in self._numbers:
            self._numbers[key] = self._new()
        number = self._numbers[key]
        if all(number not in step["outs"] for step in self._computed):
            self._computed.append({"op": "number", "args": [told], "outs": [number]})
        return f"n{number}+0"

    def _new(self) -> int:
        """A number for one more value."""
        return len(self._first.shapes) + len(self._constants) + len(self._numbers)

    def _constant(self, given: Sequence[Tensor], op: str) -> int:
        a = given[0]
        for b in given[1:]:
            if a is not b and (a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a, b)):
                raise Differs(f"{op} gets a tensor that follows from the data in a way nobody saw")
        for number, tensor in self._constants.items():
            if tensor is a:
                return number
        number = self._new()
        self._constants[number] = a
        return number

    def _size(self, sizes: tuple[int, ...], before: int, op: str) -> str:
        # What exists in any case comes first: another value might be computed for its size alone.
        found = (
            self._axis_of(sizes, sorted(self._first.inputs.values()))
            or self._read_of(sizes)
            or self._axis_of(sizes, range(before))
        )
        if not found:
            told = " and then ".join(map(str, sizes))
            raise Differs(f"{op} gets {told}, which is no size that is known")
        return found

    def _axis_of(self, sizes: tuple[int, ...], values: Iterable[int]) -> str:
        for value in values:
            for axis, found in enumerate(self._sizes(value)):
                if found == sizes:
                    return f"d{value}.{axis}"
        return ""

    def _shape(self, value: int) -> list[Any]:
        """Of a result: numbers, sizes of inputs, or None for what only a run can tell."""
        inputs = sorted(self._first.inputs.values())
        return [
            sizes[0] if _equal(sizes) else self._axis_of(sizes, inputs) or None
            for sizes in self._sizes(value)
        ]

    def _read_of(self, sizes: tuple[int, ...]) -> str:
        for reads in zip(*[trace.reads for trace in self._traces], strict=True):
            for plus in (0, 1):
                if tuple(read.number + plus for read in reads) == sizes:
                    return f"n{reads[0].value}+{plus}"
        return ""

    def _sizes_of(self, steps: list[dict[str, Any]]) -> set[int]:
        found: set[int] = set()

        def look(value: Any) -> None:
            if isinstance(value, str) and value[0] in "dn":
                found.add(int(value[1:].replace("+", ".").split(".")[0]))

        for step in steps:
            mapped(step["args"], look)
        return found

    def _result(self, given: Sequence[Any]) -> Any:
        first = given[0]
        if isinstance(first, Ref) and _equal(given):
            dtype = DTYPES.get(self._first.dtypes[first.value])
            if dtype is None:
                raise Differs(f"it returns {self._first.dtypes[first.value]}")
            return {"value": first.value, "shape": self._shape(first.value), "dtype": dtype}
        if all(one is None for one in given):
            return {"none": True}
        if all(isinstance(one, dict) for one in given) and _equal([list(one) for one in given]):
            made = {key: self._result([one[key] for one in given]) for key in first}
            plain = all(isinstance(key, str) for key in first)
            if plain and list(first) == sorted(first):  # the order that files have
                return {"dict": made}
            if not all(is_type(key) for key in first):
                raise Differs("it returns a dictionary by other things than texts")
            return {"items": [[key, about] for key, about in made.items()]}
        alike = _equal([type(one) for one in given])
        if alike and type(first) in (list, tuple) and _equal([len(one) for one in given]):
            parts = [self._result(some) for some in zip(*given, strict=True)]
            return {"tuple": parts} if isinstance(first, tuple) else parts
        if all(isinstance(one, Tensor) for one in given):
            about = {"shape": list(first.shape), "dtype": DTYPES[first.dtype]}
            return {"value": self._constant(given, "the result"), **about}
        raise Differs(f"it returns a {type(first).__name__}, which is no tensor")


def _plain(number: Any) -> Any:
    return number.value if isinstance(number, Sized) else number


def _equal(values: Sequence[Any]) -> bool:
    """Whether all are one and the same."""
    return all(value == values[0] for value in values[1:])


def _may_fail(terms: list[Any]) -> bool:
    """Whether a comparison may have another outcome: none of numbers alone, or of the same two."""
    if not any(isinstance(term, str) and term[0] in "dn" for term in terms):
        return False
    return not (len(terms) == 3 and terms[0] == terms[1])


def _refs(value: Any) -> list[Ref]:
    found: list[Ref] = []

    def look(leaf: Any) -> None:
        if isinstance(leaf, Ref):
            found.append(leaf)

    mapped(value, look)
    return found
