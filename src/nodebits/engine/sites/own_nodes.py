"""Rows that are bound to the nodes of one graph, by the numbers of these nodes.

A plan is made on a small example, and has to say of any graph whether it is that one. So it asks
in every run which nodes its rows are, and looks their parameters up where the model stores them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from nodebits.core.recorded import is_recording, recorded
from nodebits.core.row_layout import WIDTH_BITS, RowLayout
from nodebits.graph.scope import current_scope


class Bound(Protocol):
    """What of a site its rows follow from."""

    site_name: str
    num_nodes: int
    fingerprint: Tensor
    packed_widths: Tensor

    @property
    def layout(self) -> RowLayout:
        """Of all its nodes."""
        ...


def stand_ins(num_rows: int, num_nodes: int) -> Tensor:
    """Nodes that the rows of an example take the parameters of, int64 ``[num_rows]``."""
    return torch.arange(num_rows, device="cpu") % max(num_nodes, 1)


def own(site: Bound, num_rows: int) -> Tensor:
    """Which node every row is, int64 ``[num_rows]``; a run refuses other graphs."""
    args = (*_known(site), site.num_nodes, num_rows)
    return recorded("own_nodes", lambda: stand_ins(num_rows, site.num_nodes), *args)


def own_or(site: Bound, nearest: Tensor) -> Tensor:
    """The same where the graph is the site's own; ``nearest``, a node for every row, elsewhere."""
    args = (*_known(site), site.num_nodes, nearest)
    return recorded("own_nodes_or", lambda: nearest.clone(), *args)


def _known(site: Bound) -> tuple[Any, ...]:
    """Name of the site, fingerprint of the graph of this forward, and the one to be expected."""
    graph, known = current_scope().graph, int(site.fingerprint)
    if graph is None or known == -1 or not is_recording():
        return site.site_name, None, known
    return site.site_name, graph.fingerprint_value, known


def widths_of(site: Bound, group: Tensor) -> Tensor:
    """Widths of rows, uint8 ``[N]``, by the site's node or group that every row takes."""
    return fields_at(lambda: site.layout.widths, site.packed_widths, group, 1)


def fields_at(values: Callable[[], Tensor], packed: Tensor, group: Tensor, plus: int) -> Tensor:
    """Some of ``values`` uint8 ``[M]``, which are fields of three bits plus ``plus``.

    Args:
        values: Gives all of them.
        packed: uint8, the fields.
        group: Positions, ``[N]``.
        plus: 0 or 1.
    """
    return recorded(
        "fields_at", lambda: values().index_select(0, group), packed, WIDTH_BITS, group, plus
    )
