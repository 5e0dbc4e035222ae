"""What the steps of rows of several widths mean, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nodebits.core.context import current
from nodebits.core.errors import GraphMismatchError
from nodebits.core.packing import unpack
from nodebits.core.row_layout import arranged
from nodebits.engine.buckets import bucket_of
from nodebits.engine.by_width import row_extent, scale_of, zero_points_of
from nodebits.engine.encoding import inverse_power
from nodebits.engine.sites.own_nodes import stand_ins
from nodebits.engine.sums import zero_point_sum
from nodebits.graph import Graph
from nodebits.ops.operator import OPERATORS

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "row_layout": arranged,
    "row_extent": row_extent,
    "width_scale": scale_of,
    "row_zero_point": zero_points_of,
    "inverse_power": inverse_power,
    "degree_bucket": lambda indptr, splits: bucket_of(indptr.diff().float(), splits),
}


def _step(function: Callable[..., Any]) -> Callable[..., Any]:
    FUNCTIONS[function.__name__] = function
    return function


def _graph(indptr: Tensor, indices: Tensor, num_src: int) -> Graph:
    graph = Graph(indptr, indices, num_src)
    graph.checked = True
    return graph


@_step
def fused_gemm_bucketed(packed: Tensor, order: Tensor, counts: Any, *rest: Any) -> Any:
    """The operator, whose counts may be a value."""
    return OPERATORS["fused_gemm_bucketed"].schema(packed, order, _numbers(counts), *rest)


@_step
def unpack_bucketed(packed: Tensor, order: Tensor, counts: Any, *rest: Any) -> Any:
    """Likewise."""
    return OPERATORS["unpack_bucketed"].schema(packed, order, _numbers(counts), *rest)


def _numbers(counts: Any) -> list[int]:
    return counts.tolist() if isinstance(counts, Tensor) else counts


FUNCTIONS["zero_point_sum"] = lambda indptr, indices, zero, weight: zero_point_sum(
    zero, _graph(indptr, indices, zero.size(0)), weight
)


@_step
def fingerprint(indptr: Tensor, indices: Tensor, num_src: int) -> Tensor:
    """:attr:`nodebits.graph.Graph.fingerprint`."""
    return _graph(indptr, indices, num_src).fingerprint_value


@_step
def own_nodes(site: str, found: Tensor | None, known: int, num_nodes: int, num_rows: int) -> Tensor:
    """The numbers of the nodes of a site's own graph; other graphs are refused."""
    if current().example:
        return stand_ins(num_rows, num_nodes)
    if num_rows != num_nodes or not _same(found, known):
        raise GraphMismatchError(f"site {site!r} has a bitwidth for each node of another graph")
    return torch.arange(num_rows, device="cpu")


@_step
def own_nodes_or(
    site: str, found: Tensor | None, known: int, num_nodes: int, nearest: Tensor
) -> Tensor:
    """The same, and ``nearest`` for other graphs."""
    if current().example or nearest.numel() != num_nodes or not _same(found, known):
        return nearest
    return torch.arange(num_nodes, device="cpu")


def _same(found: Tensor | None, known: int) -> bool:
    return found is None or int(found) == known


@_step
def fields_at(packed: Tensor, bits: int, group: Tensor, plus: int) -> Tensor:
    """Fields of a string of bytes at some places, plus 0 or 1."""
    count = 8 * packed.numel() // bits
    return unpack(packed.view(1, -1), bits, count).view(-1).index_select(0, group) + plus


@_step
def table_at(table: Tensor, packed: Tensor, bits: int, group: Tensor) -> Tensor:
    """Values of a table, whose places are such fields."""
    return table.index_select(0, fields_at(packed, bits, group, 0).int())
