"""A plan for samples: every step computes the rows alone that the asked nodes need.

In a sample the nodes stand in order of the hop that reached them. What a node needs of a sum over
neighbours lies one hop further, so the rows that are needed of a value are always the first ones:
as many as there were after some hop, its *level*. A step at level k reads rows of level k, a sum
over neighbours sources of level k + 1. Edges stand in order of their targets, and so do their
features: those into the first rows are the first. What a step is not known to do row by row gets
and gives all rows. Rows do not depend on other rows, so those that are left have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from nodebits.core.strict_json import to_json
from nodebits.plan.kinds import OF_GRAPH, value_of, values_of
from nodebits.plan.part_kinds import COUNTED, PartKinds, Place
from nodebits.plan.plan import Plan, step_name

# What gets or gives as many rows as there are, whatever is asked for; sources count edges to all.
_OF_ALL = ("full", "arange", "segment_sum", COUNTED)
# Of a graph, but each target's part follows from its own edges.
_BY_TARGET = ("edge_codes",)


class _SampleKinds(PartKinds):
    """The kinds of a plan's values, where the edges of a sample are those of its nodes."""

    def _look(self, step: dict[str, Any]) -> bool:
        op, args, outs = step["op"], step["args"], step["outs"]
        by_row = super()._look(step) or op in _BY_TARGET
        if op == "full" and all(isinstance(size, int) for size in args[0]):
            self.constants[outs[0]] = torch.full(*args[:2], device="cpu")
        # Loops stand behind all edges, so the first rows of both are no first rows.
        looped = any(self.axis(value) == "looped" for value in (*values_of(args), *outs))
        return by_row and not looped and op not in _OF_ALL

    def of_edges(self, pointer: int) -> int:
        """A value with as many rows as a pointer has edges."""
        return next(value for value in self._indices if self.kinds[value].pointer == pointer)


class _Step(NamedTuple):
    """A step, whether it works row by row, and where it reads rows of sources."""

    step: dict[str, Any]
    by_row: bool
    sources: dict[Place, int]


@dataclass(frozen=True)
class Trimmed:
    """A plan for samples of so many hops.

    Attributes:
        plan: With the inputs of the first one, edges in order of their targets, and ``levels``.
        levels: Value, int64 ``[1]``, that holds the number of nodes after a hop, by hop.
    """

    plan: Plan
    levels: dict[int, int]


def trimmed(plan: Plan, hops: int) -> Trimmed | None:
    """The plan with fewer rows; its result has those of the seeds. None where that is all rows.

    Args:
        plan: Of a forward that returns a row per node.
        hops: Of the samples.
    """
    rows = _SampleKinds.of(plan)
    if rows is None or len(rows.graphs) != 1 or "value" not in rows.about["outputs"]:
        return None
    return _Trimming(plan, rows, hops).run()


def steps_of_all(plan: Plan) -> list[str]:
    """Names of steps for whose sake all rows of a sample are computed; none where fewer are.

    Args:
        plan: Of any forward; of one that returns no row per node there are no samples.
    """
    rows = _SampleKinds.of(plan)
    shape = plan.about["outputs"].get("shape") or [None]
    by_node = isinstance(shape[0], str) and rows is not None and rows.counts_nodes(shape[0])
    if rows is None or not by_node or trimmed(plan, 1) is not None:
        return []
    # Those that lose what their rows are of.
    found = [
        step_name(step)
        for step in rows.about["steps"]
        if any(rows.axis(value) == "node" for value in values_of(step["args"]))
        and any(not rows.axis(out) for out in step["outs"])
    ]
    return list(dict.fromkeys(found))


