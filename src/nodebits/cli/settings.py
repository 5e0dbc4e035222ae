"""What commands about a saved model are told; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nodebits.core.options import Count, Range


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """Model and data.

    Whatever is None is as the model's file says that it was in training.

    Attributes:
        model: File that quantize wrote (model.safetensors).
        dataset: Data set; default: the one that the model was trained on.
        allow: Modules from which the model's own class may be imported.
        metric: What is measured; default: what the model was selected by.
        data_root: Folder of raw data.
        cache: Folder of processed data.
        split: As in ``load_dataset``.
        use_node_attr: Likewise.
        threads: Threads; default: torch's choice.
    """

    model: Path
    dataset: str | None = None
    allow: tuple[str, ...] | None = None
    metric: str | None = None
    data_root: Path | None = None
    cache: Path | None = None
    split: int | str | None = None
    use_node_attr: bool | None = None
    threads: Count | None = None


@dataclass(frozen=True, kw_only=True)
class OneFold(SavedModel):
    """Evaluation.

    Attributes:
        fold: Fold of the ten-fold protocol (graph-level sets).
    """

    fold: Annotated[int, Range(0, 9)] | None = None


@dataclass(frozen=True, kw_only=True)
class Written(SavedModel):
    """Output.

    Attributes:
        out: File to write.
        force: Replace results that exist.
    """

    out: Path
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Predicted(Written):
    """Prediction.

    Attributes:
        features: Packed features of nodebits pack, one graph.
        nodes: Predict for these nodes alone, from samples of their neighbourhoods.
        num_neighbors: Neighbours per hop that are sampled for nodes, -1 for all.
        seed: Seed of the sample; default: another one every time.
        timeout: Seconds that a process of torchrun waits for another.
        memory: Run layer by layer from files beside --out, in so much memory, such as 2GiB.
    """

    features: Path | None = None
    memory: str | None = None
    nodes: tuple[int, ...] | None = None
    num_neighbors: tuple[int, ...] | None = None
    seed: Annotated[int, Range(0)] | None = None
    timeout: Annotated[float, Range(0.1)] = 60.0


@dataclass(frozen=True, kw_only=True)
class Described:
    """Data of your own.

    Attributes:
        data: A folder of tables (nodes, edges, graphs), .pt, or .npz.
        out: File of settings to write.
        task: What is predicted; default: what the data look like.
        target: Columns, array or field to predict.
        ignore: Columns that are left out.
        split: As in ``load_dataset``.
        force: Replace a file that exists.
    """

    data: Path
    out: Path = Path("nodebits.toml")
    task: str | None = None
    target: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    split: str | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A model of your own.

    Attributes:
        model: A class or function that makes it, or the model itself.
        data: A folder of tables (nodes, edges), .pt, or .npz.
        model_args: JSON object of arguments (in_channels and out_channels follow from the data).
        target: Columns, array or field to predict.
        ignore: Columns that are left out.
        task: What is predicted; default: what the data look like.
        limit: Relative error of a layer's result that counts as safe.
    """

    model: str
    data: Path
    model_args: str | None = None
    target: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    task: str | None = None
    limit: Annotated[float, Range(1e-6)] = 0.05
