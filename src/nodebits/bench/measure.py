"""Bytes and latency of a packed model beside its float reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from nodebits.bench.load import OtherLoad
from nodebits.bench.timing import Latency, measure_interleaved
from nodebits.engine.packed_input import PackedInput
from nodebits.runtime import PackedModel
from nodebits.train.evaluate import forward_of
from nodebits.train.inputs import Inputs


@dataclass(frozen=True)
class FileSizes:
    """Bytes on disk of the packed file, and of the float weights in the same container."""

    file: int
    float_file: int

    def to_json(self) -> dict[str, int]:
        """Returns the fields by name."""
        return asdict(self)


def file_sizes(path: Path, float_model: nn.Module) -> FileSizes:
    """Returns the size of ``path`` beside that of the float model's weights as safetensors."""
    state = {name: value.contiguous() for name, value in float_model.state_dict().items()}
    return FileSizes(path.stat().st_size, len(safetensors.torch.save(state)))


@dataclass(frozen=True)
class Latencies:
    """Medians of one forward of each model.

    Attributes:
        by_name: ``float``, ``packed``, ``packed_module`` and ``packed_prepared``.
        packed_ahead: Whether ``packed_prepared`` got packed features, not a prepared graph alone.
        other_load: Cores that other programs used meanwhile; None where the system does not tell.
    """

    by_name: dict[str, Latency]
    packed_ahead: bool
    other_load: float | None


def measure_latency(
    float_model: nn.Module, packed: PackedModel, inputs: Inputs, repeats: int
) -> Latencies:
    """Times one forward of each model, interleaved, with equal threads.

    ``float`` and ``packed`` get the same float features and ``edge_index``. ``packed_module`` is
    the same without the plan, layer by layer. ``packed_prepared`` gets what
    :meth:`Inputs.repeated` makes of them.
    """
    run_float, run_packed = forward_of(float_model.eval()), forward_of(packed)
    repeated = inputs.repeated(packed)

    def run_module() -> Any:
        packed.use_plans = False
        try:
            return run_packed(inputs)
        finally:
            packed.use_plans = uses_plans

    uses_plans = packed.use_plans
    candidates: dict[str, Callable[[], Any]] = {
        "float": lambda: run_float(inputs),
        "packed": lambda: run_packed(inputs),
        "packed_module": run_module,
        "packed_prepared": lambda: run_packed(repeated),
    }
    load = OtherLoad()
    with torch.inference_mode():
        medians = measure_interleaved(candidates, repeats)
    return Latencies(medians, isinstance(repeated.x, PackedInput), load.cores())
