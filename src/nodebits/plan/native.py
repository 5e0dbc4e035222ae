"""A plan on the compiled steps; what only torch or the module computes runs between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from nodebits.ops.backends.cpu import kernels
from nodebits.plan.plan import DTYPES, PYTHON, Plan
from nodebits.plan.reference import meaning
from nodebits.plan.run import as_key, evaluated, reads_of, result_of, results, run_module


class _Part(NamedTuple):
    """Compiled steps that follow each other, or one that Python runs."""

    first: int
    last: int
    step: dict[str, Any] | None


class NativeRunner:
    """Runs a plan.

    Args:
        plan: The plan.
        module: What it was made of, for steps that are modules.

    Attributes:
        reads: Values that a step takes, but for those that make the rows of a graph, which is
            left out where these are given.
    """

    def __init__(self, plan: Plan, module: nn.Module | None) -> None:
        about = plan.about
        self._module, self._outputs = module, about["outputs"]
        self._plan = kernels.compiled_plan(plan.text, plan.constants)
        self._constants = {int(n): plan.constants[name] for n, name in about["constants"].items()}
        self.reads = reads_of(about)
        self._parts = _parts(about["steps"])
        self._single = "value" in self._outputs
        self._order = {value: i for i, value in enumerate(self._plan.outputs)}
        # Of a dictionary of tensors: its keys, and where they are among the outputs.
        self._names = _names(self._outputs, self._order)

    def run(self, values: Mapping[int, Tensor], store: Any = None) -> Any:
        """What the module returns.

        Args:
            values: Contiguous tensors of the inputs, and of values that are known already.
            store: What is kept with the graph (:func:`nodebits.ops.backends.cpu.kernels.store`).
        """
        threads = torch.get_num_threads()
        given = []
        for number, t in values.items():
            given.append((number, t.data_ptr(), DTYPES[t.dtype], tuple(t.shape)))
        if len(self._parts) == 1:
            found = self._plan.run(given, threads, store)
            if self._single:
                return from_dlpack(found[0])
            made = list(map(from_dlpack, found))
            if self._names is not None:
                held = {}
                for name, place in self._names:  # written out: this is done in every call
                    held[name] = made[place]
                return held
            return result_of(self._outputs, lambda value: made[self._order[value]])
        run = kernels.plan_run(self._plan)
        for one in given:
            run.set(*one)
        run.keep_with(store)
        kept: dict[int, Tensor] = {}

        def value(number: int) -> Tensor:
            if number not in kept:
                if number in values:
                    kept[number] = values[number]
                elif number in self._constants:
                    kept[number] = self._constants[number]
                else:
                    kept[number] = from_dlpack(run.get(number))
            return kept[number]

        for part in self._parts:
            if part.step is None:
                run.steps(part.first, part.last, threads)
                continue
            args = [evaluated(arg, value) for arg in part.step["args"]]
            whole = part.step["op"] == "module"
            found = run_module(self._module, *args) if whole else meaning(part.step["op"])(*args)
            for number, t in zip(part.step["outs"], results(found), strict=False):
                kept[number] = t = t.detach().contiguous()
                if t.dtype in DTYPES:  # others are read by torch's steps alone
                    run.set(number, t.data_ptr(), DTYPES[t.dtype], tuple(t.shape))

        def returned(number: int) -> Tensor:  # which the caller may write to
            return value(number).clone() if number in self._constants else value(number)

        return result_of(self._outputs, returned)


def _names(outputs: Any, order: Mapping[int, int]) -> list[tuple[Any, int]] | None:
    if type(outputs) is not dict or not outputs.keys() & {"dict", "items"}:
        return None
    named = list(outputs["dict"].items()) if "dict" in outputs else outputs["items"]
    if not all("value" in about for _, about in named):
        return None
    return [(as_key(key), order[about["value"]]) for key, about in named]


def _parts(steps: list[dict[str, Any]]) -> list[_Part]:
    parts: list[_Part] = []
    first = 0
    for i, step in enumerate(steps):
        if step["op"] in PYTHON or step.get("approx"):
            if first < i:
                parts.append(_Part(first, i, None))
            parts.append(_Part(i, i + 1, step))
            first = i + 1
    if first < len(steps) or not parts:
        parts.append(_Part(first, len(steps), None))
    return parts
