"""Settings of one quantize job, and what they mean together with the recipes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nodebits.core.affine import check_bits
from nodebits.core.errors import ConfigError
from nodebits.core.fields import check_fields
from nodebits.methods import QuantConfig, make_config
from nodebits.train import FitConfig, Recipe, published_fit


@dataclass(frozen=True)
class JobConfig:
    """One quantize job. ``None`` means the recipe's or the preset's value.

    Attributes:
        out: Folder of the results.
        dataset: Name of the data set.
        data_root: Folder of raw data.
        cache: Folder of processed data.
        split: As in ``load_dataset``.
        use_node_attr: Likewise.
        model: Name of the architecture.
        method: Name of the quantization method.
        bits: Width of the quantized tensors, 1 to 8.
        preset: ``default`` or ``published``.
        overrides: Further fields of the method's config, such as ``mode`` or ``input_bits``.
        seeds: Number of runs per split, seeds 0, 1, ...
        folds: Number of folds of the ten-fold protocol; ``None`` uses the data set's own split.
        hidden: Hidden width.
        layers: Number of layers.
        heads: Attention heads.
        dropout: Dropout probability.
        architecture: Further fields of the model's spec, such as ``steps`` or ``teleport``.
        epochs: Budget of quantized training, and of float training unless given.
        float_epochs: Budget of float training.
        lr: Learning rate of quantized training.
        weight_decay: Weight decay of quantized training.
        quantizer_lr: Learning rate of scales and offsets.
        batch_size: Graphs per batch.
        patience: Epochs without improvement before training stops.
        warm_start: Start from the float weights; default: not in the published preset.
        distill: Follow the float model's outputs; default: not in the published preset.
        float_distilled: Also train a float model the same way, as a fair reference.
        threads: Threads for training and timing.
        latency_repeats: Timed rounds.
        progress: Show progress bars; ``None``: on a terminal.
        force: Replace the results of another job in ``out``.
    """

    out: Path
    dataset: str = "digits"
    data_root: Path | None = None
    cache: Path | None = None
    split: int | str | None = None
    use_node_attr: bool = False
    model: str = "gcn"
    method: str = "degree-quant"
    bits: int = 4
    preset: str = "default"
    overrides: dict[str, Any] = field(default_factory=dict)
    seeds: int = 1
    folds: int | None = None
    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None
    dropout: float | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    float_epochs: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    quantizer_lr: float | None = None
    batch_size: int | None = None
    patience: int | None = None
    warm_start: bool | None = None
    distill: bool | None = None
    float_distilled: bool = False
    threads: int | None = None
    latency_repeats: int = 30
    progress: bool | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Rejects values of another type or outside their range, naming the field.

        Raises:
            BitwidthError: ``bits`` is no width.
            ConfigError: Any other field.
        """
        check_bits(self.bits)
        check_fields(self)
        at_least_one = ("seeds", "folds", "hidden", "layers", "heads", "threads", "latency_repeats")
        for name in at_least_one:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.dropout is not None and not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if self.preset not in ("default", "published"):
            raise ConfigError(f"preset must be default or published, got {self.preset!r}")

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
        return not self.published if self.warm_start is None else self.warm_start

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
        base = recipe.quantized_fit
        if self.published:
            base = published_fit(recipe, self.method, self.bits, task)
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
