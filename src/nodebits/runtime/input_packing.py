"""Features packed ahead of a forward, for the layer that reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import ReorderedGraph, as_graph, graph_scope
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import QuantLinear
from nodebits.runtime.reordered import check_reorderable, rows_in_order


def packed_input(module: nn.Module, x: Any, layer: str | None, edge_index: Any) -> PackedInput:
    """See :meth:`nodebits.PackedModel.pack_input`, of the model's module."""
    x = _matrix(x)
    target = reader_of(module, layer)
    rows = {}
    graph = None if edge_index is None else as_graph(edge_index, x.size(0), x.size(0))
    ordered = graph if isinstance(graph, ReorderedGraph) else None
    if ordered is not None:
        check_reorderable(module)
        x = rows_in_order(x, ordered)
    products = {id(m.input) for m in target.modules() if isinstance(m, QuantLinear)}
    with graph_scope(graph=graph):
        for site in target.input_sites():
            if isinstance(site, RowQuantizer):
                rows[site.site_name] = site.pack_features(x, id(site) in products)
    return PackedInput(rows, (x.size(0), x.size(1)), ordered)


def reader_of(module: nn.Module, layer: str | None) -> QuantLayer:
    """The layer that reads features.

    Args:
        module: What holds it.
        layer: Its path; None for the first one.

    Raises:
        ConfigError: If there is none.
    """
    target = _first_layer(module) if layer is None else dict(module.named_modules()).get(layer)
    if target is None and layer is None:
        raise ConfigError(
            f"no layer of {type(module).__name__} reads codes alone: those it has also "
            "read their input in float, so that it cannot be packed ahead"
        )
    if not isinstance(target, QuantLayer):
        known = ", ".join(quantized_paths(module))
        raise ConfigError(f"{layer!r} is not a quantized layer. Known: {known}")
    return target


def quantized_paths(module: nn.Module) -> list[str]:
    """Paths of the quantized layers, parents before children."""
    return [path for path, part in module.named_modules() if isinstance(part, QuantLayer)]


def _first_layer(module: nn.Module) -> QuantLayer | None:
    # In the order of definition. Parts of a layer that reads floats get what that layer makes.
    if isinstance(module, QuantLayer):
        return module if module.input_sites() else None
    return next(filter(None, map(_first_layer, module.children())), None)


def _matrix(x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise ShapeError(
            f"features are a {type(x).__name__}: expected a float tensor [num_nodes, channels], or "
            "what pack_input returned"
        )
    if x.layout != torch.strided:
        raise ShapeError(
            f"features are a sparse matrix ({x.layout}): pass x.to_dense(), they are kept as "
            "sparse rows by themselves where that is smaller"
        )
    if x.dim() != 2 or not x.is_floating_point():
        raise ShapeError(
            f"features are {x.dtype} {list(x.shape)}: expected a float tensor [num_nodes, channels]"
        )
    # The cast comes before the check that all is finite: a finite float64 may be infinite then.
    matrix: Tensor = x.float().contiguous()
    return matrix
