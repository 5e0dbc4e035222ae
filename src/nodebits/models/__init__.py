"""Named models, described by a spec that a file can carry."""

from nodebits.models.build import GraphClassifier, build_model, model_names
from nodebits.models.pairs import PairModel
from nodebits.models.recipe import register_model
from nodebits.models.spec import ModelSpec

__all__ = [
    "GraphClassifier",
    "ModelSpec",
    "PairModel",
    "build_model",
    "model_names",
    "register_model",
]
