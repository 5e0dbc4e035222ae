"""The plan as data: what a file holds of it, and what every runner reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nodebits.core.strict_json import to_json

VERSION = 1
DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.uint8: "uint8",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.bool: "bool",
}
# Steps that only Python runs: torch, or the module that the plan was made of.
PYTHON = ("torch", "module")


@dataclass(frozen=True, repr=False)
class Plan:
    """A forward as steps over values whose sizes are known when it runs.

    Attributes:
        text: JSON, as docs/format.md describes it.
        constants: Tensors by name.
        paths: Of the module that each step is of; empty for a plan that was read from a file.
    """

    text: str
    constants: dict[str, Tensor]
    paths: tuple[str, ...] = field(default=(), compare=False)

    def on(self, device: torch.device) -> Plan:
        """The same plan with its constants on a device; itself on the CPU, where they are."""
        if device.type == "cpu":
            return self
        return Plan(self.text, {n: t.to(device) for n, t in self.constants.items()}, self.paths)

    @property
    def about(self) -> dict[str, Any]:
        """The JSON."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @classmethod
    def of(
        cls,
        inputs: list[dict[str, Any]],
        constants: dict[int, Tensor],
        steps: list[dict[str, Any]],
        result: Any,
        arguments: list[dict[str, Any]],
        parts: dict[str, Any] | None,
    ) -> Plan:
        """Of what two traces have in common; values that nothing uses lose their numbers."""
        names = {number: f"c{i}" for i, number in enumerate(constants)}
        paths = tuple([step.get("path", "") for step in steps])
        about = {
            "version": VERSION,
            "arguments": arguments,
            "inputs": inputs,
            "constants": {str(number): name for number, name in names.items()},
            "steps": [{k: v for k, v in step.items() if k != "path"} for step in steps],
            "outputs": result,
            **({} if parts is None else {"parts": parts}),
        }
        kept = {names[n]: t.detach().contiguous() for n, t in constants.items()}
        return cls(to_json(about, separators=(",", ":")), kept, paths)

    def __repr__(self) -> str:
        """Its steps and where they are from, without tensors."""
        held = sum(t.nbytes for t in self.constants.values())
        head = f"Plan({len(self.steps)} steps, {len(self.constants)} constants of {held:,} bytes)"
        paths = self.paths or ("",) * len(self.steps)
        lines = [
            f"{number:>3}  {name}{f'  of {path}' if path else ''}"
            for number, (name, path) in enumerate(zip(self.steps, paths, strict=True))
        ]
        return "\n".join([head, *lines])

    @property
    def steps(self) -> list[str]:
        """Names of the steps, in order; those that only Python runs with what they call."""
        return [step_name(step) for step in self.about["steps"]]

    @property
    def leaves(self) -> list[str]:
        """Where the plan leaves the compiled steps."""
        steps = self.about["steps"]
        return [step_name(s) for s in steps if s["op"] in PYTHON or s.get("approx")]

    @property
    def leaves_for_module(self) -> bool:
        """Whether a step is a module, which only the model can run."""
        return any(step["op"] == "module" for step in self.about["steps"])

    @property
    def is_portable(self) -> bool:
        """Whether it runs without Python: all of its steps have kernels."""
        return not any(step["op"] in PYTHON for step in self.about["steps"])


def step_name(step: dict[str, Any]) -> str:
    """A step in words."""
    if step["op"] in PYTHON:
        return f"{step['op']}: {step['args'][0][1:]}"
    return str(step["op"])
