"""What the loop sees of a task: steps to train on, and logits of a split.

Node-level tasks train on the full graph, graph-level tasks on shuffled batches of graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from nodebits.core.errors import ConfigError, GraphError, NodeIndexError, NonFiniteError, ShapeError
from nodebits.data import Dataset
from nodebits.graph import graph_scope

Split = Literal["train", "val", "test"]
Forward = Callable[["Inputs"], Tensor]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Inputs:
    """Arguments of one forward pass; ``batch`` is ``None`` for node-level tasks."""

    x: Any
    edge_index: Any
    batch: Tensor | None = None

    def scope(self) -> AbstractContextManager[object]:
        """Tells the layers which graph each node belongs to."""
        return nullcontext() if self.batch is None else graph_scope(batch=self.batch)

    def call(self, function: Callable[..., Any]) -> Any:
        """Calls ``function`` with these inputs, within their scope."""
        with self.scope():
            if self.batch is None:
                return function(self.x, self.edge_index)
            return function(self.x, self.edge_index, batch=self.batch)

    def apply(self, model: Callable[..., Any]) -> Tensor:
        """Returns the logits of ``model`` for these inputs."""
        logits = self.call(model)
        if not isinstance(logits, Tensor):
            raise ShapeError(f"the model returned {type(logits).__name__}, not a tensor of logits")
        return logits


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        inputs: What the model is called with.
        labels: A class for every output row.
        labelled: Mask of the rows that carry a training label; ``None`` for all.
        rows: Numbers of the output rows in the whole data set, to look up the teacher; ``None`` for
            all.
    """

    inputs: Inputs
    labels: Tensor
    labelled: Tensor | None
    rows: Tensor | None


class Problem(ABC):
    """A data set with one split, as the training loop and the evaluation see it."""

    labels: Tensor
    indices: dict[Split, Tensor]

    @abstractmethod
    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields the optimizer steps of one epoch."""

    @abstractmethod
    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Returns the logits of a split's rows, or of all rows in order."""

    @abstractmethod
    def example(self, split: Split = "test") -> Inputs:
        """Returns one representative forward: the full graph, or the split as one batch."""

    def split_labels(self, split: Split) -> Tensor:
        """Returns the labels of a split's rows."""
        return self.labels[self.indices[split]]

    def _check_splits(self) -> None:
        for split in SPLITS:
            if self.indices[split].numel() == 0 and split != "test":
                raise ConfigError(f"the {split} split is empty; training needs labelled rows in it")


class NodeProblem(Problem):
    """Classification of the nodes of one graph, trained full batch."""

    def __init__(self, data: Data) -> None:
        """Checks ``data`` and reads its masks.

        Raises:
            GraphError: ``edge_index`` is not an integer tensor of shape [2, edges].
            NodeIndexError: An edge names a node that does not exist.
            NonFiniteError: A feature is NaN or infinite.
            ShapeError: Labels or masks do not cover all nodes.
            ConfigError: The train or validation mask is empty.
        """
        check_graph(data, "data")
        nodes = int(data.x.size(0))
        self.inputs = Inputs(data.x, data.edge_index)
        self.labels = data.y.view(-1)
        if self.labels.numel() != nodes:
            raise ShapeError(f"y has {self.labels.numel()} labels for {nodes} nodes")
        self.indices = {}
        for split in SPLITS:
            mask = getattr(data, f"{split}_mask", None)
            if mask is None or mask.shape != (nodes,) or mask.dtype != torch.bool:
                raise ShapeError(f"{split}_mask must be a bool tensor of shape [{nodes}]")
            self.indices[split] = mask.nonzero().view(-1)
        self._train_mask = data.train_mask
        self._check_splits()

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields one step: the full graph."""
        del batch_size, generator
        yield Step(self.inputs, self.labels, self._train_mask, None)

    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Runs the full graph once."""
        logits = forward(self.inputs)
        return logits if split is None else logits[self.indices[split]]

    def example(self, split: Split = "test") -> Inputs:
        """Returns the full graph, whichever the split."""
        del split
        return self.inputs


class GraphProblem(Problem):
    """Classification of whole graphs, trained on shuffled batches."""

    eval_batch_size = 256

    def __init__(self, graphs: Sequence[Data], train: Tensor, val: Tensor, test: Tensor) -> None:
        """Checks ``graphs`` and remembers the split.

        Args:
            graphs: One ``Data`` per graph with ``x``, ``edge_index`` and one label ``y``.
            train: Numbers of the training graphs.
            val: Numbers of the validation graphs.
            test: Numbers of the test graphs.

        Raises:
            GraphError: A graph's ``edge_index`` is not an integer tensor of shape [2, edges].
            NodeIndexError: An edge names a node that does not exist.
            NonFiniteError: A feature is NaN or infinite.
            ConfigError: The train or validation split is empty.
        """
        for number, graph in enumerate(graphs):
            check_graph(graph, f"graph {number}")
        self._graphs = graphs
        self.labels = torch.tensor([int(graph.y) for graph in graphs])
        self.indices = {"train": train, "val": val, "test": test}
        self._batches: dict[Split, list[Inputs]] = {}
        self._check_splits()

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields shuffled batches of training graphs.

        A last batch of a single graph is merged into the one before: batch normalisation has no
        variance over one row.
        """
        train = self.indices["train"]
        order = train[torch.randperm(train.numel(), generator=generator)]
        chunks = list(order.split(batch_size))
        if len(chunks) > 1 and chunks[-1].numel() == 1:
            chunks[-2:] = [torch.cat(chunks[-2:])]
        for rows in chunks:
            yield Step(self._collate(rows), self.labels[rows], None, rows)

    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Runs the graphs of a split, or all graphs, in order."""
        if split is None:
            chunks = torch.arange(len(self._graphs)).split(self.eval_batch_size)
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
        batch = Batch.from_data_list([self._graphs[int(row)] for row in rows])
        return Inputs(batch.x, batch.edge_index, batch.batch)


def as_problem(data: Problem | Dataset | Data) -> Problem:
    """Returns the problem of a data set with its own split, or of one graph with masks."""
    if isinstance(data, Problem):
        return data
    if isinstance(data, Data):
        return NodeProblem(data)
    if data.data is not None:
        return NodeProblem(data.data)
    if data.graphs is None:
        raise ConfigError(f"data set {data.name!r} holds neither a graph nor a list of graphs")
    return GraphProblem(data.graphs, data.train_idx, data.val_idx, data.test_idx)


def check_graph(data: Data, place: str) -> None:
    """Checks features and edges of one graph; see ``NodeProblem`` for what it raises."""
    x, edge_index = data.x, data.edge_index
    if x is None or x.dim() != 2 or not x.is_floating_point():
        raise ShapeError(f"{place}: x must be a float tensor of shape [nodes, features]")
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        bad = (~finite).nonzero()
        row, column = bad[0].tolist()
        raise NonFiniteError(
            f"{place}: x holds {len(bad)} NaN or infinite values, the first at "
            f"[{row}, {column}]; clean the features before training"
        )
    if edge_index is None or edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise GraphError(f"{place}: edge_index must have shape [2, edges]")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise GraphError(f"{place}: edge_index must hold integers, got {edge_index.dtype}")
    outside = (edge_index < 0) | (edge_index >= x.size(0))
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise NodeIndexError(
            f"{place}: edge_index[{row}, {column}] is {int(edge_index[row, column])}, but nodes "
            f"are numbered 0 to {x.size(0) - 1}"
        )
