"""The right one among candidates: every output is one, the target says which."""

from __future__ import annotations

from torch import Tensor

from nodebits.tasks.base import register_task
from nodebits.tasks.classification import Classification
from nodebits.tasks.metrics import Metric
from nodebits.tasks.rank_metrics import rank_metrics, ranks_of_classes, with_any_k


@register_task("node-ranking", "graph-ranking", "edge-ranking")
class Ranking(Classification):
    """The right one of many candidates each: cross entropy, MRR and Hits@k."""

    metrics = rank_metrics(ranks_of_classes)
    takes = "the number of the right candidate"
    output_name = "candidates"

    def find_metric(self, name: str) -> Metric:
        """Also ``hits@K`` of any K."""
        return with_any_k(self.metrics, name, ranks_of_classes, False) or super().find_metric(name)

    def suits(self, y: Tensor) -> bool:
        """Never by itself: whole numbers alone mean classes."""
        del y
        return False