class _Trimming:
    def __init__(self, plan: Plan, rows: _SampleKinds, hops: int) -> None:
        self._plan, self._rows, self._hops = plan, rows, hops
        self._about, self._kinds = rows.about, rows.kinds
        self._levels = dict.fromkeys(rows.given, hops)
        self._need: dict[int, int] = {}
        self._made: dict[tuple[int, int], int] = {}
        self._given = [
            _Step(*one) for one in zip(self._about["steps"], rows.by_row, rows.sources, strict=True)
        ]
        self._steps: list[dict[str, Any]] = []
        self._level_values: dict[int, int] = {}
        made = (out for step in self._about["steps"] for out in step["outs"])
        self._next: int = 1 + max([rows.first, *rows.given, *rows.constants, *made])

    def run(self) -> Trimmed | None:
        result = self._about["outputs"]["value"]
        if result not in self._kinds or self._kinds[result].axis != "node":
            return None
        self._need[result] = 0
        self._given = [
            one._replace(by_row=one.by_row and not self._rounded(one)) for one in self._given
        ]
        wanted = [self._ask(one) for one in reversed(self._given)]
        for one, level in zip(self._given, reversed(wanted), strict=True):
            self._emit(one, level)
        outputs = {**self._about["outputs"], "value": self._at(result, 0)}
        inputs = self._about["inputs"] + [
            {"name": f"level {k}", "value": value, "dtype": "int64", "shape": [1]}
            for k, value in self._level_values.items()
        ]
        about = {
            **{key: part for key, part in self._about.items() if key != "parts"},
            "inputs": inputs,
            "steps": self._steps,
            "outputs": outputs,
        }
        text = to_json(about, separators=(",", ":"))
        return Trimmed(Plan(text, self._plan.constants), dict(self._level_values))

    def reach(self) -> int | None:
        """See the function of this name."""
        result = self._about["outputs"]["value"]
        if result not in self._kinds or self._kinds[result].axis != "node":
            return None
        self._need[result], furthest = 0, 0
        for one in reversed(self._given):
            step = one.step
            if not any(out in self._need for out in step["outs"]):
                continue  # nobody reads it, or it is a check
            if one.by_row:
                level = self._ask(one)
                furthest = max(furthest, level, *(at for _, at in self._wanted(one, level)))
            elif step["op"] in OF_GRAPH:
                # Whose rows are of the edges into a node: as far as they are asked for.
                furthest = max(furthest, *(self._need.get(out, 0) for out in step["outs"]))
            elif step["op"] != "csr":
                return None
        return furthest

    def _rounded(self, one: _Step) -> bool:
        """Whether torch may round what belongs to an edge by where it stands."""
        made = any(self._rows.axis(out) == "edge" for out in one.step["outs"])
        return made and bool(one.step.get("approx"))

    # --- how many rows are needed ---

    def _ask(self, one: _Step) -> int:
        """The level of a step, from those of its results; asks its arguments for their rows."""
        outs = one.step["outs"]
        level = max([self._need.get(out, 0) for out in outs], default=0)
        level = level if one.by_row else self._hops
        for number, at in self._wanted(one, level):
            if one.step["op"] != "check_finite":  # which looks at the rows that there are
                self._need[number] = max(self._need.get(number, 0), at)
        for out in outs:
            self._levels[out] = level
        return level

    def _wanted(self, one: _Step, level: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []

        def note(number: int, at: int) -> int:
            found.append((number, at))
            return number

        self._change(one, level, note)
        return found

    def _change(self, one: _Step, level: int, take: Callable[[int, int], int]) -> list[Any]:
        """Arguments of a step, with ``take`` of every value that has rows and its level."""
        further = min(level + 1, self._hops)

        def changed(arg: Any, place: Place) -> Any:
            if isinstance(arg, list):
                return [changed(item, (*place, at)) for at, item in enumerate(arg)]
            number = value_of(arg)
            if number is None and not one.by_row:
                return self._size_of_all(arg, take)
            if number is None or number not in self._kinds:
                return arg
            return f"v{take(number, further if place in one.sources else level)}"

        made: list[Any] = changed(one.step["args"], ())
        return made

    def _size_of_all(self, leaf: Any, take: Callable[[int, int], int]) -> Any:
        """A number of nodes or edges, of a value that has all of them."""
        if not isinstance(leaf, str) or leaf[0] != "d":
            return leaf
        number, axis = leaf[1:].split(".")
        kind = self._kinds.get(int(number))
        if kind is None or axis != "0" or kind.axis not in ("node", "edge"):
            return leaf
        if kind.axis == "node":
            return f"d{self._rows.first}.0"
        return f"d{take(self._rows.of_edges(kind.pointer), self._hops)}.0"

    # --- the new steps ---

    def _emit(self, one: _Step, level: int) -> None:
        made: dict[str, Any] = {**one.step, "args": self._change(one, level, self._at)}
        if one.step["op"] == "view" and one.by_row:
            made["args"][1] = [f"d{value_of(made['args'][0])}.0", *one.step["args"][1][1:]]
        self._steps.append(made)

    def _at(self, number: int, level: int) -> int:
        """A value's first rows, those of a level."""
        if self._levels[number] <= level or self._kinds[number].axis == "table":
            return number
        key = number, level
        if key not in self._made:
            kind, end = self._kinds[number], f"n{self._level(level)}+"
            if kind.axis == "node":
                stop = f"{end}0"
            elif kind.axis == "pointer":
                stop = f"{end}1"
            else:
                # The pointer of edges says how many of them these rows have.
                last = self._slice(kind.pointer, f"{end}0", f"{end}1")
                stop = f"n{last}+0"
            self._made[key] = self._slice(number, 0, stop)
        return self._made[key]

    def _slice(self, number: int, start: Any, stop: str) -> int:
        out: int = self._next
        self._next += 1
        self._steps.append(
            {"op": "slice", "args": [f"v{number}", 0, start, stop, 1], "outs": [out]}
        )
        return out

    def _level(self, level: int) -> int:
        if level not in self._level_values:
            self._level_values[level], self._next = self._next, self._next + 1
        return self._level_values[level]


def reach(plan: Plan) -> int | None:
    """How far a row of the result looks: the edges into nodes of so many hops, and their rows.

    Args:
        plan: Of a forward that returns a row per node.

    Returns:
        Hops; nodes further away, and edges into them, change nothing. None where a step takes all
        rows together, so that every node may matter.
    """
    rows = _SampleKinds.of(plan)
    if rows is None or "value" not in rows.about["outputs"]:
        return None
    return _Trimming(plan, rows, len(rows.about["steps"]) + 1).reach()
