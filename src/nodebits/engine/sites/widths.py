"""Where the widths of rows come from: a strategy each, beside one of scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, cast

from torch import Tensor

from nodebits import ops
from nodebits.core.errors import FileFormatError, GraphMismatchError
from nodebits.core.recorded import is_recording
from nodebits.core.row_layout import RowLayout, unpack_widths
from nodebits.engine.buckets import Buckets
from nodebits.engine.by_width import spread_order
from nodebits.engine.formats.bucketed import Bucketed
from nodebits.engine.rows import Rows
from nodebits.engine.sites import own_nodes
from nodebits.engine.sites.base import Place, RowQuantizer
from nodebits.graph.scope import current_scope

# Groups that stand in for the pairs of a bound graph: as many as A2Q's released scripts use.
FALLBACK_GROUPS = 1000


class _SeveralWidths(RowQuantizer):
    """Rows of several widths; ``bits`` is the largest, which int32 bounds are checked with."""

    formats = ("bucketed",)
    of_values = False
    granularity = "row"
    bits = 8

    def made(self, rows: Rows) -> bool:
        return rows.data.name in self.formats

    def measure(self, x: Tensor) -> Tensor:
        """Range of every row ``[N]``; the strategy of scales says in which units."""
        raise NotImplementedError

    def _nearest(self, x: Tensor, limits: Tensor) -> Tensor:
        """The group of nearest range, int32 ``[N]`` (``limits`` ``[m]`` rise).

        A2Q's Nearest Neighbour Strategy: ``argmin_k |max_j |x_ij| - q_k|``, binary search.
        """
        return ops.nearest_group(self.measure(x), limits)


class NodeWidths(_SeveralWidths):
    """A width for every node of one graph.

    Others than these take the group of nearest range among them: of another graph, where
    ``fallback`` allows it; all, where groups stand in for nodes from the start (``nearest``).
    """

    num_nodes: int
    fallback: bool
    nearest: bool = False
    fingerprint: Tensor
    packed_widths: Tensor
    _layout: RowLayout | None = None
    _groups: tuple[Tensor, Tensor] | None = None

    def pair_limits(self) -> Tensor:
        """Range that the pair of every node (or group) reaches, float32 ``[num_nodes]``."""
        raise NotImplementedError

    def place(self, num_rows: int) -> Place | None:
        """See :meth:`RowQuantizer.place`.

        Raises:
            GraphMismatchError: If the rows belong to another graph and the fallback is off.
        """
        if self.nearest:
            return None
        if current_scope().example:  # no graph is known: a plan looks at it in every run
            return None if self.fallback else self._by_group(own_nodes.own(self, num_rows))
        return Place(self.layout) if self.fits(num_rows) else None

    def place_of(self, x: Tensor) -> Place:
        group = self._group_of(x)
        if is_recording() and not self.nearest:
            group = own_nodes.own_or(self, group)
        return self._by_group(group)

    def _by_group(self, group: Tensor) -> Place:
        return Place(RowLayout.of(own_nodes.widths_of(self, group)), group)

    def _group_of(self, x: Tensor) -> Tensor:
        if self.nearest:
            return self._nearest(x, self.get_buffer("limits"))
        if self._groups is None:
            ranges = self.pair_limits()
            order = spread_order(ranges, FALLBACK_GROUPS)
            self._groups = order, ranges[order]
        order, limits = self._groups
        return order.index_select(0, self._nearest(x, limits))

    @property
    def bound(self) -> bool:
        return not self.nearest

    @property
    def layout(self) -> RowLayout:
        """Which node is in which bucket; made once and kept while the process runs."""
        if self._layout is None:
            self._layout = RowLayout.of(unpack_widths(self.packed_widths, self.num_nodes))
        return self._layout

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What was read from the buffers once is read anew where they were moved."""
        before = self.packed_widths.device
        made = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.packed_widths.device != before:
            self._forget()
        return cast(Self, made)

    def _forget(self) -> None:
        """Drops what follows from the buffers."""
        self._layout = self._groups = None

    @property
    def own_layout(self) -> RowLayout | None:
        return self.layout if self.bound else None

    def bound_to(self, layout: RowLayout | None) -> bool:
        return layout is not None and layout is self._layout

    def bound_rows(self, packed: Tensor, num_cols: int) -> Rows:
        found = self.encoding(Place(self.layout))
        assert found is not None
        return Rows(Bucketed(packed, self.layout, num_cols), found.affine)

    def serve_other_graphs(self, allow: bool) -> None:
        self.fallback = allow

    def fits(self, num_rows: int) -> bool:
        """Whether the current forward runs on the graph that the widths belong to.

        Raises:
            GraphMismatchError: If it does not and the fallback is off.
        """
        graph, known = current_scope().graph, int(self.fingerprint)
        other = graph is not None and known != -1 and graph.fingerprint != known
        if num_rows == self.num_nodes and not other:
            return True
        if self.fallback:
            return False
        what = (
            f"{num_rows} nodes" if num_rows != self.num_nodes else "as many nodes but other edges"
        )
        raise GraphMismatchError(
            f"site {self.site_name!r} has a bitwidth for each of the {self.num_nodes} nodes of the "
            f"graph it was trained on, and got a graph of {what}: run it on that graph, or let the "
            "nearest of its pairs serve other graphs with model.serve_other_graphs()"
        )


class NearestWidths(_SeveralWidths):
    """Every row takes the width of the group whose range is nearest to its own."""

    widths: Tensor
    limits: Tensor

    def place(self, num_rows: int) -> None:
        return None

    def place_of(self, x: Tensor) -> Place:
        group = self._nearest(x, self.limits)
        return Place(RowLayout.of(self.widths.index_select(0, group)), group)


class BucketWidths(_SeveralWidths):
    """A width per bucket of in-degree, which follows from the graph of the forward."""

    granularity = "degree bucket"
    buckets: Buckets

    def place(self, num_rows: int) -> Place:
        graph = self.buckets.graph(num_rows, self.site_name)
        return Place(self.buckets.layout(graph), self.buckets.of(graph))

    def made(self, rows: Rows) -> bool:
        if rows.layout is None or not super().made(rows):
            return False
        used = {width for width, count in enumerate(rows.layout.counts, start=1) if count}
        return used <= set(self.buckets.widths)


def check_rising(limits: Tensor) -> None:
    """Raises FileFormatError where ranges of groups fall."""
    if bool((limits[1:] < limits[:-1]).any()):
        raise FileFormatError("limits must not fall")
