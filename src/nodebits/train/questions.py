"""Data that are only asked about: no targets, no splits, a row of outputs for every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from nodebits.core.errors import ConfigError
from nodebits.data import Dataset
from nodebits.tasks import Task, find_task
from nodebits.train.graph_checks import check_alike, checked_graph
from nodebits.train.inputs import LABEL_FIELDS, Inputs
from nodebits.train.problem import Forward, Problem, Split, Step, other_fields

_BATCH = 256


class Questions(Problem):
    """What a model is asked about; nothing of it can be trained on or measured."""

    def __init__(self, dataset: Dataset, task: str | Task) -> None:
        """Checks the graphs.

        Args:
            dataset: Of the user's own data; targets in it are not looked at.
            task: That the model was trained for.

        Raises:
            ConfigError: The data are of another level.
            GraphError, ShapeError, NodeIndexError, NonFiniteError: As ``NodeProblem``.
        """
        self.task = find_task(task)
        self.labels = torch.zeros(0, device="cpu")
        empty = torch.zeros(0, dtype=torch.int64, device="cpu")
        self.indices = {"train": empty, "val": empty, "test": empty}
        content: Any = dataset.content
        if isinstance(content, Data):
            content = [checked_graph(content, "data")]
        elif isinstance(content, Sequence):
            content = [checked_graph(graph, f"graph {n}") for n, graph in enumerate(content)]
            check_alike(content)
            if self.task.level.pairs:
                raise ConfigError(f"{dataset.name} is many graphs: pairs are of one")
        self._content = content
        self.pairs: Tensor | None = None
        if self.task.level.pairs:
            (graph,) = content
            asked = "edge_label_index" in graph
            self.pairs = graph.edge_label_index if asked else graph.edge_index

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Refuses to train.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("these data have no targets: they are only asked about")

    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Outputs for all rows in order."""
        return torch.cat([forward(inputs) for inputs in self._inputs()])

    def example(self, split: Split = "test") -> Inputs:
        """The first graphs."""
        return next(self._inputs())

    def _inputs(self) -> Iterator[Inputs]:
        content = self._content
        if isinstance(content, HeteroData):
            names = {key for store in content.stores for key in store if key not in LABEL_FIELDS}
            fields = {f"{name}_dict": content.collect(name) for name in sorted(names)}
            x, edges = fields["x_dict"], fields["edge_index_dict"]
            yield Inputs(x, edges, others=fields, data=content, target=self._target(content))
            return
        for first in range(0, len(content), _BATCH):
            batch: Any = content[0]
            others = other_fields(batch)
            several = self.task.level.many_graphs or len(content) > 1
            if several:
                chosen = content[first : first + _BATCH]
                batch = Batch.from_data_list(chosen, exclude_keys=sorted(LABEL_FIELDS))
                others = other_fields(batch)
                others |= {"batch_size": len(chosen), "num_graphs": len(chosen)}
            if self.pairs is not None:
                others["edge_label_index"] = self.pairs
            edges = batch.adj_t if batch.edge_index is None else batch.edge_index
            owner = batch.batch if self.task.level.many_graphs else None
            if owner is None:
                others = {k: v for k, v in others.items() if k not in ("batch", "ptr")}
            yield Inputs(batch.x, edges, owner, others, batch if self.pairs is None else None)

    @staticmethod
    def _target(content: HeteroData) -> str:
        types = [kind for kind in content.node_types if "y" in content[kind]]
        if len(types) != 1:
            raise ConfigError(
                f"which nodes are predicted? Of the types {', '.join(content.node_types)} "
                f"{len(types)} have y"
            )
        return str(types[0])
