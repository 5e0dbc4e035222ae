"""Codes of two rows that meet at an edge, once for both forms of rows.

Both ends of an edge stand on one scale, so that their codes may be added as integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.engine.formats import Summands
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.graph.edge_table import EdgeTable
from nodebits.nn.functional import AnyRows, Site, quantize_rows, trained
from nodebits.nn.inputs import Features, NamedLayer, as_features
from nodebits.nn.linear import QuantLinear
from nodebits.nn.split_linear import hooked
from nodebits.ops import Joined
from nodebits.ops.definitions.pairs import MOST_FLOOR

# Edges whose rows are gathered at once.
EDGE_BLOCK = 65_536


def quantize_together(site: Site, *tensors: Features) -> list[AnyRows]:
    """Rows of several tensors on one scale; a range that is observed is that of all.

    Args:
        site: Of all.
        *tensors: float32 ``[N, C]`` each, the same object where it is the same rows.
    """
    distinct = list({id(one): one for one in tensors}.values())
    if len(distinct) == 1 or isinstance(site, RowQuantizer):
        made = [quantize_rows(site, one) for one in distinct]
    else:
        floats = [one for one in distinct if isinstance(one, Tensor)]
        all_rows = trained(quantize_rows(site, torch.cat(floats)))
        parts = all_rows.codes.split([one.size(0) for one in floats])
        made = [all_rows._replace(codes=part) for part in parts]
    places = {id(one): i for i, one in enumerate(distinct)}
    return [made[places[id(one)]] for one in tensors]


class EdgeRows(NamedTuple):
    """Rows of edges.

    Attributes:
        rows: ``[M, C]``.
        places: int64 ``[E]``, the row of every edge; None where they come as the edges do.
    """

    rows: AnyRows
    places: Tensor | None

    def joined(self, summands: Summands) -> Joined:
        """What an operator takes, of the summands of the rows."""
        return Joined(*summands.source, self.places)

    def floats(self, values: Tensor, part: slice) -> Tensor:
        """Rows of ``values``, which are one for each of these, of some edges."""
        if self.places is None:
            return values[part]
        return values.index_select(0, self.places[part])


def edge_features(
    edge_attr: Any, num_edges: int, layer: NamedLayer, columns: int | None = None
) -> Tensor:
    """float32 ``[E, D]``, in the order in which the edges were given.

    Args:
        edge_attr: Of a forward.
        num_edges: E.
        layer: Who reads them.
        columns: D, where the layer takes no other.

    Raises:
        ShapeError: If there is no row for every edge, or of other columns; names the layer.
    """
    shape = list(edge_attr.shape) if isinstance(edge_attr, Tensor) else None
    if shape is None or len(shape) not in (1, 2) or shape[0] != num_edges:
        got = "no edge_attr" if edge_attr is None else f"edge_attr {shape or type(edge_attr)}"
        raise ShapeError(
            f"layer {layer.described} got {got} for {num_edges} edges: it has a row for every edge"
        )
    if edge_attr.layout is not torch.strided:
        raise ShapeError(
            f"layer {layer.described} got edge_attr as a sparse matrix: pass edge_attr.to_dense()"
        )
    features = as_features(edge_attr, layer)
    assert isinstance(features, Tensor)
    features = features.view(-1, 1) if features.dim() == 1 else features
    if columns is not None and features.size(1) != columns:
        raise ShapeError(
            f"layer {layer.described} got edge_attr {shape}, expected [{num_edges}, {columns}]"
        )
    return features


def edge_table(
    edge_attr: Any,
    graph: Graph,
    layer: NamedLayer,
    maps: Sequence[nn.Module | None],
    columns: int | None = None,
    ordered: bool = False,
) -> EdgeTable:
    """Rows of edges, and which one each edge has: see :meth:`Graph.edge_table`.

    A plan has each row once only where maps of codes read them: floats may be rounded by where
    their row stands, and a hook would see other rows.

    Args:
        edge_attr: As in :func:`edge_features`.
        graph: Of the edges.
        layer: As in :func:`edge_features`.
        maps: What reads the rows before they become codes; None for nothing.
        columns: As in :func:`edge_features`.
        ordered: As in :meth:`Graph.edge_table`.

    Raises:
        ShapeError: As in :func:`edge_features`.
    """
    features = edge_features(edge_attr, graph.num_edges, layer, columns)
    if all(one is None or maps_codes(one) for one in maps):
        return graph.edge_table(features, ordered)
    return graph.edge_rows(features, ordered)


def maps_codes(module: nn.Module) -> bool:
    """Whether a linear map has codes on both sides that follow from values alone.

    And nobody looks at what it reads.
    """
    sites = dict(module.named_children())
    of_values = all(one.of_values for one in sites.values() if isinstance(one, RowQuantizer))
    sites.pop("output", None)
    codes = all(getattr(site, "bits", None) is not None for site in sites.values())
    return isinstance(module, QuantLinear) and codes and of_values and not hooked(module)


def mapped_features(features: Tensor, linear: Any, columns: int, layer: NamedLayer) -> Tensor:
    """Features of edges that are as wide as the rows of nodes.

    Args:
        features: float32 ``[E, D]``.
        linear: Maps D columns; None where they are as wide already.
        columns: C.
        layer: Who reads them.

    Raises:
        ShapeError: If they are not; names the layer.
    """
    if linear is not None:
        mapped: Tensor = linear(features)
        return mapped
    if features.size(1) != columns:
        raise ShapeError(
            f"layer {layer.described} got edge_attr {list(features.shape)} for nodes of {columns} "
            f"columns: make the layer with edge_dim={features.size(1)}, which maps them"
        )
    return features


class Meeting(NamedTuple):
    """Codes as they meet others.

    Attributes:
        rows: As they were given.
        zero_point: float32 ``[1]`` or ``[C]``.
        summands: Packed fields; None in training.
    """

    rows: AnyRows
    zero_point: Tensor
    summands: Summands | None

    @property
    def codes(self) -> Tensor:
        """float32 ``[N, C]``."""
        return self.rows.float_codes()

    @property
    def num_cols(self) -> int:
        """C."""
        return self.rows.num_cols


def meeting(rows: AnyRows, site: str) -> Meeting:
    """Codes that may be added to, or multiplied with, those of other rows.

    Args:
        rows: Of a site that is not left in float.
        site: Its name, for the error.

    Raises:
        ConfigError: If every row has a scale, a zero point or a width of its own.
    """
    if not rows.is_plain:
        raise ConfigError(
            f"site {site!r} holds rows that meet others at an edge: it needs one width, scale and "
            "zero point for all rows, or one per column"
        )
    summands = rows.summands()
    return Meeting(rows, rows.zero_point if summands is None else summands.zero_point, summands)


def edge_blocks(graph: Graph) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Targets, sources and places of some edges after some."""
    for e in range(0, graph.num_edges, EDGE_BLOCK):
        part = slice(e, min(e + EDGE_BLOCK, graph.num_edges))
        yield graph.rows[part], graph.indices[part], part


def _rounded(x: Tensor) -> Tensor:
    """``x`` rounded, with the gradient of ``x``."""
    return x + (x.round() - x).detach()


def common_zero(total: Tensor, cols: int, most: int = MOST_FLOOR) -> Tensor:
    """What a sum of codes is at zero: ``[C]``, an integer that no sum is apart from.

    Args:
        total: Sum of their zero points.
        cols: C.
        most: Beyond every sum of the codes.
    """
    return _rounded(total.clamp(0, most)).expand(cols)


def reduced(sums: Tensor, graph: Graph, aggr: str) -> Tensor:
    """Sums over edges as the reduction ``aggr`` has them.

    Args:
        sums: float32 ``[num_dst, C]``.
        graph: Topology.
        aggr: ``"mean"`` divides by the number of edges of a target; others leave sums as they are.
    """
    return sums * graph.inverse_degree.view(-1, 1) if aggr == "mean" else sums
