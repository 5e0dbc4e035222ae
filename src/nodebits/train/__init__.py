"""Training protocol: loop, selection on validation, distillation, seeds, folds."""

from nodebits.core.errors import LabelError, OutputError
from nodebits.models.fit_config import FitConfig
from nodebits.models.recipe import Recipe
from nodebits.tasks import Metrics
from nodebits.train.errors import (
    DivergedError,
    IgnoredDataWarning,
    MissingClassWarning,
    OverlappingSplitsError,
    UntrainedParameterError,
    UntrainedParameterWarning,
)
from nodebits.train.evaluate import evaluate, predict_logits
from nodebits.train.fit import FitResult, fit
from nodebits.train.forms import as_problem
from nodebits.train.metrics import mean_and_std
from nodebits.train.neighbors import NeighborSampler
from nodebits.train.pairs import PairProblem
from nodebits.train.problem import GraphProblem, NodeProblem, Problem
from nodebits.train.recipes import find_recipe
from nodebits.train.sampled import HeteroProblem, SampledProblem

__all__ = [
    "DivergedError",
    "FitConfig",
    "FitResult",
    "GraphProblem",
    "HeteroProblem",
    "IgnoredDataWarning",
    "LabelError",
    "Metrics",
    "MissingClassWarning",
    "NeighborSampler",
    "NodeProblem",
    "OutputError",
    "OverlappingSplitsError",
    "PairProblem",
    "Problem",
    "Recipe",
    "SampledProblem",
    "UntrainedParameterError",
    "UntrainedParameterWarning",
    "as_problem",
    "evaluate",
    "find_recipe",
    "fit",
    "mean_and_std",
    "predict_logits",
]
