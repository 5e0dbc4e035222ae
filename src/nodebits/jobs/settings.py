"""What the jobs are told, by subject; commands make their options from it.

``None`` means the recipe's or the preset's value. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from nodebits.core.options import Amount, Choices, Count, Probability, Range, Width


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Data.

    Attributes:
        out: Folder of the results.
        dataset: Data set, such as digits, Cora, PubMed, REDDIT-BINARY, or a file or folder.
        data_root: Folder of raw data.
        cache: Folder of processed data.
        task: What is predicted; default: what the data are for, or look like.
        target: Of own data: columns, array or field to predict.
        ignore: Of own data: columns that are left out.
        split: As in ``load_dataset``.
        seed: Seed of a split that is drawn.
        loss: What is trained on, by name; default: the task's.
        metric: What is measured and selected by, by name; default: the task's.
        class_weight: Weights of classes in the loss: balanced, or numbers with commas.
    """

    out: Path
    dataset: str = "digits"
    task: str | None = None
    data_root: Path | None = None
    cache: Path | None = None
    target: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    split: int | str | None = None
    seed: Annotated[int, Range(0)] | None = None
    loss: str | None = None
    metric: str | None = None
    class_weight: str | None = None


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Architecture.

    Attributes:
        model: Name of the architecture, or MODULE:NAME of a model of your own.
        model_args: Arguments of a model of your own, as JSON.
        hidden: Hidden width, all heads together.
        layers: Number of layers.
        heads: Attention heads.
        dropout: Dropout probability.
    """

    model: str = "gcn"
    model_args: str | None = None
    hidden: Count | None = None
    layers: Count | None = None
    heads: Count | None = None
    dropout: Probability | None = None


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Measuring.

    Attributes:
        threads: Threads for training and timing.
        latency_repeats: Timed rounds.
        progress: Progress bars; default: on a terminal.
    """

    threads: Count | None = None
    latency_repeats: Count = 30
    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Protocol.

    Attributes:
        use_node_attr: TU sets: node attributes too, not node labels alone.
        preset: The paper's own settings are published: no warm start, no distillation.
        seeds: Number of runs per split, seeds 0, 1, ...
        folds: Folds of the ten-fold protocol (TU sets); default: the data set's own split.
        force: Replace the results of another job.
    """

    use_node_attr: bool = False
    preset: Annotated[str, Choices("default", "published")] = "default"
    seeds: Count = 1
    folds: Annotated[int, Range(1, 10)] | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Bit widths.

    Attributes:
        method: Name of the quantization method; NAME+lorap adds prompts to it.
        bits: Width of quantized tensors, 1 to 8.
        overrides: Further fields of the method's config, such as ``mode`` or ``input_bits``.
    """

    method: str = "degree-quant"
    bits: Width = 4
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training.

    Attributes:
        epochs: Epochs of quantized training, and of float training unless given.
        float_epochs: Epochs of float training.
        lr: Rate of quantized training.
        weight_decay: Decay of weights in quantized training.
        quantizer_lr: Rate of scales and offsets.
        batch_size: Graphs per batch.
        patience: Stop after so many epochs without progress.
        warm_start: Start from the float weights; default: in the published preset as the paper
            does, else yes.
        distill: Follow the float model on all rows; default: not in the published preset.
        float_distilled: Also train a float model that way, as a fair reference.
    """

    epochs: Count | None = None
    float_epochs: Count | None = None
    lr: Amount | None = None
    weight_decay: Amount | None = None
    quantizer_lr: Amount | None = None
    batch_size: Count | None = None
    patience: Annotated[int, Range(0)] | None = None
    warm_start: bool | None = None
    distill: bool | None = None
    float_distilled: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizeSettings(Measuring, Training, Architecture, Widths, Protocol, DataSettings):
    """A quantize job.

    Attributes:
        architecture: Further fields of the model's spec, such as ``steps`` or ``teleport``.
    """

    architecture: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison.

    Attributes:
        methods: Methods, or all; NAME:published follows the paper of a method, NAME+lorap adds
            prompts to it.
        bits: Widths to run each method at.
        render_only: Run nothing: draw the leaderboard of the rows that the folder holds.
    """

    methods: tuple[str, ...] = ("all",)
    bits: tuple[int, ...] = (8, 4, 2)
    render_only: bool = False


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Measuring, Training, Architecture, Comparison, Protocol, DataSettings):
    """Methods beside each other.

    Attributes:
        seeds: Number of runs per split and row, seeds 0, 1, ...
        float_distilled: Train a float model as the quantized ones are, as a fair reference.
        force: Run rows again that are there, and replace results of other jobs.
    """

    seeds: Count = 3
    float_distilled: bool = True
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Search:
    """Search.

    Attributes:
        method: Method whose bit table is searched.
        objective: What to make least: bytes, bits or latency.
        max_drop: Points of the validation metric to lose at most, percent of one that is no
            share.
        slack: Further points for fine-tuning to win back.
        budget: Configurations to measure.
        strategy: How tables are proposed: tree, random, tpe or nsga2.
        batch: Configurations per round.
        seed: Of the float model and the search.
        workers: Processes that measure.
        fine_tune: Candidates to train and confirm at most; 0 confirms calibrated models.
        confirm_seeds: Seeds with which the chosen table must hold, packed.
    """

    method: str = "sgquant"
    objective: str = "bytes"
    max_drop: Amount = 0.5
    slack: Amount = 0.0
    budget: Count = 80
    strategy: str = "tree"
    batch: Count = 10
    seed: int = 0
    workers: Count = 1
    fine_tune: Annotated[int, Range(0)] = 8
    confirm_seeds: Count = 3


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may be chosen.

    Attributes:
        choices: Widths to choose from.
        granularity: What shares a width: uniform, layer, component, or bucket (of degrees).
        splits: In-degrees at which buckets begin, such as 4,8,16.
        search_weights: Whether weights have widths of their own, else 8 bits.
    """

    choices: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    granularity: str = "component"
    splits: tuple[int, ...] | None = None
    search_weights: bool = True


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Fine-tuning.

    Attributes:
        epochs: Epochs of fine-tuning.
        float_epochs: Epochs of the float model.
    """

    epochs: Count | None = None
    float_epochs: Count | None = None


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Measuring, Tuning, Architecture, Space, Search, DataSettings):
    """A search job.

    Attributes:
        latency_repeats: Timed rounds.
    """

    latency_repeats: Count = 15
