"""The forms in which data come, made problems: a graph, three parts, loaders, loaded sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch_geometric.data import Data, HeteroData
from torch_geometric.data import Dataset as PygDataset

from nodebits.core.errors import ConfigError
from nodebits.data import Dataset
from nodebits.tasks import GRAPH, NODE, Task, find_task, suggested_task
from nodebits.train.pairs import PairProblem
from nodebits.train.problem import GraphProblem, NodeProblem, Problem
from nodebits.train.sampled import HeteroProblem, SampledProblem


def as_problem(
    data: Any,
    task: str | Task | None = None,
    *,
    loss: Any = None,
    metric: Any = None,
    class_weight: Any = None,
) -> Problem:
    """Returns the problem of data, whatever their form.

    Args:
        data: A :class:`Problem`; a loaded data set; a PyG ``Data`` with masks, or a ``HeteroData``
            of which one type has them; a PyG data set of one such graph; a ``NeighborLoader`` of
            such a graph; or a tuple of three parts (train, val, test). A part is a list of graphs,
            a PyG data set, a ``DataLoader``, a ``Data`` as ``RandomLinkSplit`` gives it, or a
            ``LinkNeighborLoader``.
        task: Of ``nodebits tasks``; None: what the data are for. A ``Data`` alone is for ``node``,
            one with ``edge_label_index`` for ``link``, and graphs for what ``y`` looks like.
        loss: As in :meth:`nodebits.tasks.Task.using`.
        metric: Likewise.
        class_weight: Likewise.

    Raises:
        ConfigError: It is none of these; says what to pass instead.
        LabelError: Targets are not what the task takes.
        UnknownNameError: There is no such task, loss or metric.
    """
    if not isinstance(data, Problem):
        return _of(data, task, _Goal(loss, metric, class_weight))
    if task is not None and find_task(task).name != data.task.name:
        raise ConfigError(
            f"task is {find_task(task).name!r}, but the problem is for {data.task.name!r}: make it "
            "with the task"
        )
    return data.using(loss, metric, class_weight)


@dataclass(frozen=True)
class _Goal:
    """What is chosen with a task, before its targets are looked at."""

    loss: Any
    metric: Any
    class_weight: Any

    def of(self, task: str | Task) -> Task:
        """The task with it."""
        return find_task(task).using(self.loss, self.metric, self.class_weight)


def _of(data: Any, task: str | Task | None, goal: _Goal) -> Problem:
    if isinstance(data, Dataset):
        return _loaded(data, goal.of(data.task if task is None else task))
    if isinstance(data, Data):
        level = NODE if task is None else find_task(task).level
        if level.pairs:
            return PairProblem.of_graph(data, goal.of(task or "link"))
        return NodeProblem(data, goal.of(task or "node"))
    if isinstance(data, HeteroData):
        return _hetero(data, None, goal.of(task or "node"))
    if isinstance(data, PygDataset) and len(data) == 1:
        return _of(data[0], task, goal)
    if isinstance(data, tuple) and len(data) in (2, 3) and not hasattr(data, "_fields"):
        return _parts(data, task, goal)
    whole = getattr(data, "data", None)
    if isinstance(whole, Data) and not hasattr(data, "edge_label_index"):
        return SampledProblem(whole, data, goal.of(task or "node"))
    if isinstance(whole, HeteroData):
        return _hetero(whole, data, goal.of(task or "node"))
    raise ConfigError(_advice(data))


def _loaded(data: Dataset, kind: Task) -> Problem:
    if data.parts is not None:
        return PairProblem(*data.parts, kind)
    if not data.many_graphs:
        return NodeProblem(data.data, kind)
    return GraphProblem(data.graphs, data.train_idx, data.val_idx, data.test_idx, kind)


def _hetero(data: HeteroData, loader: Any, task: Task) -> Problem:
    types = [kind for kind in data.node_types if "train_mask" in data[kind]]
    if len(types) != 1:
        found = "none has" if not types else f"{', '.join(types)} have"
        raise ConfigError(
            f"which nodes are predicted? Of the types {', '.join(data.node_types)} {found} a "
            "train_mask: pass nodebits.train.HeteroProblem(data, node_type)"
        )
    return HeteroProblem(data, types[0], loader, task)


def _parts(parts: Sequence[Any], task: str | Task | None, goal: _Goal) -> Problem:
    """Training, validation and, perhaps, test."""
    if all(_asks_for_links(part) for part in parts):
        train, val, *test = (_asked(part) for part in parts)
        return PairProblem(
            train, val, test[0] if test else None, goal.of(task or "link"), loader=parts[0]
        )
    if all(isinstance(part, Data) and "edge_label_index" in part for part in parts):
        train, val, *test = parts
        return PairProblem(train, val, test[0] if test else None, goal.of(task or "link"))
    graphs: list[Data] = []
    numbers = []
    batch_size = None
    for place, part in enumerate(parts):
        own = _graphs(part, ("train", "val", "test")[place])
        numbers.append(torch.arange(len(graphs), len(graphs) + len(own), device="cpu"))
        graphs += own
        if place == 0 and isinstance(part, DataLoader):
            batch_size = part.batch_size
    if len(numbers) == 2:
        numbers.append(torch.zeros(0, dtype=torch.int64, device="cpu"))
    train, val, test_rows = numbers
    chosen = goal.of(task or _meant(graphs))
    return GraphProblem(graphs, train, val, test_rows, chosen, batch_size)


def _asks_for_links(part: Any) -> bool:
    """Whether it is a ``LinkNeighborLoader``, or another loader that holds graph and pairs."""
    whole = getattr(part, "data", None)
    # That it keeps the pairs, PyG does for Lightning; a Data with pairs is no loader.
    return isinstance(whole, Data) and hasattr(part, "edge_label_index")


def _asked(loader: Any) -> Data:
    """The whole graph of a loader of links, with the pairs that it asks for."""
    part = loader.data.clone()
    asked = loader.input_data
    part.edge_label_index = torch.stack([asked.row, asked.col])
    label = asked.label
    if label is not None:
        part.edge_label = label
    elif "edge_label" in part:
        del part.edge_label
    return part


def _graphs(part: Any, name: str) -> list[Data]:
    if isinstance(part, Data):
        return [part]
    if isinstance(part, DataLoader):
        part = part.dataset
    if isinstance(part, PygDataset | list | tuple):
        return list(part)
    raise ConfigError(
        f"the {name} part is a {type(part).__name__}: pass a list of Data, a PyG data set, or a "
        "DataLoader of them"
    )


def _meant(graphs: list[Data]) -> str:
    """The task that targets of graphs look like."""
    first = next((g for g in graphs if isinstance(g, Data)), None)
    y = None if first is None else first.y
    if first is None or not isinstance(y, torch.Tensor):
        return "graph"
    per_node = y.dim() > 0 and y.size(0) == first.num_nodes and y.size(0) > 1
    if per_node:
        return suggested_task(y, NODE, "y of graph 0")
    rows = [torch.as_tensor(graph.y, device="cpu").view(1, -1) for graph in graphs]
    if len({row.size(1) for row in rows}) > 1:
        return "graph"
    whole = torch.cat(rows)
    return suggested_task(whole[:, 0] if whole.size(1) == 1 else whole, GRAPH, "y of the graphs")


def _advice(data: Any) -> str:
    found = type(data).__name__
    if isinstance(data, str):
        return f"data is the name {data!r}: pass nodebits.load_dataset({data!r})"
    if isinstance(data, list | tuple | PygDataset | DataLoader):
        return (
            f"data is a {found}: which graphs are for training, validation and test? Pass a tuple "
            "of the three parts, such as (train_loader, val_loader, test_loader), or "
            "nodebits.train.GraphProblem(graphs, train, val, test) with a list of Data and their "
            "numbers; batches are made from it. For batches of one large graph pass "
            "nodebits.train.SampledProblem(data, loader)"
        )
    return (
        f"data is a {found}: pass a PyG Data with masks, a GraphProblem, or what load_dataset "
        "returned"
    )
