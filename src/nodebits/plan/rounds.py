"""Rounds of propagation as the steps that they stand for, each a sum over neighbours."""

from __future__ import annotations

from typing import Any

from nodebits.core.strict_json import to_json
from nodebits.ops.definitions.propagate import propagate, run_steps
from nodebits.plan.plan import Plan
from nodebits.plan.run import values_of

# Fields of a fused sum: nothing of its targets, and a sink that hands on float rows.
_NO_OWN = (None,) * 4
_NO_SINK: tuple[Any, ...] = (False, *([] for _ in range(7)), None, None)


def stepwise(plan: Plan) -> Plan:
    """The plan with every ``propagate`` in its steps, which have the same bits.

    A ``propagate`` whose ranges are no constants stays what it is.
    """
    writer = _Writer(plan)
    return writer.plan() if writer.write() else plan


class _Value:
    """A value of the new plan; what is computed with it becomes a step."""

    def __init__(self, writer: _Writer, name: str) -> None:
        self._writer, self.name = writer, name

    def __add__(self, other: _Value) -> _Value:
        return self._writer.add("add", self, other)

    def __sub__(self, other: _Value) -> _Value:
        return self._writer.add("sub", self, other)

    def __mul__(self, factor: float) -> _Value:
        return self._writer.add("mul", self, factor)

    __rmul__ = __mul__


class _Writer:
    """Writes the steps of a plan anew."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._about = plan, plan.about
        self._steps: list[dict[str, Any]] = []
        self._paths: list[str] = []
        self._names, self._tensors = dict(self._about["constants"]), dict(plan.constants)
        used = {int(number) for number in self._names}
        used |= {one["value"] for one in self._about["inputs"]}
        used |= {out for step in self._about["steps"] for out in step["outs"]}
        self._next = 1 + max(used, default=0)

    def write(self) -> bool:
        """Whether there was something to write otherwise."""
        steps = self._about["steps"]
        for step, path in zip(steps, self._plan.paths or [""] * len(steps), strict=True):
            if step["op"] == "propagate" and self._is_fixed(step):
                self._propagate(step)
            else:
                self._steps.append(step)
            self._paths += [path] * (len(self._steps) - len(self._paths))
        return len(self._steps) > len(steps)

    def plan(self) -> Plan:
        """The plan as it was written."""
        about = {**self._about, "constants": self._names, "steps": self._steps}
        paths = tuple(self._paths) if self._plan.paths else ()
        return Plan(to_json(about, separators=(",", ":")), self._tensors, paths)

    def add(self, op: str, *args: Any) -> _Value:
        """One more step.

        Args:
            op: Its name.
            *args: Values, and what plans have for other arguments.
        """
        given = [arg.name if isinstance(arg, _Value) else arg for arg in args]
        self._steps.append({"op": op, "args": given, "outs": [self._next]})
        self._next += 1
        return _Value(self, f"v{self._next - 1}")

    def _is_fixed(self, step: dict[str, Any]) -> bool:
        ranges = values_of(list(_record(step).rounds))
        return all(str(number) in self._names for number in ranges)

    def _row(self, table: Any, at: int) -> str:
        """A row of a constant, as a constant of its own."""
        number, self._next = self._next, self._next + 1
        name = self._names[table[1:]]
        self._names[str(number)] = f"{name}/{number}"
        self._tensors[f"{name}/{number}"] = self._tensors[name][at].contiguous()
        return f"v{number}"

    def _propagate(self, step: dict[str, Any]) -> None:
        (pointer, indices, *_), x, factor, rounds, steps = _record(step)
        num_cols = self._tensors[self._names[rounds.scale[1:]]].size(1)

        def column(values: Any) -> _Value:
            return self.add("view", values, [f"d{x[1:]}.0", 1])

        degree = column(self.add("degree", pointer))
        target = None if factor is None else column(factor)

        def neighbor_sum(values: _Value, i: int) -> _Value:
            scale, zero_point, made_with = (self._row(table, i) for table in rounds[:3])
            bits = rounds.bits[i]
            packed = self.add("quantize_pack", values, scale, made_with, 1, bits, factor)
            source, epilogue = (packed, bits, num_cols, 0), (scale, zero_point, degree, target)
            return self.add(
                "fused_spmm", pointer, indices, None, None,
                *source, *_NO_OWN, *epilogue, None, *_NO_SINK,
            )  # fmt: skip

        written: Any = run_steps  # of values in place of tensors
        written(neighbor_sum, _Value(self, x), steps)
        self._steps[-1]["outs"] = step["outs"]


def _record(step: dict[str, Any]) -> Any:
    """The operator's record of names in place of values."""
    of_names: Any = propagate.record
    return of_names(*step["args"])
