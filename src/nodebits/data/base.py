"""The result of loading: one frozen record for node-level and graph-level data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData

from nodebits.core.errors import ConfigError, LabelError, NonFiniteError
from nodebits.tasks import Task, find_task, task_names


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set with one fixed split.

    Attributes:
        name: Canonical name, as in ``dataset_names()``.
        task: Name of the task (``nodebits tasks``). A node-level one has a graph in ``data``, a
            graph-level one many in ``graphs``.
        num_features: Width of ``x``.
        num_classes: Outputs of a model: of classification the classes ``0 .. num_classes - 1``.
        train_idx: int64 node or graph numbers to train on.
        val_idx: int64 node or graph numbers to select a model on.
        test_idx: int64 node or graph numbers to report on.
        notes: How the split and the features were made.
        citation: Where the data comes from.
        content: The graph of a node-level task, the graphs of a graph-level one, on the CPU; many
            graphs also of a node-level task that is learned on some and asked of others.
        features_normalized: Whether the rows of ``x`` were divided by their sum.
        parts: Of a task on pairs of nodes: graph and pairs for training, validation and test.
        ids: Of own data: what rows are called; of pairs, the nodes.
        about: Of own data: how files were read, for a model's file: columns, categories and the
            texts that stand for classes.
    """

    name: str
    task: str
    num_features: int
    num_classes: int
    train_idx: Tensor
    val_idx: Tensor
    test_idx: Tensor
    notes: str
    citation: str
    content: Data | Sequence[Data]
    features_normalized: bool = False
    parts: tuple[Data, Data, Data] | None = None
    ids: Sequence[str] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def many_graphs(self) -> bool:
        """Whether it is many graphs, whatever its rows are."""
        return not isinstance(self.content, BaseData)

    @property
    def data(self) -> Data:
        """The graph of a node-level task.

        ``x`` is float32 ``[N, num_features]``, ``edge_index`` int64 ``[2, E]``, ``y`` as the task
        has it (classes are int64 ``[N]``). ``train_mask``, ``val_mask`` and ``test_mask`` are bool
        ``[N]``.

        Raises:
            ConfigError: There are many graphs.
        """
        if self.many_graphs:
            raise ConfigError(
                f"data set {self.name!r} has {len(self)} graphs, its task is {self.task!r}: use "
                "its graphs, not its data"
            )
        return cast(Data, self.content)

    @property
    def graphs(self) -> Sequence[Data]:
        """The graphs of a graph-level task; ``y`` of a classification is int64 ``[1]``.

        Raises:
            ConfigError: It is one graph.
        """
        if not self.many_graphs:
            raise ConfigError(
                f"data set {self.name!r} is one graph, its task is {self.task!r}: use its data, "
                "not its graphs"
            )
        return cast(Sequence[Data], self.content)

    def __len__(self) -> int:
        """The number of graphs."""
        return len(self.graphs) if self.many_graphs else 1

    def __repr__(self) -> str:
        """Name, task and sizes; the tensors are left out."""
        sizes = ", ".join(str(len(i)) for i in (self.train_idx, self.val_idx, self.test_idx))
        return (
            f"Dataset({self.name!r}, {self.task}, {len(self)} graph(s), {self.num_features} "
            f"features, {self.num_classes} {find_task(self.task).output_name}, "
            f"train/val/test {sizes})"
        )


def node_dataset(
    name: str,
    data: Data,
    masks: tuple[Tensor, Tensor, Tensor],
    notes: str,
    citation: str,
    task: str = "node",
) -> Dataset:
    """Builds the record of a node-level set; ``masks`` are bool ``[N]`` (train, val, test).

    Raises:
        NonFiniteError: ``data.x`` has a NaN or an infinity.
        LabelError: ``data.y`` is not what the task takes.
    """
    reject_non_finite(name, [data])
    kind = find_task(task)
    data.y = kind.targets(data.y, int(data.x.size(0)), name)
    data.train_mask, data.val_mask, data.test_mask = masks
    train, val, test = (mask.nonzero().flatten() for mask in masks)
    return Dataset(
        name=name,
        task=task,
        num_features=int(data.x.size(1)),
        num_classes=kind.outputs(data.y),
        train_idx=train,
        val_idx=val,
        test_idx=test,
        notes=notes,
        citation=citation,
        content=data,
    )


