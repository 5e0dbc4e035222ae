"""Nodes of a graph that is trained on in parts, and of graphs with several types of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from nodebits.core.errors import ConfigError, GraphError, NodebitsError, UnknownNameError
from nodebits.graph import as_graph
from nodebits.nn.quantizers.per_node import PerNode
from nodebits.nn.wrappers import unwrap
from nodebits.tasks import NODE, Task
from nodebits.train.graph_checks import checked_rows, mask_rows
from nodebits.train.inputs import LABEL_FIELDS, Inputs
from nodebits.train.problem import (
    SPLITS,
    Forward,
    NodeProblem,
    Split,
    Step,
    WholeGraphProblem,
    other_fields,
    task_of,
)


class SampledProblem(NodeProblem):
    """A task on the nodes of one graph, trained on the batches of a loader.

    Of PyG's loaders ``NeighborLoader``, ``ClusterLoader`` and GraphSAINT's samplers fit: every
    batch is a ``Data``. Where a batch names its ``batch_size`` the loss is that of so many first
    nodes, else that of its ``train_mask``. Validation and test run the whole graph, or loaders of
    their own. In a distributed training every rank has loaders of its own nodes; an epoch ends with
    the shortest.
    """

    def __init__(
        self,
        data: Data,
        loader: Iterable[Data],
        task: str | Task = "node",
        *,
        evaluation: Mapping[Split, Iterable[Data]] | None = None,
    ) -> None:
        """Checks ``data`` and reads its masks.

        Args:
            data: The whole graph, as :class:`NodeProblem` takes it.
            loader: Gives the batches of an epoch each time that it is iterated.
            task: A node-level task.
            evaluation: Loaders by split, ``val`` and ``test``, for graphs that are too large for
                one forward. Of a batch the first ``batch_size`` nodes are measured, which ``n_id``
                names, as far as they are of the split.

        Raises:
            ConfigError: A loader cannot be iterated, or gives no ``Data``; or as
                :class:`NodeProblem`, as for all other errors.
        """
        super().__init__(data, task)
        self._loader = _checked_loader(loader)
        given = evaluation or {}
        unknown = sorted(set(given) - set(SPLITS))
        if unknown:
            raise UnknownNameError.for_name("split", unknown[0], SPLITS)
        self._evaluation = {split: _checked_loader(one) for split, one in given.items()}

    def check_model(self, model: nn.Module) -> None:
        for name, module in unwrap(model).named_modules():
            if isinstance(module, PerNode):
                raise ConfigError(
                    f"site {name} learns a width or range for every node of one graph, and a batch "
                    "of a loader holds other nodes each time: train this method on the whole graph "
                    "or on many graphs, or choose one whose parameters belong to sites"
                )

    def measured(self, forward: Forward, split: Split) -> tuple[Tensor, Tensor]:
        loader = self._evaluation.get(split)
        if loader is None:
            return super().measured(forward, split)
        # Where the labels are; batches may be on a device.
        at = self.labels.device
        wanted = torch.zeros(self.labels.size(0), dtype=torch.bool, device=at)
        wanted[self.indices[split]] = True
        logits, rows = [], []
        for batch in loader:
            inputs = _batch_inputs(batch)
            if "n_id" not in batch or "batch_size" not in batch:
                raise ConfigError(
                    f"a batch of the {split} loader has no n_id or no batch_size: nothing says "
                    "which nodes are measured (PyG's NeighborLoader gives both)"
                )
            nodes = batch.n_id[: int(batch.batch_size)].to(at)
            own = wanted[nodes]
            if bool(own.any()):
                wanted[nodes] = False  # each counts once
                made = forward(inputs)[: nodes.numel()]
                logits.append(made[own.to(made.device)])
                rows.append(nodes[own])
        if not rows:
            raise ConfigError(f"the {split} loader gave no node of the {split} split")
        return torch.cat(logits), torch.cat(rows)

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields a step for every batch of the loader that has labelled nodes."""
        del batch_size, generator
        for batch in self._loader:
            inputs = _batch_inputs(batch)
            labels = self.task.targets(batch.y, int(batch.x.size(0)), "a batch")
            step = _step(inputs, batch, labels)
            if step is not None:
                yield step


