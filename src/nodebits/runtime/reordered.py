"""Packed models on a reordered graph: nodes change places on the way in and back on the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.core.observer import FEATURES, check_finite
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import ReorderedGraph
from nodebits.runtime.arguments import packed_features, with_features


def check_reorderable(model: nn.Module) -> None:
    """Refuses models with parameters of single nodes: they belong to the user's numbers.

    Raises:
        ConfigError: Names the site.
    """
    for path, module in model.named_modules():
        if isinstance(module, RowQuantizer) and module.bound:
            raise ConfigError(
                f"site {path!r} has parameters for every node of one graph, in the order of its "
                "nodes: prepare the graph without reorder"
            )


def rows_in_order(x: Tensor, graph: ReorderedGraph) -> Tensor:
    """Rows under the graph's numbers.

    Raises:
        ShapeError: If there are more or fewer rows than nodes.
    """
    if x.dim() != 2 or x.size(0) != graph.num_src:
        raise ShapeError(
            f"features have shape {list(x.shape)}: the graph has {graph.num_src} nodes"
        )
    return x.index_select(0, graph.order)


def reordered_arguments(
    graph: ReorderedGraph, names: Sequence[str], args: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a model with the features' rows in the graph's order.

    Args:
        graph: Reordered graph, one of the arguments.
        names: Names of the positional arguments, as far as they have one.
        args: Features in the user's order, or packed ahead for this graph; edge weights in the
            order of the user's edges.
        keywords: Likewise.

    Raises:
        ConfigError: If features were packed for another order, or if there are other arguments
            that may belong to nodes.
        NonFiniteError: As :meth:`nodebits.PackedModel.predict`.
    """
    if any(x.graph is not graph for x in packed_features(args, keywords)):
        raise ConfigError(
            "the features were packed for another order of the nodes: pass this graph to "
            "pack_input as edge_index"
        )
    moved: set[int] = set()

    def move(x: Tensor) -> Tensor:
        check_finite(x, FEATURES)  # names the user's row
        x = rows_in_order(x, graph)
        moved.add(id(x))
        return x

    args, keywords = with_features(names, args, keywords, move)
    for name, value in (*((f"argument {i + 1}", v) for i, v in enumerate(args)), *keywords.items()):
        if isinstance(value, Tensor) and id(value) not in moved:
            if value.dim() < 1 or value.size(0) != graph.num_edges:
                raise ConfigError(
                    f"{name} is a tensor {list(value.shape)}: on a reordered graph only edge "
                    f"weights [{graph.num_edges}] can be given beside the features"
                )
        elif not isinstance(value, Tensor | PackedInput | ReorderedGraph | bool | int | str | None):
            raise ConfigError(
                f"{name} is a {type(value).__name__}: a reordered graph takes one matrix of "
                "features and edge weights"
            )
    return list(args), dict(keywords)


def reordered_result(graph: ReorderedGraph, result: Any) -> Tensor:
    """The rows of a model's result in the user's order.

    Raises:
        ConfigError: If the result does not have a row per node.
    """
    if not isinstance(result, Tensor) or result.dim() < 1 or result.size(0) != graph.num_dst:
        raise ConfigError(
            "the model does not return a row per node: prepare its graph without reorder"
        )
    return result.index_select(0, graph.position)
