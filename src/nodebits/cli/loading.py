"""A saved model and the data it is asked about."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from nodebits.cli.settings import SavedModel
from nodebits.core.errors import ConfigError
from nodebits.data import Dataset
from nodebits.data.base import with_task
from nodebits.data.catalogue import data_folder
from nodebits.data.own.options import OwnOptions
from nodebits.data.sources.base import Request, find_source
from nodebits.jobs.experiment import Goal, problem_of_fold
from nodebits.report.sites import open_model
from nodebits.runtime import PackedModel
from nodebits.tasks import find_task
from nodebits.train import Problem
from nodebits.train.inputs import Inputs
from nodebits.train.questions import Questions


@dataclass(frozen=True)
class Opened:
    """A model and data.

    Attributes:
        packed: The model.
        problem: The data.
        name: Canonical name of the data set.
        dataset: As it was loaded.
    """

    packed: PackedModel
    problem: Problem
    name: str
    dataset: Dataset


def open_model_and_data(
    asked: SavedModel, fold: int | None = None
) -> tuple[PackedModel, Problem, str]:
    """Loads both and returns them with the data set's canonical name; as :func:`opened`."""
    found = opened(asked, fold)
    return found.packed, found.problem, found.name


def opened(asked: SavedModel, fold: int | None = None, asks: bool = False) -> Opened:
    """Loads a model and data.

    Args:
        asked: Which; whatever is None is as the model's file says that it was in training.
        fold: Of the ten-fold protocol; likewise.
        asks: Whether nothing is measured: own data then need neither targets nor splits.

    Raises:
        ConfigError: ``fold`` is given for a node-level data set; the file names no data set and
            none is given; or the data set does not fit the model.
    """
    path, dataset, data_root = asked.model, asked.dataset, asked.data_root
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a class of the user's own may lie in the current folder
    packed = open_model(path, asked.allow or ())
    origin = packed.metadata.get("dataset")
    if dataset is None:
        if not isinstance(origin, str):
            raise ConfigError(f"{path} does not say which data set it is for: pass --dataset")
        dataset = origin
    notes = packed.metadata if _same(dataset, origin, data_root) else {}
    split = notes.get("split") if asked.split is None else asked.split
    if fold is None and isinstance(notes.get("fold"), int):
        fold = notes["fold"]
    use_node_attr = asked.use_node_attr
    if use_node_attr is None:
        use_node_attr = notes.get("use_node_attr") is True
    # The features that the model was trained on; a file without the note had them normalized.
    folder = data_folder(data_root)
    source, _ = find_source(dataset, folder)
    normalize = bool(packed.metadata.get("normalize_features", True))
    task = packed.metadata.get("task") if packed.spec is None else packed.spec.task
    seed = notes.get("split_seed") if asked.split is None else None
    asks = asks and source.own
    loaded = source.load(
        Request(
            dataset,
            folder,
            asked.cache,
            split,
            normalize,
            use_node_attr,
            task,
            _roles(packed, asks),
            seed if isinstance(seed, int) else None,
        )
    )
    if fold is not None and not find_task(loaded.task).level.many_graphs:
        raise ConfigError(f"--fold is for graph-level data sets; {loaded.name} is node-level")
    check_fit(path, packed, loaded)
    if asks:
        return Opened(packed, Questions(loaded, task or loaded.task), loaded.name, loaded)
    if task is not None:
        loaded = with_task(loaded, task)
    metric = packed.metadata.get("metric") if asked.metric is None else asked.metric
    known = find_task(loaded.task).metrics
    if asked.metric is None and not (
        isinstance(metric, str) and (metric in known or "@" in metric)
    ):
        metric = None  # a callable of the user's own is not known by its name
    problem = problem_of_fold(loaded, fold, Goal(metric=metric))
    return Opened(packed, problem, loaded.name, loaded)


def _roles(packed: PackedModel, asks: bool) -> OwnOptions:
    """How own data were read in training."""
    about = packed.metadata.get("data")
    about = about if isinstance(about, dict) else {}
    target = about.get("target")
    return OwnOptions(
        tuple(target) if isinstance(target, list) else (), schema=about or None, asks=asks
    )


def _same(dataset: str, origin: object, data_root: Path | None) -> bool:
    folder = data_folder(data_root)
    return isinstance(origin, str) and (
        dataset == origin or find_source(dataset, folder)[1] == origin
    )


def check_fit(path: Path, packed: PackedModel, loaded: Dataset) -> None:
    """Refuses data of another level or width than the model's, naming both data sets."""
    spec = packed.spec
    if spec is None or loaded.num_features == 0:
        return
    sides = [
        (_unit(spec.task), _unit(loaded.task), "level task"),
        (spec.in_channels, loaded.num_features, "features"),
    ]
    for ours, theirs, what in sides:
        if ours != theirs:
            raise ConfigError(
                f"{path} was trained on {packed.metadata.get('dataset', 'another data set')} "
                f"({ours} {what}) and does not fit {loaded.name} ({theirs} {what})"
            )


def _unit(task: str) -> str:
    return find_task(task).level.unit


def trained_on(packed: PackedModel, name: str) -> str | None:
    """The data set that the model was trained on, where that is another one than ``name``."""
    origin = packed.metadata.get("dataset")
    return origin if isinstance(origin, str) and origin != name else None


def title_of(packed: PackedModel, name: str) -> str:
    """Returns ``name``, with the data set of training where that is another one."""
    origin = trained_on(packed, name)
    return name if origin is None else f"{name} (the model was trained on {origin})"


def one_graph(problem: Problem, name: str) -> Inputs:
    """Features and edges of a data set that is one graph.

    Raises:
        ConfigError: If it is many graphs.
    """
    if problem.task.level.many_graphs:
        raise ConfigError(
            f"{name} is many graphs: packed features, and the nodes of a sample, are of one, such "
            "as Cora"
        )
    return problem.example()
