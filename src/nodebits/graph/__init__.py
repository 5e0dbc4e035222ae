"""Topology: compressed rows, degrees, and the scope of a forward pass."""

from nodebits.graph.adjacency import as_graph
from nodebits.graph.csr import Graph
from nodebits.graph.degree import protection_probability
from nodebits.graph.joined import Part, joined_graph
from nodebits.graph.memo import Memo, constant_inputs
from nodebits.graph.reorder import ReorderedGraph, locality_order, reordered, shared_sources
from nodebits.graph.sample import Sample, sample_neighbors
from nodebits.graph.scope import current_scope, graph_scope

__all__ = [
    "Graph",
    "Memo",
    "Part",
    "ReorderedGraph",
    "Sample",
    "as_graph",
    "constant_inputs",
    "current_scope",
    "graph_scope",
    "joined_graph",
    "locality_order",
    "protection_probability",
    "reordered",
    "sample_neighbors",
    "shared_sources",
]
