"""What is predicted: kinds of targets, one file each, at the levels of nodes, graphs and pairs."""

from nodebits.tasks.base import Task, find_task, register_task, suggested_task, task_names
from nodebits.tasks.levels import EDGE, GRAPH, LINK, NODE, Level
from nodebits.tasks.metrics import Metric, Metrics

__all__ = [
    "EDGE",
    "GRAPH",
    "LINK",
    "NODE",
    "Level",
    "Metric",
    "Metrics",
    "Task",
    "find_task",
    "register_task",
    "suggested_task",
    "task_names",
]
