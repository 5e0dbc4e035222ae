"""Graph classification."""

from __future__ import annotations

from nodebits.tasks.base import GRAPH, register_task
from nodebits.tasks.classification import Classification


@register_task("graph")
class GraphClassification(Classification):
    """One class per graph: cross entropy, accuracy."""

    level = GRAPH
