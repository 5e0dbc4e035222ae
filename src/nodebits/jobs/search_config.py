"""Settings of one search job, the trainings they stand for, and the config file it writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nodebits.core.errors import UnknownNameError
from nodebits.core.fields import check_fields
from nodebits.jobs.settings import SearchSettings
from nodebits.methods import SGQuantConfig
from nodebits.search.costs import OBJECTIVES
from nodebits.search.space import GRANULARITIES
from nodebits.train import FitConfig, Recipe


@dataclass(frozen=True, kw_only=True)
class SearchConfig(SearchSettings):
    """One search job: its settings, and the trainings they stand for."""

    def __post_init__(self) -> None:
        """Rejects values outside their range, naming the field.

        Raises:
            ConfigError: Names the field.
            UnknownNameError: On an unknown objective.
        """
        check_fields(self)
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
        """Fine-tuning from the float model: shorter, at half its rate or less."""
        base = recipe.quantized_fit
        epochs = max(base.epochs // 3, 1) if self.epochs is None else self.epochs
        lr = min(base.lr, recipe.float_fit.lr / 2)
        return base.replace(epochs=epochs, lr=lr, seed=seed, progress=self.progress)


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
    for name in ("task", "split", "loss", "metric", "class_weight", "model_args"):
        value = getattr(config, name)
        if value is not None:
            lines.append(f"{name} = {json.dumps(value)}")
    for name in ("target", "ignore"):
        if getattr(config, name):
            lines.append(f"{name} = {json.dumps(list(getattr(config, name)))}")
    if config.seed:
        lines.append(f"seed = {config.seed}")
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
