"""Plans written by hand, and their runs on every level and on one and two threads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nodebits import _kernels, ops  # type: ignore[attr-defined]

COMPILED = [isa for isa in ops.available_isas() if isa != "reference"]
NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.uint8: "uint8",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.bool: "bool",
}


class Case:
    """A plan that grows: values get their numbers as they come."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []
        self.inputs: list[dict[str, Any]] = []
        self.constants: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}
        self.steps: list[dict[str, Any]] = []
        self.count = 0

    def number(self) -> int:
        self.count += 1
        return self.count - 1

    def input(self, t: Tensor, name: str = "x", shape: Sequence[int | None] | None = None) -> str:
        """An input of any lengths, given as ``t``."""
        value = self.number()
        lengths = [None] * t.dim() if shape is None else list(shape)
        self.inputs.append(
            {"name": name, "value": value, "dtype": NAMES[t.dtype], "shape": lengths}
        )
        self.given.append(t)
        return f"v{value}"

    def constant(self, t: Tensor) -> str:
        value = self.number()
        self.names[str(value)] = f"c{value}"
        self.constants[f"c{value}"] = t
        return f"v{value}"

    def step(self, op: str, *args: Any, outs: int = 1) -> Any:
        """The references of its results; tensors among the arguments become constants."""
        made = [self.number() for _ in range(outs)]
        known = [self._argument(arg) for arg in args]
        self.steps.append({"op": op, "args": known, "outs": made})
        refs = [f"v{value}" for value in made]
        return refs[0] if outs == 1 else refs

    def _argument(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self.constant(arg)
        if isinstance(arg, (list, tuple)):
            return [self._argument(item) for item in arg]
        return arg

    def json(self, *outputs: str, **more: Any) -> str:
        return json.dumps(
            {
                "version": 1,
                "inputs": self.inputs,
                "constants": self.names,
                "steps": self.steps,
                "outputs": {"tuple": [{"value": int(ref[1:])} for ref in outputs]},
                **more,
            }
        )

    def plan(self, *outputs: str, **more: Any) -> Any:
        return _kernels.Plan(self.json(*outputs, **more), self.constants)

    def values(self, *given: Tensor) -> list[Any]:
        """What a run is given: the tensors of the case, or others in their place."""
        tensors = [t.contiguous() for t in given] or self.given
        pairs = zip(self.inputs, tensors, strict=True)
        return [(i["value"], t.data_ptr(), NAMES[t.dtype], tuple(t.shape)) for i, t in pairs]

    def run(self, *outputs: str, threads: int = 1) -> list[Tensor]:
        return results(self.plan(*outputs).run(self.values(), threads))

    def everywhere(self, *outputs: str) -> list[Tensor]:
        """The results, after all levels and thread counts agreed on them."""
        made: list[Tensor] | None = None
        plan = self.plan(*outputs)
        for isa in COMPILED:
            for threads in (1, 2):
                with ops.force_isa(isa):
                    now = results(plan.run(self.values(), threads))
                assert made is None or all(map(same, now, made)), f"{isa}, {threads} threads"
                made = now
        assert made is not None
        return made


def results(capsules: Sequence[Any]) -> list[Tensor]:
    return [from_dlpack(capsule) for capsule in capsules]


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, any NaN for any other."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype != torch.float32:
        return torch.equal(a, b)
    nan = a.isnan()
    words = a.contiguous().view(torch.int32), b.contiguous().view(torch.int32)
    return torch.equal(nan, b.isnan()) and bool((words[0].eq(words[1]) | nan).all())


def reference(op: Any, *args: Any) -> Any:
    """What the definition of an operator gives."""
    with ops.force_isa("reference"):
        return op(*args)
