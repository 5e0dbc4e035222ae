"""What is trained on: nodes of one graph, or whole graphs, as steps and splits."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from nodebits.core.distributed import all_rows_of_ranks
from nodebits.core.errors import ConfigError, LabelError, ShapeError
from nodebits.data.base import graph_targets
from nodebits.tasks import GRAPH, NODE, Level, Metrics, Task, find_task, task_names
from nodebits.train.errors import MissingClassWarning
from nodebits.train.graph_checks import (
    check_alike,
    checked_graph,
    graph_rows,
    mask_rows,
    refuse_overlap,
)
from nodebits.train.inputs import LABEL_FIELDS, Inputs

Split = Literal["train", "val", "test"]
Forward = Callable[[Inputs], Tensor]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        inputs: What the model is called with.
        labels: Targets of every output row, as the task makes them.
        labelled: Mask of the rows that carry a training label; ``None`` for all.
        rows: Numbers of the output rows in the whole data set, to look up the teacher; ``None`` for
            all, none where they are not known.
    """

    inputs: Inputs
    labels: Tensor
    labelled: Tensor | None
    rows: Tensor | None


class Problem(ABC):
    """A data set with one split, as the training loop and the evaluation see it."""

    task: Task
    labels: Tensor
    indices: dict[Split, Tensor]
    # Whether training rows of some classes are made by a loader, and not known before.
    loader_draws: bool = False

    @abstractmethod
    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields the optimizer steps of one epoch."""

    @abstractmethod
    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Returns the outputs of a model for a split's rows, or for all rows in order."""

    @abstractmethod
    def example(self, split: Split = "test") -> Inputs:
        """Returns one representative forward: the full graph, or the split as one batch."""

    def using(self, loss: Any = None, metric: Any = None, class_weight: Any = None) -> Problem:
        """The same data with another loss, metric, or weights of classes; as :meth:`Task.using`.

        Raises:
            UnknownNameError: There is no such loss or metric for the task.
            ConfigError: The loss takes no weights, or an argument is of another type.
            LabelError: The metric does not exist for the validation targets.
        """
        if loss is None and metric is None and class_weight is None:
            return self
        made = copy.copy(self)
        made.task = self.task.using(loss, metric, class_weight)
        made.finish()
        return made

    def finish(self) -> None:
        """Checks targets and splits, and fits the task to the training targets.

        Raises:
            ConfigError: The train or validation split is empty, or weights do not fit the classes.
            LabelError: A target there cannot be learned, or the metric does not exist for them.
            OverlappingSplitsError: A row is in two splits.

        Warns:
            MissingClassWarning: Some row has a class that no training row has.
        """
        self.check_labels()
        refuse_overlap(self.indices, self.task.level.unit)
        train = self.indices["train"]
        self.task = self.task.fitted(self.labels[train])
        held = torch.cat(list(self.indices.values()))
        place = torch.isin(held, train).nonzero().view(-1)
        missing = self.task.without_examples(self.labels[held], place)
        if missing and not self.loader_draws:
            unit, what = self.task.level.unit, self.task.output_name
            shown = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
            warnings.warn(
                f"{what} {shown} ({len(missing)} in all) are in the data, but no {unit} of the "
                f"train split is an example: they cannot be learned. Draw the split anew, or leave "
                "them out",
                MissingClassWarning,
                stacklevel=4,
            )

    def check_model(self, model: nn.Module) -> None:
        """Refuses a model that cannot learn from the steps of this problem.

        Raises:
            ConfigError: Says why, and what to do instead.
        """
        del model

    def split_labels(self, split: Split) -> Tensor:
        """Returns the targets of a split's rows."""
        return self.labels[self.indices[split]]

    def metrics(self, forward: Forward, split: Split, all_ranks: bool = False) -> Metrics:
        """Returns metric and loss of the task on a split.

        Args:
            forward: Of the model.
            split: The split.
            all_ranks: Measure on the rows of all ranks of a distributed training, which then
                agree; each must ask.

        Raises:
            ConfigError: The split is empty.
            ShapeError: As :meth:`check_outputs`.
            LabelError: A target of the split is none for this model.
        """
        if self.indices[split].numel() == 0:
            raise ConfigError(f"the {split} split is empty: there is nothing to evaluate on")
        logits, rows = self.measured(forward, split)
        self.check_outputs(logits, rows.numel())
        self.check_split(split, logits.size(1))
        labels = self.labels[rows].to(logits.device)
        if all_ranks:
            shape = labels.shape[1:]
            labels = all_rows_of_ranks(labels.view(len(labels), -1)).view(-1, *shape)
            logits = all_rows_of_ranks(logits)
        return self.task.measure(logits, labels)

    def measured(self, forward: Forward, split: Split) -> tuple[Tensor, Tensor]:
        """Outputs of a split's rows that this process measures, and their numbers."""
        return self.logits(forward, split), self.indices[split]

    def check_outputs(self, logits: Tensor, rows: int) -> None:
        """Checks what a model returned for ``rows`` nodes or graphs.

        Raises:
            ShapeError: It is no float matrix of a row per node or graph.
        """
        if logits.dim() == 2 and logits.size(0) == rows and logits.is_floating_point():
            return
        level = self.task.level
        hint = f" ({level.hint})" if level.hint and logits.dim() == 2 else ""
        wanted = self.task.outputs(self.labels)
        if logits.dim() == 1 and wanted == 1:
            hint = " (give it a last dimension of 1: outputs.unsqueeze(1))"
        raise ShapeError(
            f"the model returned {logits.dtype} {list(logits.shape)} for {rows} {level.unit}s: "
            f"expected float logits [{rows}, {self.task.output_name}], here [{rows}, {wanted}]"
            f"{hint}"
        )

    def check_labels(self, outputs: int | None = None) -> None:
        """Checks the targets that training and selection read.

        Args:
            outputs: Number of outputs of the model; ``None`` where it is not known yet.

        Raises:
            ConfigError: The train or validation split is empty.
            LabelError: A target there cannot be learned, or not by the model.
        """
        for split in SPLITS[:2]:
            rows = self.indices[split]
            if rows.numel() == 0:
                raise ConfigError(f"the {split} split is empty; training needs labelled rows in it")
            if split == "val":
                self.check_split(split, outputs)
            else:
                self.task.check(self.labels, rows, outputs, split)

    def check_split(self, split: Split, outputs: int | None = None) -> None:
        """Checks the targets of a split that is measured.

        Args:
            split: The split.
            outputs: As in :meth:`check_labels`.

        Raises:
            LabelError: A target is none of the task or the model, or the metric does not exist.
        """
        self.task.check(self.labels, self.indices[split], outputs, split)
        reason = self.task.metric.lacks(self.split_labels(split))
        if reason:
            raise LabelError(
                f"{self.task.metric.title} does not exist on the {split} split: {reason}. Draw the "
                "split anew, or choose another metric"
            )


