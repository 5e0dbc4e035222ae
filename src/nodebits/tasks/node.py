"""Node classification."""

from __future__ import annotations

from nodebits.tasks.base import NODE, register_task
from nodebits.tasks.classification import Classification


@register_task("node")
class NodeClassification(Classification):
    """One class per node: cross entropy, accuracy."""

    level = NODE
