"""What is predicted, one file each: targets, loss, metric, head and predictions."""

from nodebits.tasks.base import Task, find_task, register_task, suggested_task, task_names
from nodebits.tasks.metrics import Metric, Metrics

__all__ = [
    "Metric",
    "Metrics",
    "Task",
    "find_task",
    "register_task",
    "suggested_task",
    "task_names",
]
