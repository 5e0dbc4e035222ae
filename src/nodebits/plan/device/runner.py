"""Runs a plan on a device: step by step through the operators, and one flag at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.context import opened
from nodebits.core.errors import (
    PlanRefused,
    ShapeError,
    raise_memory_error,
)
from nodebits.core.outcomes import Outcomes
from nodebits.plan.device.buckets import Sizes
from nodebits.plan.device.cuda_graph import CudaGraphs
from nodebits.plan.device.fixed import why_not_fixed
from nodebits.plan.device.padding import Padding
from nodebits.plan.device.recorded import RecordedRuns
from nodebits.plan.device.steps import Steps, know_rows
from nodebits.plan.plan import Plan, step_name
from nodebits.plan.run import evaluated, reads_of, result_of, results, run_module

_REFUSED = (
    "a check of the data found something wrong on the device: a value that is not finite, an index "
    "that leads to no row, or a degree beyond the exact range; predict outside of torch.compile "
    "names it"
)


class Progress:
    """How far a run is.

    Attributes:
        step: The step that runs, in words.
    """

    step = "the arguments"


class StepRun:
    """The steps of a plan on a device, one after another.

    Args:
        plan: The plan.
        module: What it was made of, for steps that are modules.
        device: Where the values are.
    """

    def __init__(self, plan: Plan, module: nn.Module | None, device: torch.device) -> None:
        about = plan.about
        self._steps = [(step_name(step), step) for step in about["steps"]]
        self.outputs, self._module, self._device = about["outputs"], module, device
        self._meaning = Steps(device).meaning
        self._constants = {
            int(number): plan.constants[name].to(device)
            for number, name in about["constants"].items()
        }
        self._graphs = [one["graph"] for one in about["inputs"] if "graph" in one]

    def run(
        self, given: Mapping[int, Any], outcomes: Outcomes, progress: Progress | None = None
    ) -> tuple[Any, Tensor]:
        """What the module returns, and whether a check found something wrong, bool ``[1]``.

        Args:
            given: Tensors of the inputs, and tensors or whole numbers that are known already, by
                number.
            outcomes: Takes what checks find.
            progress: Told which step runs.
        """
        progress = Progress() if progress is None else progress
        values = {**self._constants, **given}
        # Nothing is remembered of tensors that torch counts no changes of.
        with torch.inference_mode(False), torch.no_grad(), opened(outcomes=outcomes):
            for graph in self._graphs:
                if graph["indptr"] in given and graph["indices"] in given:
                    # As many sources as targets is known of those of fixed sizes alone.
                    rows = given[graph["indptr"]]
                    sources = rows.numel() - 1 if outcomes.fixed else None
                    know_rows(rows, given[graph["indices"]], sources)
            for progress.step, step in self._steps:
                if step["outs"] and all(out in given for out in step["outs"]):
                    continue
                made = self._step(step, values)
                found = [made] if isinstance(made, int) else results(made)
                values.update(zip(step["outs"], found, strict=False))

            def own(number: int) -> Tensor:  # which the caller may write to
                held = number in given or number in self._constants
                made: Tensor = values[number].clone() if held else values[number]
                return made

            return result_of(self.outputs, own), outcomes.any(self._device)

    def _step(self, step: dict[str, Any], values: dict[int, Any]) -> Any:
        args = [evaluated(arg, values.__getitem__) for arg in step["args"]]
        if step["op"] != "module":
            return self._meaning(step["op"])(*args)
        with opened(outcomes=None):  # its layers look at values as ever
            return run_module(self._module, *args)


class DeviceRunner:
    """Runs a plan on a device.

    Args:
        plan: The plan.
        module: What it was made of, for steps that are modules.
        device: Where its tensors are.
        graphs: What records its runs; None for the CUDA graphs of the device, where it has some.

    Attributes:
        reads: As of :class:`nodebits.plan.native.NativeRunner`.
        recorded: Its runs as CUDA graphs.
        no_graphs: Why there are none; an empty text where there are.
    """

    def __init__(
        self, plan: Plan, module: nn.Module | None, device: torch.device, graphs: Any = None
    ) -> None:
        about = plan.about
        self.device = device
        self.reads = reads_of(about)
        self._run = StepRun(plan, module, device)
        self._names = {one["value"]: one["name"] for one in about["inputs"]}
        self.recorded: RecordedRuns | None = None
        if graphs is None and device.type == "cuda":
            graphs = CudaGraphs(device)
        why = why_not_fixed(plan) if graphs is not None else f"{device.type} devices have none"
        self.no_graphs = why or ""
        if graphs is not None and why is None:
            self.recorded = RecordedRuns(self._run, Padding(plan, device), graphs)

    def run(self, values: Mapping[int, Tensor], use_graphs: bool = True) -> Any:
        """What the module returns.

        Args:
            values: Tensors of the inputs, and of values that are known already.
            use_graphs: Whether runs may be recorded and repeated.

        Raises:
            ShapeError: If a tensor is on another device.
            PlanRefused: If a check found something wrong, which the module has the words for.
            OutOfMemoryError: If the device's memory runs out.
        """
        self._check_devices(values)
        try:
            return self._result(values, use_graphs)
        except (RuntimeError, MemoryError) as error:
            out = isinstance(error, torch.OutOfMemoryError | MemoryError)
            if not out or self.recorded is None or not self.recorded.forget():
                raise_memory_error(error)
                raise
        # What the graphs held may be what was missing.
        try:
            return self._result(values, False)
        except (RuntimeError, MemoryError) as error:
            raise_memory_error(error)
            raise

    def graphs(self) -> str:
        """The sizes that are recorded, or why none is."""
        if self.recorded is None:
            return self.no_graphs
        if self.recorded.stopped:
            return self.recorded.stopped
        told = [_told(one) for one in self.recorded.sizes]
        told += [f"none for {_told(n)}: {why}" for n, why in self.recorded.refused.items()]
        return "; ".join(told) or "made at the second call of a size"

    def _result(self, values: Mapping[int, Tensor], use_graphs: bool) -> Any:
        if use_graphs and self.recorded is not None:
            found = self.recorded.run(values)
            if found is not None:
                return checked(*found)
        return checked(*self._run.run(values, Outcomes()))

    def _check_devices(self, values: Mapping[int, Tensor]) -> None:
        for number, t in values.items():
            if t.device != self.device and not self._names.get(number, "level").startswith("level"):
                raise ShapeError(
                    f"{self._names[number]!r} is on {t.device}, but the model is on {self.device}: "
                    f"move both to one device, with .to({str(self.device)!r}) of the tensor or "
                    f"packed.to({str(t.device)!r})"
                )


def _told(sizes: Sizes) -> str:
    """As in ``48 nodes, 224 edges``."""
    return ", ".join(f"{count} {what}" for what, count in sizes._asdict().items() if count)


def checked(result: Any, bad: Tensor) -> Any:
    """The result; here the one flag is read.

    Raises:
        PlanRefused: If a check found something wrong.
    """
    if bool(bad):
        raise PlanRefused(_REFUSED)
    return result
