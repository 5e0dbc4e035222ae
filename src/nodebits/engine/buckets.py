"""The nodes of a graph in buckets of their in-degree.

Bucket j holds the nodes of in-degree ``splits[j-1] <= d < splits[j]``, before self loops are added.
Which node is in which bucket follows from the graph of the forward, so nothing is stored per node
and any graph can be run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import ConfigError, GraphError
from nodebits.core.recorded import recorded
from nodebits.core.row_layout import RowLayout
from nodebits.graph.csr import Graph
from nodebits.graph.scope import current_scope


def check_splits(splits: Sequence[int], widths: Sequence[int], where: str) -> None:
    """Refuses split points that do not rise, and widths that do not belong to them.

    Raises:
        ConfigError: Names what is wrong.
        BitwidthError: On a width outside 1 to 8.
    """
    if list(splits) != sorted(set(splits)) or any(s < 1 for s in splits):
        raise ConfigError(
            f"{where}: degree splits {list(splits)} must rise from 1 or more, such as 4, 8, 16"
        )
    if len(widths) != len(splits) + 1:
        raise ConfigError(
            f"{where}: {len(widths)} widths for {len(splits) + 1} degree buckets (splits "
            f"{list(splits)}): give one width per bucket"
        )
    for width in widths:
        check_bits(width, where)


def bucket_of(degree: Tensor, splits: Sequence[int]) -> Tensor:
    """Bucket of every node, int64 ``[N]``, by its in-degree, float32 ``[N]``."""
    bounds = torch.tensor(list(splits), dtype=torch.float32, device=degree.device)
    return torch.bucketize(degree, bounds, right=True)


class Buckets:
    """The nodes of one graph by degree.

    Attributes:
        splits: Degrees at which buckets begin, but for the first.
        widths: Bits per bucket.
    """

    def __init__(self, splits: Sequence[int], widths: Sequence[int], where: str = "") -> None:
        check_splits(splits, widths, where or "degree buckets")
        self.splits, self.widths = tuple(splits), tuple(widths)

    def graph(self, num_rows: int, site: str = "") -> Graph:
        """The graph of the current forward, whose in-degrees say the buckets.

        Raises:
            ConfigError: Outside a graph's scope.
            GraphError: If the rows are not the nodes of a square graph.
        """
        graph: Graph | None = current_scope().graph
        name = f"site {site!r}" if site else "a site with degree buckets"
        if graph is None:
            raise ConfigError(
                f"{name} chooses widths by in-degree, but runs outside of any convolution: open "
                "nodebits.graph_scope(graph=nodebits.graph.as_graph(edge_index, num_nodes)) around "
                "it, or pass edge_index to pack_input"
            )
        if graph.num_src != graph.num_dst or graph.num_dst != num_rows:
            raise GraphError(
                f"{name} chooses widths by in-degree: it needs a row per node of a square graph, "
                f"got {num_rows} rows for {graph.num_src} sources and {graph.num_dst} targets"
            )
        return graph

    def _cached(self, graph: Graph, what: str, make: Callable[[], Any]) -> Any:
        return graph.cached((what, self.splits, self.widths), make)

    def of(self, graph: Graph) -> Tensor:
        """Bucket of every node, int64 ``[N]``."""

        def make() -> Tensor:
            run = lambda: bucket_of(graph.degree, self.splits)  # noqa: E731
            return recorded("degree_bucket", run, graph.indptr, list(self.splits))

        value: Tensor = graph.cached(("degree_buckets", self.splits), make)
        return value

    def rows(self, graph: Graph) -> tuple[list[Tensor], Tensor]:
        """Nodes of each bucket, and where each node stands in their concatenation."""

        def make() -> tuple[list[Tensor], Tensor]:
            bucket = self.of(graph)
            nodes = [(bucket == b).nonzero().view(-1) for b in range(len(self.widths))]
            return nodes, torch.cat(nodes).argsort()

        value: tuple[list[Tensor], Tensor] = graph.cached(("bucket_rows", self.splits), make)
        return value

    def layout(self, graph: Graph) -> RowLayout:
        """Where packed rows of these widths lie."""
        widths = torch.tensor(self.widths, dtype=torch.uint8, device=graph.device)
        value: RowLayout = self._cached(
            graph, "bucket_layout", lambda: RowLayout.of(widths.index_select(0, self.of(graph)))
        )
        return value

    def config(self) -> dict[str, Any]:
        """JSON of splits and widths."""
        return {"splits": list(self.splits), "widths": list(self.widths)}
