"""Graph classification with several labels a graph."""

from __future__ import annotations

from nodebits.tasks.base import GRAPH, register_task
from nodebits.tasks.node_multilabel import MultiLabel


@register_task("graph-multilabel")
class GraphMultiLabel(MultiLabel):
    """Any of several labels per graph: binary cross entropy, micro-averaged F1."""

    level = GRAPH
