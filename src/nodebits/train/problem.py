"""What is trained on: nodes of one graph, or whole graphs, as steps and splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data import Dataset as PygDataset

from nodebits.core.distributed import all_rows_of_ranks
from nodebits.core.errors import ConfigError, ShapeError
from nodebits.data import Dataset
from nodebits.data.base import graph_targets
from nodebits.tasks import Metrics, Task, find_task, task_names
from nodebits.tasks.base import GRAPH, NODE, Level
from nodebits.train.graph_checks import (
    check_alike,
    checked_graph,
    graph_rows,
    mask_rows,
    warn_of_overlap,
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

    @abstractmethod
    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields the optimizer steps of one epoch."""

    @abstractmethod
    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Returns the outputs of a model for a split's rows, or for all rows in order."""

    @abstractmethod
    def example(self, split: Split = "test") -> Inputs:
        """Returns one representative forward: the full graph, or the split as one batch."""

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
        logits = self.logits(forward, split)
        self.check_outputs(logits, self.indices[split].numel())
        self.task.check(self.labels, self.indices[split], logits.size(1), split)
        labels = self.split_labels(split)
        if all_ranks:
            shape = labels.shape[1:]
            labels = all_rows_of_ranks(labels.view(len(labels), -1)).view(-1, *shape)
            logits = all_rows_of_ranks(logits)
        return self.task.measure(logits, labels)

    def check_outputs(self, logits: Tensor, rows: int) -> None:
        """Checks what a model returned for ``rows`` nodes or graphs.

        Raises:
            ShapeError: It is no float matrix of a row per node or graph.
        """
        if logits.dim() == 2 and logits.size(0) == rows and logits.is_floating_point():
            return
        level = self.task.level
        hint = f" ({level.hint})" if level.hint and logits.dim() == 2 else ""
        raise ShapeError(
            f"the model returned {logits.dtype} {list(logits.shape)} for {rows} {level.unit}s: "
            f"expected float logits [{rows}, {self.task.output_name}]{hint}"
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
            self.task.check(self.labels, rows, outputs, split)


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

    def __init__(self, data: Data, task: str = "node") -> None:
        """Checks ``data`` and reads its masks.

        Args:
            data: The graph, with masks ``train_mask``, ``val_mask`` and ``test_mask``.
            task: A node-level task; see ``nodebits tasks``.

        Raises:
            UnknownNameError: There is no such task.
            GraphError: ``edge_index`` is not an integer tensor of shape [2, edges].
            NodeIndexError: An edge names a node that does not exist.
            NonFiniteError: A feature is NaN or infinite.
            ShapeError: Features or masks do not cover all nodes.
            LabelError: ``y`` is not what the task takes.
            ConfigError: The train or validation mask is empty, ``data`` is no ``Data``, or the task
                is of another level.

        Warns:
            OverlappingSplitsWarning: A node is in two masks.
        """
        self.task = task_of(task, NODE)
        data = checked_graph(data, "data")
        nodes = int(data.x.size(0))
        edges = data.adj_t if data.edge_index is None else data.edge_index
        self.inputs = Inputs(data.x, edges, others=other_fields(data), data=data)
        self.indices = {split: mask_rows(data, split, nodes) for split in SPLITS}
        self.labels = self.task.targets(data.y, nodes, "data")
        self._train_mask = data.train_mask
        self.check_labels()
        warn_of_overlap(self.indices, self.task.level.unit)

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields one step: the full graph."""
        del batch_size, generator
        yield Step(self.inputs, self.labels, self._train_mask, None)


class GraphProblem(Problem):
    """A task on whole graphs, trained on shuffled batches."""

    eval_batch_size = 256

    def __init__(
        self,
        graphs: Sequence[Data],
        train: Tensor,
        val: Tensor,
        test: Tensor,
        task: str = "graph",
    ) -> None:
        """Checks ``graphs`` and remembers the split.

        Args:
            graphs: One ``Data`` per graph with ``x``, ``edge_index`` and ``y``.
            train: Numbers of the training graphs, or a bool mask.
            val: Those of the validation graphs.
            test: Those of the test graphs.
            task: A graph-level task; see ``nodebits tasks``.

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

        Warns:
            OverlappingSplitsWarning: A graph is in two splits.
        """
        self.task = task_of(task, GRAPH)
        if not hasattr(graphs, "__len__"):
            raise ConfigError(
                f"graphs is a {type(graphs).__name__}: pass a list of Data, or a PyG data set"
            )
        if len(graphs) == 0:
            raise ConfigError("there are no graphs to train on")
        self._graphs = [checked_graph(graph, f"graph {n}") for n, graph in enumerate(graphs)]
        check_alike(self._graphs)
        self.labels = graph_targets(self._graphs, self.task)
        self.indices = {
            split: graph_rows(rows, len(self._graphs), split)
            for split, rows in zip(SPLITS, (train, val, test), strict=True)
        }
        self._batches: dict[Split, list[Inputs]] = {}
        self.check_labels()
        warn_of_overlap(self.indices, self.task.level.unit)

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields shuffled batches of training graphs.

        A last batch of a single graph is merged into the one before: batch normalisation has no
        variance over one row.
        """
        train = self.indices["train"]
        order = train[torch.randperm(train.numel(), generator=generator, device="cpu")]
        chunks = list(order.split(batch_size))
        if len(chunks) > 1 and chunks[-1].numel() == 1:
            chunks[-2:] = [torch.cat(chunks[-2:])]
        for rows in chunks:
            yield Step(self._collate(rows), self.labels[rows], None, rows)

    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Runs the graphs of a split, or all graphs, in order."""
        if split is None:
            chunks = torch.arange(len(self._graphs), device="cpu").split(self.eval_batch_size)
            return torch.cat([forward(self._collate(rows)) for rows in chunks])
        if split not in self._batches:
            # Evaluated every epoch in the same order: collating once saves more than the step
            # costs.
            chunks = self.indices[split].split(self.eval_batch_size)
            self._batches[split] = [self._collate(rows) for rows in chunks]
        return torch.cat([forward(inputs) for inputs in self._batches[split]])

    def example(self, split: Split = "test") -> Inputs:
        """Returns the graphs of a split as one batch."""
        return self._collate(self.indices[split])

    def _collate(self, rows: Tensor) -> Inputs:
        graphs = [self._graphs[int(row)] for row in rows]
        # Labels come in several forms; they are read from the graphs themselves.
        batch = Batch.from_data_list(graphs, exclude_keys=sorted(LABEL_FIELDS))
        others = {**other_fields(batch), "batch_size": len(graphs), "num_graphs": len(graphs)}
        edges = batch.adj_t if batch.edge_index is None else batch.edge_index
        return Inputs(batch.x, edges, batch.batch, others, batch)


def task_of(name: str, level: Level) -> Task:
    """The task of a name.

    Raises:
        UnknownNameError: There is none.
        ConfigError: It is of another level.
    """
    task = find_task(name)
    if task.level != level:
        raise ConfigError(
            f"task {name!r} is of {task.level.unit}s, the data are for {level.unit}-level tasks: "
            f"{', '.join(task_names(level))}"
        )
    return task


def other_fields(data: Data) -> dict[str, Any]:
    """Fields that a forward may ask for by name."""
    taken = LABEL_FIELDS | {"x", "edge_index"}
    fields = {name: data[name] for name in data.keys() if name not in taken}
    return {"num_nodes": data.num_nodes, **fields}


def as_problem(data: Any) -> Problem:
    """Returns the problem of a data set with its own split, or of one graph with masks.

    Args:
        data: A :class:`Problem`, a loaded data set, a PyG ``Data`` with masks, or a PyG data set
            of one such graph.

    Raises:
        ConfigError: It is none of these; says what to pass instead.
    """
    if isinstance(data, Problem):
        return data
    if isinstance(data, Data):
        return NodeProblem(data)
    if isinstance(data, Dataset):
        if not data.many_graphs:
            return NodeProblem(data.data, data.task)
        split = data.train_idx, data.val_idx, data.test_idx
        return GraphProblem(data.graphs, *split, data.task)
    if isinstance(data, PygDataset) and len(data) == 1:
        return as_problem(data[0])
    found = type(data).__name__
    if isinstance(data, str):
        raise ConfigError(f"data is the name {data!r}: pass nodebits.load_dataset({data!r})")
    if isinstance(data, list | tuple | PygDataset | torch.utils.data.DataLoader):
        raise ConfigError(
            f"data is a {found}: which graphs are for training, validation and test? Pass "
            "nodebits.train.GraphProblem(graphs, train, val, test) with a list of Data and their "
            "numbers; batches are made from it. For batches of one large graph pass "
            "nodebits.train.SampledProblem(data, loader)"
        )
    raise ConfigError(
        f"data is a {found}: pass a PyG Data with masks, a GraphProblem, or what load_dataset "
        "returned"
        + (
            "; several node types: nodebits.train.HeteroProblem(data, node_type)"
            if found == "HeteroData"
            else ""
        )
    )
