"""What users ask of a session, checked whole, as the update that its log keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from nodebits.core.errors import FileFormatError, GraphError, ShapeError
from nodebits.session.graph import ChangingGraph
from nodebits.session.records import Update
from nodebits.session.updates import Checks


class Asked:
    """Makes updates of what users pass; nothing is changed by that.

    Each method is called as that of its name in ``GraphSession``, and raises what it does.

    Args:
        checks: Of the session.
        graph: Its graph.
        removed: Bool ``[N]``: nodes that were removed.
    """

    def __init__(self, checks: Checks, graph: ChangingGraph, removed: Tensor) -> None:
        self.checks, self._graph, self.removed = checks, graph, removed

    def add_edges(self, edge_index: Any, edge_weight: Any = None) -> Update:
        """Edges to come, with their weights where the session has some."""
        edges = self.checks.edges(edge_index, self.removed)
        weight = self.checks.weight(edge_weight, edges.size(1))
        self.checks.degrees(edges)
        return Update("add_edges", (edges,) if weight is None else (edges, weight))

    def remove_edges(self, edge_index: Any) -> Update:
        """Edges to go, which must all be there."""
        edges = self.checks.edges(edge_index, self.removed)
        missing = self._graph.missing(edges)
        if missing >= 0:
            source, target = edges[:, missing].tolist()
            raise GraphError(
                f"edge_index[:, {missing}] is ({source}, {target}): there is no such edge"
                + (", or not as many as are taken away" if missing else "")
            )
        return Update("remove_edges", (edges,))

    def add_nodes(self, features: Any) -> Update:
        """Rows of nodes to come."""
        rows = self.checks.features(features)
        self._graph.check_room(rows.size(0))
        return Update("add_nodes", (rows,))

    def remove_nodes(self, node_ids: Any) -> Update:
        """Nodes to go, each once."""
        nodes = self.checks.nodes(node_ids, self.removed)
        return Update("remove_nodes", (self._graph.distinct(nodes),))

    def set_features(self, node_ids: Any, features: Any) -> Update:
        """Nodes, each once, and their new rows."""
        nodes = self.checks.nodes(node_ids, self.removed)
        rows = self.checks.features(features, nodes.numel())
        if self._graph.distinct(nodes).numel() != nodes.numel():
            raise ShapeError("node_ids name a node twice: which features it gets is not told")
        return Update("set_features", (nodes, rows))

    def logged(self, update: Update, log: str) -> Update:
        """An update of a log, which another program or session may have written.

        Raises:
            FileFormatError: If it has not the arguments of one.
            NodebitsError: As the method of its name.
        """
        checks: dict[str, Callable[..., Update]] = {
            "add_edges": self.add_edges,
            "remove_edges": self.remove_edges,
            "add_nodes": self.add_nodes,
            "remove_nodes": self.remove_nodes,
            "set_features": self.set_features,
        }
        check, given = checks[update.kind], update.tensors
        try:
            inspect.signature(check).bind(*given)
        except TypeError:
            raise FileFormatError(
                f"the log in {log} has an update {update.kind!r} of {len(given)} arrays, which "
                "this version does not write"
            ) from None
        return check(*given)