def graph_dataset(
    name: str,
    graphs: Sequence[Data],
    split: tuple[Tensor, Tensor, Tensor],
    notes: str,
    citation: str,
    task: str = "graph",
) -> Dataset:
    """Builds the record of a graph-level set; ``split`` holds int64 graph numbers.

    Raises:
        NonFiniteError: some ``x`` has a NaN or an infinity.
        LabelError: Some ``y`` is not what the task takes.
    """
    reject_non_finite(name, graphs)
    kind = find_task(task)
    targets = (
        graph_targets(graphs, kind)
        if kind.level.many_graphs
        else torch.cat([kind.targets(g.y, int(g.x.size(0)), name) for g in graphs])
    )
    return Dataset(
        name=name,
        task=task,
        num_features=int(graphs[0].x.size(1)),
        num_classes=kind.outputs(targets),
        train_idx=split[0],
        val_idx=split[1],
        test_idx=split[2],
        notes=notes,
        citation=citation,
        content=graphs,
    )


def pair_dataset(
    name: str,
    data: Data,
    parts: tuple[Data, Data, Data] | None,
    notes: str,
    citation: str,
    task: str,
) -> Dataset:
    """Builds the record of a set of pairs of nodes.

    Args:
        name: Of the set.
        data: The whole graph.
        parts: As :mod:`nodebits.data.pairs` makes them; None where the pairs are only asked about.
        notes: On the split.
        citation: Source.
        task: Of edges or links.

    Raises:
        NonFiniteError: ``data.x`` has a NaN or an infinity.
        LabelError: Targets are not what the task takes.
    """
    reject_non_finite(name, [data])
    kind = find_task(task)
    rows: list[Tensor] = []
    outputs, first = 0, 0
    for part in parts or ():
        count = int(part.edge_label_index.size(1))
        rows.append(torch.arange(first, first + count, device="cpu"))
        first += count
        if "edge_label" in part:
            targets = kind.targets(part.edge_label, count, name)
            outputs = max(outputs, kind.outputs(targets))
    empty = torch.zeros(0, dtype=torch.int64, device="cpu")
    train, val, test = rows or (empty, empty, empty)
    return Dataset(
        name=name,
        task=task,
        num_features=int(data.x.size(1)),
        num_classes=outputs or 1,
        train_idx=train,
        val_idx=val,
        test_idx=test,
        notes=notes,
        citation=citation,
        content=data,
        parts=parts,
    )


def graph_targets(graphs: Iterable[Data], task: Task) -> Tensor:
    """The targets of graphs, a row each.

    Raises:
        LabelError: Those of a graph are not what the task takes, or not as many as graph 0 has.
    """
    parts = [task.targets(graph.y, 1, f"graph {n}") for n, graph in enumerate(graphs)]
    for number, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise LabelError(
                f"graph {number}: y has {part.numel()} targets, graph 0 has {parts[0].numel()}"
            )
    return torch.cat(parts)


def with_task(dataset: Dataset, name: str) -> Dataset:
    """The same data for another task of their level, such as another metric for the same labels.

    Raises:
        UnknownNameError: There is no such task.
        ConfigError: It is of another level.
        LabelError: The targets are not what it takes.
    """
    if name == dataset.task:
        return dataset
    task, level = find_task(name), find_task(dataset.task).level
    if task.level != level:
        raise ConfigError(
            f"task {name!r} is of {task.level.unit}s, data set {dataset.name} is for "
            f"{level.unit}-level tasks: {', '.join(task_names(level))}"
        )
    if dataset.parts is not None:
        made = pair_dataset(
            dataset.name, dataset.data, dataset.parts, dataset.notes, dataset.citation, name
        )
        return replace(made, ids=dataset.ids, about=dataset.about)
    if dataset.many_graphs:
        targets = graph_targets(dataset.graphs, task)
        return replace(dataset, task=name, num_classes=task.outputs(targets))
    data = dataset.data.clone()
    data.y = task.targets(data.y, int(data.x.size(0)), dataset.name)
    return replace(dataset, task=name, num_classes=task.outputs(data.y), content=data)


def reject_non_finite(name: str, graphs: Iterable[Data]) -> None:
    """Raises ``NonFiniteError`` where the features of a graph are not all finite."""
    for number, graph in enumerate(graphs):
        # A mask of all values would take as much memory again; a NaN passes through both ends.
        if graph.x.numel() and not all(torch.isfinite(end) for end in graph.x.aminmax()):
            row = int((~torch.isfinite(graph.x)).any(dim=1).nonzero()[0])
            raise NonFiniteError(
                f"data set {name!r} has a NaN or infinite feature (graph {number}, node {row}): "
                "the raw files are damaged; fetch them again"
            )
