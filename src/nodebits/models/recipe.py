"""Sizes and training of a named model, and the registry of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from nodebits.core.registry import MODELS
from nodebits.models.fit_config import FitConfig
from nodebits.models.spec import ModelSpec

Builder = Callable[[ModelSpec, int], nn.Module]
_FEW = 2


@dataclass(frozen=True)
class Recipe:
    """Architecture sizes, and how the float and the quantized model are trained.

    ``quantized_fit`` starts from the weights that ``float_fit`` found, see :meth:`second_fit`.
    ``hidden`` is the full width: a GAT with 8 heads of 8 has 64. ``quantized_dropout`` replaces
    ``dropout`` in quantized training. ``normalize_features`` divides bag-of-words rows by
    their sums; None is what is usual for the data set. ``dropouts`` replaces ``dropout`` on data
    sets by name.
    """

    hidden: int
    layers: int
    heads: int
    dropout: float
    float_fit: FitConfig
    quantized_fit: FitConfig
    norm: str | None = None
    quantized_dropout: float | None = None
    normalize_features: bool | None = None
    dropouts: Mapping[str, float] = field(default_factory=dict)

    def second_fit(self, bits: int, warm: bool = True) -> FitConfig:
        """Training of the quantized model, and of a float one that is trained alike.

        Args:
            bits: Width of the model; few bits lie far from what float found, and weights have as
                far to go as in the first training.
            warm: Whether it starts from the float weights, and not from fresh ones.
        """
        near = warm and bits > _FEW
        return self.quantized_fit if near else self.quantized_fit.replace(lr=self.float_fit.lr)


# Fey and Lenssen's PyG benchmark for citation graphs (sizes, dropout, weight decay). The budget of
# quantized training is that of the float model, so that neither side of a comparison had more.
NODE_FIT = FitConfig(epochs=300, lr=0.01, weight_decay=5e-4)
# The ten-fold protocol of the TU sets: the epoch of lowest validation loss, and a rate that is
# halved every 50 of 200 epochs; a shorter training has as many steps.
GRAPH_FIT = FitConfig(
    epochs=200,
    lr=0.005,
    weight_decay=2e-4,
    select="loss",
    schedule="step",
    step_gamma=0.5,
    batch_size=128,
)
# At the first training's rate the second loses what that found, a float model as much as a
# quantized one (docs/lab-notes.md).
GRAPH_SECOND_FIT = GRAPH_FIT.replace(lr=0.001)
# Propagation regularises: the decay of the two-layer GCN suits all models that propagate.
NODE = Recipe(64, 2, 1, 0.5, NODE_FIT, NODE_FIT)
GRAPH = Recipe(64, 4, 1, 0.5, GRAPH_FIT, GRAPH_SECOND_FIT, "batch_norm")


@dataclass(frozen=True)
class NamedModel:
    """How a named model is built and trained.

    Attributes:
        build: Takes the spec and the number of outputs; returns a module that is called as
            ``model(x, edge_index)``.
        recipes: By level of tasks, ``"node"`` or ``"graph"``.
        build_graph: For graph tasks; None puts a pooling and a head behind ``build``.
    """

    build: Builder
    recipes: Mapping[str, Recipe]
    build_graph: Callable[[ModelSpec], nn.Module] | None = None


def register_model(
    name: str,
    build_graph: Callable[[ModelSpec], nn.Module] | None = None,
    **recipes: Recipe,
) -> Callable[[Builder], Builder]:
    """Decorator of a builder: makes its model known under ``name``.

    Args:
        name: What users call it.
        build_graph: As in :class:`NamedModel`.
        **recipes: By level of tasks, ``node`` or ``graph``.
    """

    def decorate(build: Builder) -> Builder:
        MODELS.add(name, NamedModel(build, recipes, build_graph))
        return build

    return decorate
