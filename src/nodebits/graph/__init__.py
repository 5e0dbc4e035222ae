"""Topology: compressed rows, degrees, and the scope of a forward pass."""

from nodebits.graph.adjacency import as_graph
from nodebits.graph.csr import Graph
from nodebits.graph.degree import protection_probability
from nodebits.graph.scope import Scope, current_scope, graph_scope

__all__ = [
    "Graph",
    "Scope",
    "as_graph",
    "current_scope",
    "graph_scope",
    "protection_probability",
]
