"""Named models, described by a spec that a file can carry."""

from nodebits.nn.models.build import GraphClassifier, build_model, model_names
from nodebits.nn.models.shallow import GINClassifier
from nodebits.nn.models.spec import ModelSpec

__all__ = ["GINClassifier", "GraphClassifier", "ModelSpec", "build_model", "model_names"]
