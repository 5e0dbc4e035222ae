"""One forward of a packed model's module, on the arguments as its user gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from torch import nn

from nodebits.core.context import opened
from nodebits.core.errors import ConfigError
from nodebits.core.signature import names_of
from nodebits.engine.chain import ChainRecord, deferring
from nodebits.engine.pending import settle, unread
from nodebits.graph import ReorderedGraph
from nodebits.runtime.arguments import packed_features, with_edges, with_features
from nodebits.runtime.reordered import check_reorderable, reordered_arguments, reordered_result
from nodebits.runtime.saturation import UseLog


class Done(NamedTuple):
    """What came of a forward.

    Attributes:
        result: What the module returned, in the user's order of nodes.
        chains: How its layers' results were passed on.
        wants_edges: Whether it takes edges as a tensor, and no graph.
    """

    result: Any
    chains: list[ChainRecord]
    wants_edges: bool


def run_module(
    module: nn.Module,
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    uses: UseLog | None,
    wants_edges: bool,
) -> Done:
    """Runs it.

    Args:
        module: Of frozen layers.
        args: As :meth:`nodebits.PackedModel.predict` got them.
        keywords: Likewise.
        uses: Where the use of codes is noted, or None.
        wants_edges: Whether an earlier forward wanted edges as a tensor.

    Raises:
        ConfigError: If the graph is reordered and the arguments cannot follow.
    """
    names = names_of(module.forward)
    graph = next((g for g in (*args, *keywords.values()) if isinstance(g, ReorderedGraph)), None)
    if graph is not None:
        check_reorderable(module)
        args, keywords = reordered_arguments(graph, names, args, keywords)
    elif any(x.graph is not None for x in packed_features(args, keywords)):
        raise ConfigError("the features were packed for a reordered graph: pass that graph")
    tensors = with_edges(args, keywords) if wants_edges else None
    given = (args, keywords) if tensors is None else tensors
    with deferring() as chains, nullcontext() if uses is None else opened(uses=uses):
        try:
            args, keywords = with_features(names, *given, unread)
            result = settle(module(*args, **keywords))
        except (AttributeError, TypeError):
            # A module of a user's may take edges as a tensor, which costs memory.
            tensors = with_edges(*given)
            if tensors is None:
                raise
            chains.clear()
            args, keywords = with_features(names, *tensors, unread)
            result = settle(module(*args, **keywords))
            wants_edges = True
    return Done(result if graph is None else reordered_result(graph, result), chains, wants_edges)