class WholeGraphProblem(Problem):
    """A task on nodes of one graph, measured by a forward of all of it."""

    inputs: Inputs

    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Runs the full graph once."""
        logits = forward(self.inputs)
        return logits if split is None else logits[self.indices[split]]

    def example(self, split: Split = "test") -> Inputs:
        """Returns the full graph, whichever the split."""
        del split
        return self.inputs


class NodeProblem(WholeGraphProblem):
    """A task on the nodes of one graph, trained full batch."""

    def __init__(self, data: Data, task: str | Task = "node", split: int | None = None) -> None:
        """Checks ``data`` and reads its masks.

        Args:
            data: The graph, with masks ``train_mask``, ``val_mask`` and ``test_mask``.
            task: A node-level task; see ``nodebits tasks``.
            split: Column of masks ``[nodes, splits]``; None is the first.

        Raises:
            UnknownNameError: There is no such task.
            GraphError: ``edge_index`` is not an integer tensor of shape [2, edges].
            NodeIndexError: An edge names a node that does not exist.
            NonFiniteError: A feature is NaN or infinite.
            ShapeError: Features or masks do not cover all nodes.
            LabelError: ``y`` is not what the task takes.
            ConfigError: The train or validation mask is empty, ``data`` is no ``Data``, or the task
                is of another level.
            OverlappingSplitsError: A node is in two masks.
        """
        self.task = task_of(task, NODE)
        data = checked_graph(data, "data")
        nodes = int(data.x.size(0))
        edges = data.adj_t if data.edge_index is None else data.edge_index
        self.inputs = Inputs(data.x, edges, others=other_fields(data), data=data)
        masks = {name: mask_rows(data, name, nodes, split) for name in SPLITS}
        self.indices = {name: mask.nonzero().view(-1) for name, mask in masks.items()}
        self.labels = self.task.targets(data.y, nodes, "data")
        self._train_mask = masks["train"]
        self.finish()

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields one step: the full graph."""
        del batch_size, generator
        yield Step(self.inputs, self.labels, self._train_mask, None)


