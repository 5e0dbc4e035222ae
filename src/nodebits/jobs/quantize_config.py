"""Settings of one quantize job, and what they mean together with the recipes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from nodebits.core.affine import check_bits
from nodebits.core.fields import check_fields
from nodebits.jobs.settings import QuantizeSettings
from nodebits.methods import QuantConfig, make_config
from nodebits.methods.base import method_class
from nodebits.tasks import find_task
from nodebits.train import FitConfig, Recipe


@dataclass(frozen=True, kw_only=True)
class JobConfig(QuantizeSettings):
    """One quantize job: its settings, and the trainings they stand for."""

    def __post_init__(self) -> None:
        """Rejects values of another type or outside their range, naming the field.

        Raises:
            BitwidthError: ``bits`` is no width.
            ConfigError: Any other field.
        """
        check_bits(self.bits)
        check_fields(self)

    def fingerprint(self) -> str:
        """Returns a string that is equal for jobs that compute the same."""
        around = ("out", "data_root", "cache", "threads", "latency_repeats", "progress", "force")
        return repr({f.name: getattr(self, f.name) for f in fields(self) if f.name not in around})

    @property
    def published(self) -> bool:
        """Whether the paper's own protocol is followed."""
        return self.preset == "published"

    @property
    def warm(self) -> bool:
        """Whether quantized training starts from the float weights."""
        if self.warm_start is not None:
            return self.warm_start
        return not self.published or method_class(self.method).published_warm_start

    @property
    def trains(self) -> bool:
        """Whether the quantized model is trained at all."""
        return self.overrides.get("mode") != "ptq"

    def quant_config(self) -> QuantConfig:
        """Returns the method's config."""
        return make_config(self.method, self.bits, self.preset, **self.overrides)

    def float_fit(self, recipe: Recipe, seed: int) -> FitConfig:
        """Returns the training of the float reference."""
        return self._change(
            recipe.float_fit,
            seed=seed,
            epochs=self.epochs if self.float_epochs is None else self.float_epochs,
            batch_size=self.batch_size,
            patience=self.patience,
        )

    def quantized_fit(self, recipe: Recipe, seed: int, task: str) -> FitConfig:
        """Returns the training of the quantized model."""
        base = recipe.second_fit(self.bits, self.warm)
        if self.published:
            base = self.quant_config().published_fit(base, find_task(task).level)
        share = None
        if self.distill is not None:
            share = recipe.quantized_fit.distill if self.distill else 0.0
        return self._change(
            base,
            seed=seed,
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            quantizer_lr=self.quantizer_lr,
            batch_size=self.batch_size,
            patience=self.patience,
            distill=share,
        )

    def _change(self, fit: FitConfig, **changes: Any) -> FitConfig:
        given = {name: value for name, value in changes.items() if value is not None}
        return fit.replace(progress=self.progress, **given)
