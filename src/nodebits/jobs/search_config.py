"""Settings of one search job, the trainings they stand for, and the config file it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodebits.core.errors import ConfigError, UnknownNameError
from nodebits.core.fields import check_fields
from nodebits.methods import SGQuantConfig
from nodebits.search.costs import OBJECTIVES
from nodebits.search.space import DEFAULT_CHOICES, GRANULARITIES
from nodebits.train import FitConfig, Recipe


@dataclass(frozen=True)
class SearchConfig:
    """One search job. ``None`` means the recipe's value.

    Attributes:
        out: Folder of the results, and of the study that a second call continues.
        dataset: Name of the data set.
        data_root: Folder of raw data.
        cache: Folder of processed data.
        model: Name of the architecture.
        method: Method whose bit table is searched.
        objective: ``bytes``, ``bits`` or ``latency``.
        max_drop: Points of validation accuracy that may be lost.
        slack: Further points that the search allows, for fine-tuning to win back.
        budget: Configurations to measure.
        strategy: ``tree``, ``random``, ``tpe`` or ``nsga2``.
        batch: Configurations per round.
        seed: Of the float model and the search.
        workers: Processes that measure.
        choices: Widths to choose from.
        granularity: What shares a width: ``uniform``, ``layer``, ``component`` or ``bucket``.
        splits: In-degrees at which buckets begin.
        search_weights: Whether weight matrices have widths of their own, else 8 bits.
        fine_tune: Candidates to train and confirm at most; 0 confirms calibrated models, untrained.
        confirm_seeds: Seeds of float and quantized model that a table must hold with.
        hidden: Hidden width.
        layers: Number of layers.
        heads: Attention heads.
        dropout: Dropout probability.
        epochs: Epochs of fine-tuning.
        float_epochs: Epochs of the float model.
        threads: Threads for training and timing.
        latency_repeats: Timed rounds.
        progress: Show progress bars; ``None``: on a terminal.
    """

    out: Path
    dataset: str = "digits"
    data_root: Path | None = None
    cache: Path | None = None
    model: str = "gcn"
    method: str = "sgquant"
    objective: str = "bytes"
    max_drop: float = 0.5
    slack: float = 0.0
    budget: int = 80
    strategy: str = "tree"
    batch: int = 10
    seed: int = 0
    workers: int = 1
    choices: tuple[int, ...] = DEFAULT_CHOICES
    granularity: str = "component"
    splits: tuple[int, ...] | None = None
    search_weights: bool = True
    fine_tune: int = 8
    confirm_seeds: int = 3
    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None
    dropout: float | None = None
    epochs: int | None = None
    float_epochs: int | None = None
    threads: int | None = None
    latency_repeats: int = 15
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Rejects values outside their range, naming the field.

        Raises:
            ConfigError: Names the field.
            UnknownNameError: On an unknown objective.
        """
        check_fields(self)
        for name in ("budget", "batch", "workers", "latency_repeats", "confirm_seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_drop", "slack", "fine_tune"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.objective not in OBJECTIVES:
            raise UnknownNameError.for_name("objective", self.objective, OBJECTIVES)
        if self.granularity not in GRANULARITIES:
            raise UnknownNameError.for_name("granularity", self.granularity, GRANULARITIES)

    def options(self, mode: str) -> dict[str, Any]:
        """Fields of the method's config besides the table."""
        options: dict[str, Any] = {}
        if self.method in ("sgquant", "uniform"):
            options["mode"] = mode
        if self.splits is not None:
            options["splits"] = list(self.splits)
        return options

    def float_fit(self, recipe: Recipe, seed: int) -> FitConfig:
        """Training of the float model."""
        fit = recipe.float_fit.replace(seed=seed, progress=self.progress)
        return fit if self.float_epochs is None else fit.replace(epochs=self.float_epochs)

    def tuning(self, recipe: Recipe, seed: int) -> FitConfig:
        """Fine-tuning from the float model: shorter, at half the rate."""
        base = recipe.quantized_fit
        epochs = max(base.epochs // 3, 1) if self.epochs is None else self.epochs
        return base.replace(epochs=epochs, lr=base.lr / 2, seed=seed, progress=self.progress)


def config_toml(
    config: SearchConfig, recipe: Recipe, dataset: str, table: dict[str, int | list[int]]
) -> str:
    """The file that ``nodebits quantize --config`` reads: it trains as the search confirmed."""
    tuning = config.tuning(recipe, config.seed)
    lines = [
        f'dataset = "{dataset}"',
        f'model = "{config.model}"',
        f'method = "{config.method}"',
        "bits = 8",
    ]
    for name in ("hidden", "layers", "heads", "dropout"):
        value = getattr(config, name)
        if value is not None:
            lines.append(f"{name} = {value}")
    lines.append(f"float_epochs = {config.float_fit(recipe, config.seed).epochs}")
    if config.fine_tune:
        lines += [f"epochs = {tuning.epochs}", f"lr = {tuning.lr!r}"]
    if config.method in ("sgquant", "uniform"):
        lines.append(f'mode = "{"qat" if config.fine_tune else "ptq"}"')
    if config.method == "sgquant":
        splits = config.splits or SGQuantConfig().splits
        lines.append(f"splits = {list(splits)}")
    lines += ["", "[override]", *(f'"{site}" = {width}' for site, width in table.items())]
    return "\n".join(lines) + "\n"
