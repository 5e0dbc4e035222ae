"""Node regression."""

from __future__ import annotations

from nodebits.tasks.base import NODE, register_task
from nodebits.tasks.graph_regression import Regression


@register_task("node-regression")
class NodeRegression(Regression):
    """Numbers per node: mean absolute error, less is better."""

    level = NODE
