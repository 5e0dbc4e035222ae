"""What one training run is told: budget, optimizer, selection, distillation."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nodebits.core.errors import ConfigError, UnknownNameError

Schedule = Literal["constant", "cosine", "step"]
Selection = Literal["metric", "loss"]


@dataclass(frozen=True)
class FitConfig:
    """Settings of ``fit``.

    Attributes:
        epochs: Passes over the training data.
        lr: Adam's learning rate for weights.
        weight_decay: L2 penalty on weights; never applied to quantizer parameters.
        quantizer_lr: Learning rate of scales and offsets. A scale is shared by a whole tensor or
            column, so it moves by a tenth of the weights' rate.
        distill: Share of the loss that follows the teacher, 0 to 1. Used when ``fit`` gets teacher
            logits; 0 switches distillation off.
        select: Which validation figure picks the epoch that is kept: the task's metric, such as
            accuracy, or the loss. The other one breaks ties.
        patience: Stop after so many epochs without a better validation figure; 0 never stops early.
        schedule: ``constant``, ``cosine`` to zero, or ``step``: times ``step_gamma`` every
            ``step_size`` epochs.
        step_size: Epochs between steps of the ``step`` schedule; None is a quarter of ``epochs``.
        step_gamma: Factor of the ``step`` schedule.
        batch_size: Graphs per batch; ignored for node-level tasks, which train on the full graph.
        seed: Seeds initialisation-independent randomness: dropout, masks and the order of batches.
        progress: Show a progress bar; ``None`` shows it on a terminal only.
        checkpoint_seconds: Least time between two writes of the resumable checkpoint.
    """

    epochs: int = 300
    lr: float = 0.01
    weight_decay: float = 5e-4
    quantizer_lr: float = 1e-3
    distill: float = 0.9
    select: Selection = "metric"
    patience: int = 0
    schedule: Schedule = "constant"
    step_size: int | None = None
    step_gamma: float = 0.5
    batch_size: int = 128
    seed: int = 0
    progress: bool | None = None
    checkpoint_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Rejects values outside their range, naming the field."""
        for name, least in (("epochs", 1), ("patience", 0), ("step_size", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if name == "step_size" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"{name} must be a whole number of at least {least}, got {value!r}"
                )
        for name in ("lr", "quantizer_lr", "step_gamma"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0):
                raise ConfigError(f"{name} must be a positive number, got {value!r}")
        for name in ("weight_decay", "checkpoint_seconds"):
            value = getattr(self, name)
            if not (_is_number(value) and value >= 0):
                raise ConfigError(f"{name} must be zero or positive, got {value!r}")
        if not (_is_number(self.distill) and 0.0 <= self.distill <= 1.0):
            raise ConfigError(f"distill must lie between 0 and 1, got {self.distill!r}")
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not whole or not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed must be a whole number of 64 bits, got {self.seed!r}")
        if self.progress not in (None, True, False):
            raise ConfigError(f"progress must be True, False or None, got {self.progress!r}")
        for name, choices in (("select", get_args(Selection)), ("schedule", get_args(Schedule))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )

    def replace(self, **changes: Any) -> FitConfig:
        """Returns a copy with some fields changed.

        Raises:
            UnknownNameError: There is no such field.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownNameError.for_name("field of FitConfig", name, known)
        return dataclasses.replace(self, **changes)

    def fingerprint(self) -> str:
        """Returns a string that is equal for runs that would train alike."""
        fields = dataclasses.asdict(self)
        for shown_only in ("progress", "checkpoint_seconds"):
            fields.pop(shown_only)
        return json.dumps(fields, sort_keys=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