class HeteroProblem(WholeGraphProblem):
    """A task on the nodes of one type in a graph of several.

    The model is given ``x_dict`` and ``edge_index_dict`` (whatever it calls its first two
    arguments), and of other fields those that it names, such as ``edge_attr_dict``. It returns the
    logits of the type, or a dictionary that has them.
    """

    def __init__(
        self,
        data: HeteroData,
        node_type: str,
        loader: Iterable[HeteroData] | None = None,
        task: str | Task = "node",
    ) -> None:
        """Checks ``data`` and reads the masks of the type.

        Args:
            data: The whole graph. Nodes of ``node_type`` have ``y``, ``train_mask``, ``val_mask``
                and ``test_mask``.
            node_type: Whose nodes are labelled.
            loader: Gives the batches of an epoch, as PyG's ``HGTLoader`` and ``NeighborLoader`` do;
                ``None`` trains on the whole graph.
            task: A node-level task.

        Raises:
            ConfigError: ``data`` is no ``HeteroData``; or as :class:`NodeProblem`, as for all other
                errors.
            UnknownNameError: There is no such type of nodes, or no such task.
        """
        if not isinstance(data, HeteroData):
            raise ConfigError(f"data is a {type(data).__name__}, not a PyG HeteroData")
        if node_type not in data.node_types:
            raise UnknownNameError.for_name("node type", node_type, data.node_types)
        self.task = task_of(task, NODE)
        self.node_type = node_type
        self.inputs = self._inputs(_checked(data))
        store = data[node_type]
        nodes = int(store.num_nodes)
        masks = {split: mask_rows(store, split, nodes) for split in SPLITS}
        self.indices = {split: mask.nonzero().view(-1) for split, mask in masks.items()}
        self.labels = self.task.targets(store.get("y"), nodes, f"data[{node_type!r}]")
        self._train_mask = masks["train"]
        self._loader = None if loader is None else _checked_loader(loader)
        self.finish()

    def _inputs(self, data: HeteroData) -> Inputs:
        names = {key for store in data.stores for key in store if key not in LABEL_FIELDS}
        fields = {f"{name}_dict": data.collect(name) for name in sorted(names)}
        x, edges = fields["x_dict"], fields["edge_index_dict"]
        return Inputs(x, edges, others=fields, data=data, target=self.node_type)

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields a step for every batch of the loader, or one of the whole graph."""
        del batch_size, generator
        if self._loader is None:
            yield Step(self.inputs, self.labels, self._train_mask, None)
            return
        for batch in self._loader:
            if not isinstance(batch, HeteroData):
                raise ConfigError(f"the loader gave a {type(batch).__name__}, not a HeteroData")
            store = batch[self.node_type]
            labels = self.task.targets(store.y, int(store.num_nodes), "a batch")
            step = _step(self._inputs(batch), store, labels)
            if step is not None:
                yield step


def _checked_loader(loader: Any) -> Any:
    if not isinstance(loader, Iterable) or isinstance(loader, Iterator | str | Tensor):
        raise ConfigError(
            f"loader is a {type(loader).__name__}: it must give its batches anew in every epoch, "
            "as PyG's loaders do, or be a list of Data"
        )
    return loader


def _batch_inputs(batch: Any) -> Inputs:
    """What the model is given of a batch.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(batch, Data):
        raise ConfigError(f"the loader gave a {type(batch).__name__}, not a PyG Data")
    edges = batch.adj_t if batch.edge_index is None else batch.edge_index
    return Inputs(batch.x, edges, others=other_fields(batch), data=batch)


def _step(inputs: Inputs, store: Any, labels: Tensor) -> Step | None:
    """The step of a batch; None where no node of it carries a training label.

    Args:
        inputs: Of the whole batch.
        store: The ``Data``, or what a ``HeteroData`` has of the labelled type.
        labels: Of its nodes.
    """
    labelled = store["train_mask"] if "train_mask" in store else None
    if labelled is not None and labelled.dim() == 2:
        labelled = labelled[:, 0]  # the first of several splits, as for the whole graph
    if "batch_size" in store:
        seeds = torch.arange(labels.size(0), device=labels.device) < int(store["batch_size"])
        labelled = seeds if labelled is None else seeds & labelled
    if labelled is None:
        raise ConfigError(
            "a batch of the loader has neither batch_size nor train_mask: nothing says which of "
            "its nodes are trained on"
        )
    if not bool(labelled.any()):
        return None
    rows = store["n_id"] if "n_id" in store else labels.new_empty(0, dtype=torch.int64)
    return Step(inputs, labels, labelled, rows)


def _checked(data: HeteroData) -> HeteroData:
    """Raises GraphError, ShapeError, NodeIndexError or NonFiniteError; see ``checked_graph``."""
    for name in data.node_types:
        if "x" in data[name]:
            data[name].x = checked_rows(data[name].x, f"data[{name!r}]")
    if not any("x" in data[name] for name in data.node_types) or not data.edge_types:
        raise GraphError("data has no features x, or no edges")
    for kind in data.edge_types:
        edges = data[kind].get("edge_index", data[kind].get("adj_t"))
        if edges is None:
            raise GraphError(f"data[{kind}] has neither edge_index nor adj_t")
        try:
            as_graph(edges, data[kind[0]].num_nodes, data[kind[2]].num_nodes)
        except NodebitsError as error:
            raise type(error)(f"data[{kind}]: {error}") from error
    return data
