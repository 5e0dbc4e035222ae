"""A saved model and the data it is asked about."""

from __future__ import annotations

from pathlib import Path

import torch

from nodebits.bench.experiment import problem_of_fold
from nodebits.bench.sites import open_model
from nodebits.core.errors import ConfigError
from nodebits.data import load_dataset
from nodebits.runtime import PackedModel
from nodebits.train import Problem
from nodebits.train.inputs import Inputs
from nodebits.train.problem import NodeProblem


def open_model_and_data(
    path: Path,
    dataset: str,
    data_root: Path | None,
    cache: Path | None,
    fold: int | None,
    threads: int | None,
) -> tuple[PackedModel, Problem, str]:
    """Loads both and returns them with the data set's canonical name.

    Raises:
        ConfigError: ``fold`` is given for a node-level data set.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    packed = open_model(path)
    # The features that the model was trained on; a file without the note had them normalized.
    normalize = bool(packed.metadata.get("normalize_features", True))
    loaded = load_dataset(dataset, data_root, cache=cache, normalize_features=normalize)
    if fold is not None and loaded.task != "graph":
        raise ConfigError(f"--fold is for graph-level data sets; {loaded.name} is node-level")
    return packed, problem_of_fold(loaded, fold), loaded.name


def one_graph(problem: Problem, name: str) -> Inputs:
    """Features and edges of a data set that is one graph.

    Raises:
        ConfigError: If it is many graphs.
    """
    if not isinstance(problem, NodeProblem):
        raise ConfigError(
            f"{name} is many graphs: packed features are of the nodes of one, such as Cora"
        )
    return problem.inputs
