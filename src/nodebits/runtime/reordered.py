"""Packed models on a reordered graph: nodes change places on the way in and back on the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError, NonFiniteError, ShapeError
from nodebits.core.observer import check_finite
from nodebits.graph import ReorderedGraph
from nodebits.nn.functional import Features, PackedInput
from nodebits.nn.quantizers.rows import RowQuantizer


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


def run_reordered(
    call: Callable[..., Any],
    x: Features,
    graph: ReorderedGraph,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
) -> Tensor:
    """Runs ``call(x, graph, ...)`` on nodes in the graph's order.

    Args:
        call: The model.
        x: float ``[N, C]`` in the user's order, or packed ahead for this graph.
        graph: Reordered graph.
        args: ``edge_weight`` at most, in the order of the user's edges.
        keywords: Likewise.

    Returns:
        A row per node, in the user's order.

    Raises:
        ConfigError: If features were packed for another order, if there are arguments that
            belong to nodes, or if the result does not have a row per node.
        NonFiniteError: As :meth:`nodebits.PackedModel.predict`.
    """
    _check_arguments(graph, args, keywords)
    if isinstance(x, PackedInput):
        if x.graph is not graph:
            raise ConfigError(
                "the features were packed for another order of the nodes: pass this graph to "
                "pack_input as edge_index"
            )
        result = call(x, graph, *args, **keywords)
    elif isinstance(x, Tensor):
        try:
            result = call(rows_in_order(x, graph), graph, *args, **keywords)
        except NonFiniteError:
            check_finite(x.float(), "the feature matrix")  # names the user's row
            raise
    else:
        raise ConfigError(f"a reordered graph takes one matrix of features, not {type(x).__name__}")
    if not isinstance(result, Tensor) or result.dim() < 1 or result.size(0) != graph.num_dst:
        raise ConfigError(
            "the model does not return a row per node: prepare its graph without reorder"
        )
    return result.index_select(0, graph.position)


def _check_arguments(
    graph: ReorderedGraph, args: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    for name, value in (*((f"argument {i + 3}", v) for i, v in enumerate(args)), *keywords.items()):
        if isinstance(value, Tensor) and (value.dim() < 1 or value.size(0) != graph.num_edges):
            raise ConfigError(
                f"{name} is a tensor {list(value.shape)}: on a reordered graph only edge weights "
                f"[{graph.num_edges}] can be given"
            )