class GraphProblem(Problem):
    """A task on whole graphs, or on the nodes of many, trained on shuffled batches of graphs."""

    eval_batch_size = 256

    def __init__(
        self,
        graphs: Sequence[Data],
        train: Tensor,
        val: Tensor,
        test: Tensor,
        task: str | Task = "graph",
        batch_size: int | None = None,
    ) -> None:
        """Checks ``graphs`` and remembers the split.

        Args:
            graphs: One ``Data`` per graph with ``x``, ``edge_index`` and ``y``.
            train: Numbers of the training graphs, or a bool mask.
            val: Those of the validation graphs.
            test: Those of the test graphs.
            task: A task on graphs, or one on nodes, for whose every graph ``y`` has a row per node;
                see ``nodebits tasks``.
            batch_size: Graphs per training batch; None: as ``FitConfig`` says.

        Raises:
            UnknownNameError: There is no such task.
            GraphError: A graph's ``edge_index`` is not an integer tensor of shape [2, edges], or it
                has no nodes.
            NodeIndexError: An edge names a node that does not exist.
            NonFiniteError: A feature is NaN or infinite.
            ShapeError: A graph has another width or dtype in one of its fields than the first.
            LabelError: A graph's ``y`` is not what the task takes.
            ConfigError: The train or validation split is empty, ``graphs`` is no sequence, or the
                task is of another level.
            OverlappingSplitsError: A graph is in two splits.
        """
        kind = find_task(task)
        self.task = kind if kind.level == NODE else task_of(task, GRAPH)
        if not hasattr(graphs, "__len__"):
            raise ConfigError(
                f"graphs is a {type(graphs).__name__}: pass a list of Data, or a PyG data set"
            )
        if len(graphs) == 0:
            raise ConfigError("there are no graphs to train on")
        self._graphs = [checked_graph(graph, f"graph {n}") for n, graph in enumerate(graphs)]
        check_alike(self._graphs)
        self._batch_size = batch_size
        self._numbers: dict[Split, Tensor] = {
            split: graph_rows(rows, len(self._graphs), split)
            for split, rows in zip(SPLITS, (train, val, test), strict=True)
        }
        if self.task.level == NODE:
            sizes = [int(graph.x.size(0)) for graph in self._graphs]
            self.labels = torch.cat(
                [
                    self.task.targets(graph.y, size, f"graph {n}")
                    for n, (graph, size) in enumerate(zip(self._graphs, sizes, strict=True))
                ]
            )
            self._nodes = list(torch.arange(sum(sizes), device="cpu").split(sizes))
        else:
            self.labels = graph_targets(self._graphs, self.task)
        refuse_overlap(self._numbers, "graph")
        self.indices = {split: self._rows(numbers) for split, numbers in self._numbers.items()}
        self._batches: dict[Split, list[Inputs]] = {}
        self.finish()

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields shuffled batches of training graphs.

        A last batch of a single graph is merged into the one before: batch normalisation has no
        variance over one row.
        """
        train = self._numbers["train"]
        order = train[torch.randperm(train.numel(), generator=generator, device="cpu")]
        chunks = list(order.split(self._batch_size or batch_size))
        if len(chunks) > 1 and chunks[-1].numel() == 1 and self.task.level.many_graphs:
            chunks[-2:] = [torch.cat(chunks[-2:])]
        for numbers in chunks:
            rows = self._rows(numbers)
            yield Step(self._collate(numbers), self.labels[rows], None, rows)

    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Runs the graphs of a split, or all graphs, in order."""
        if split is None:
            chunks = torch.arange(len(self._graphs), device="cpu").split(self.eval_batch_size)
            return torch.cat([forward(self._collate(rows)) for rows in chunks])
        if split not in self._batches:
            # Evaluated every epoch in the same order: collating once saves more than the step
            # costs.
            chunks = self._numbers[split].split(self.eval_batch_size)
            self._batches[split] = [self._collate(rows) for rows in chunks]
        return torch.cat([forward(inputs) for inputs in self._batches[split]])

    def example(self, split: Split = "test") -> Inputs:
        """Returns the graphs of a split as one batch."""
        return self._collate(self._numbers[split])

    def _rows(self, numbers: Tensor) -> Tensor:
        """Rows of graphs: themselves, or their nodes."""
        if self.task.level.many_graphs or not len(numbers):
            return numbers
        return torch.cat([self._nodes[int(number)] for number in numbers])

    def _collate(self, numbers: Tensor) -> Inputs:
        graphs = [self._graphs[int(number)] for number in numbers]
        # Labels come in several forms; they are read from the graphs themselves.
        batch = Batch.from_data_list(graphs, exclude_keys=sorted(LABEL_FIELDS))
        edges = batch.adj_t if batch.edge_index is None else batch.edge_index
        if self.task.level == NODE:  # its models know nothing of graphs
            others = {k: v for k, v in other_fields(batch).items() if k not in ("batch", "ptr")}
            return Inputs(batch.x, edges, others=others, data=batch)
        others = {**other_fields(batch), "batch_size": len(graphs), "num_graphs": len(graphs)}
        return Inputs(batch.x, edges, batch.batch, others, batch)


def task_of(name: str | Task, level: Level) -> Task:
    """The task of a name.

    Raises:
        UnknownNameError: There is none.
        ConfigError: It is of another level.
    """
    task = find_task(name)
    if task.level != level:
        raise ConfigError(
            f"task {task.name!r} is of {task.level.unit}s, the data are for {level.unit}-level "
            f"tasks: {', '.join(task_names(level))}"
        )
    return task


def other_fields(data: Data) -> dict[str, Any]:
    """Fields that a forward may ask for by name."""
    taken = LABEL_FIELDS | {"x", "edge_index"}
    fields = {name: data[name] for name in data.keys() if name not in taken}
    return {"num_nodes": data.num_nodes, **fields}
