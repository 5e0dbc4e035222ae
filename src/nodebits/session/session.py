"""A packed model on a graph that changes: exact predictions after every update."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    GraphError,
    NodebitsError,
    OutputError,
    ShapeError,
    memory_errors,
)
from nodebits.core.observer import check_finite
from nodebits.graph import Graph, ReorderedGraph, as_graph
from nodebits.graph.loops import EDGE_INDEX
from nodebits.ops.backends.cpu import kernels as backend
from nodebits.runtime.packed import PackedModel
from nodebits.session.asked import Asked
from nodebits.session.beginning import features_of_all, row_plan
from nodebits.session.graph import ChangingGraph
from nodebits.session.incremental import Incremental, Structure
from nodebits.session.log import Log
from nodebits.session.records import Update
from nodebits.session.updates import Checks

Self = TypeVar("Self", bound="GraphSession")


class GraphSession:
    """A packed model on one graph, whose edges, nodes and features change.

    Predictions are those of ``packed.predict`` on the graph as it is, bit for bit, whatever came
    before. An update computes only the rows that it reaches: sums and means take the difference of
    what came and went, so that a node of a million neighbours costs one addition; attention,
    maxima and weighted sums of the rows that are touched are made anew. A row that comes out as it
    was goes no further.

    Updates are made at once and computed by the next :meth:`predict`, together. Edges may be
    parallel: each :meth:`add_edges` adds one more, each :meth:`remove_edges` takes the one away
    that was added last. Ids of nodes are never given to others.

    Args:
        packed: The model; the session goes on with it as it is now.
        graph: Any adjacency of as many sources as targets, or what
            :meth:`~nodebits.PackedModel.prepare_graph` returned. It is copied.
        features: float ``[N, C]``, copied.
        edge_weight: float ``[E]`` from 0 on, or None.
        log: A folder for a write-ahead log: :meth:`open` comes back from it. None keeps none.
        sync: ``"always"``: an update is on the disk when its method returns. ``"os"``: it is with
            the operating system, and outlives the process, but not a power failure.

    Raises:
        UnsupportedLayerError: If a layer of the model is not known to work row by row; names it.
        ConfigError: If there is no plan for the model, or the kernels are not compiled.
        GraphError: If the graph is malformed, bipartite or no list of edges.
        NodeIndexError: If an edge names a node that does not exist.
        NonFiniteError: If a feature or weight is NaN or infinite.
        OutputExistsError: If ``log`` holds a session already.
        OutputBusyError: If another session has ``log`` open.
    """

    _log: Log | None

    def __init__(
        self,
        packed: PackedModel,
        graph: Any,
        features: Tensor,
        edge_weight: Tensor | None = None,
        *,
        log: str | Path | None = None,
        sync: str = "always",
    ) -> None:
        x = features_of_all(features)
        if isinstance(graph, ReorderedGraph):
            raise ConfigError("the graph is reordered: pass the one without reorder")
        edges = as_graph(graph, x.size(0), x.size(0), edge_weight)
        if edges.form != EDGE_INDEX:
            raise GraphError(
                f"the graph is a {edges.form} matrix, whose entries have other rules than edges: "
                "pass edge_index [2, E]"
            )
        removed = torch.zeros(x.size(0), dtype=torch.bool, device="cpu")
        self._begin(packed, edges, x, removed)
        if log is not None:
            begun = Log(log, sync)
            try:
                begun.create(self._tensors())
            except BaseException:
                begun.close()
                raise
            self._log = begun

    @classmethod
    def open(
        cls: type[Self], packed: PackedModel, log: str | Path, *, sync: str = "always"
    ) -> Self:
        """Comes back to a session from its log, with every update that was acknowledged.

        Args:
            packed: The model; it may be another than before, of the same features.
            log: The folder.
            sync: As of the class.

        Raises:
            FileNotFoundError: If the folder holds no session.
            FileFormatError: If the log is damaged before its end; names file and byte. What a
                killed process did not finish is dropped, with a ``TornLogWarning``.
            OutputBusyError: If another session has it open.
        """
        if not Path(log).is_dir():
            raise FileNotFoundError(2, "there is no folder of a session", str(log))
        opened = Log(log, sync)
        try:
            snapshot, updates = opened.recover()
            t = snapshot.tensors
            names = {"features", "indptr", "indices", "removed"}
            if not names <= set(t) <= {*names, "weight"} or t["removed"].dtype != torch.bool:
                raise FileFormatError(f"the snapshot in {log} holds {sorted(t)}: no session")
            weight = t.get("weight")
            graph = Graph(t["indptr"], t["indices"], t["removed"].numel(), None, weight)
            self = cls.__new__(cls)
            self._begin(packed, graph.validate(), features_of_all(t["features"]), t["removed"])
            for update in updates:
                self._make(self._asked.logged(update, str(log)))
            self._log = opened
        except BaseException:
            opened.close()
            raise
        return self

    def _begin(self, packed: PackedModel, graph: Graph, x: Tensor, removed: Tensor) -> None:
        if backend.compiled() is None:
            raise ConfigError("a session runs on the compiled kernels, which are not in use here")
        if removed.numel() != x.size(0) or graph.num_src != x.size(0):
            raise ShapeError(
                f"features have {x.size(0)} rows, and the graph has {graph.num_src} nodes"
            )
        if x.is_floating_point():
            check_finite(x, "features")
        self._mutex = threading.RLock()
        self._log = None
        self._closed = ""  # why, where it is
        self._plan = row_plan(packed, x, graph)
        self._graph = ChangingGraph(graph)
        checks = Checks(self._plan, self._graph, x)
        checks.weight(graph.edge_weight, graph.num_edges)
        self._asked = Asked(checks, self._graph, removed.clone())
        self._values = Incremental(self._plan, self._graph)
        self._input = self._plan.kinds.first
        self._values.put_input(self._input, torch.arange(x.size(0), device="cpu"), x)
        self._written: list[Tensor] = []
        self._added: list[Tensor] = []
        self._taken: list[Tensor] = []
        self._pending = True
        checks.degrees(graph.edge_index())

    # --- what there is ---

    @property
    def num_nodes(self) -> int:
        """Number of nodes, with those that were removed."""
        return self._graph.num_nodes

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self._graph.num_edges

    @property
    def removed(self) -> Tensor:
        """Bool ``[N]``: nodes that were removed."""
        return self._asked.removed.clone()

    @property
    def features(self) -> Tensor:
        """Features of all nodes, a copy."""
        with self._mutex:
            return self._values.rows(self._input, torch.arange(self.num_nodes, device="cpu"))

    def graph(self) -> Graph:
        """The graph as it is, with its edge weights where edges have some.

        It stands for ``edge_index`` in a call of the model, and also for ``edge_weight`` where its
        forward does without that; :meth:`arguments` has what every forward takes.
        """
        with self._mutex:
            return self._graph.whole()

    def arguments(self) -> tuple[Tensor, ...]:
        """What the model would be given: :meth:`predict` is ``packed.predict(*arguments())``.

        Returns:
            :attr:`features`; int64 ``[2, E]``, edges by target; and float32 ``[E]``, their weights,
            where edges have some.
        """
        with self._mutex:
            graph = self.graph()
            edges = Graph(graph.indptr, graph.indices, graph.num_src).edge_index()
            weight = graph.edge_weight
            return (self.features, edges) if weight is None else (self.features, edges, weight)

    def memory(self) -> int:
        """Bytes of what is kept for all nodes: features, results of layers, and integer sums."""
        return self._values.memory()

    # --- updates ---

    def add_edges(self, edge_index: Any, edge_weight: Any = None) -> None:
        """Adds edges; those that are there already become parallel.

        Args:
            edge_index: Integers ``[2, k]``, sources above targets.
            edge_weight: float ``[k]`` from 0 on, where the session's edges have weights.

        Raises:
            NodeIndexError: If a node does not exist or was removed; with the position.
            GraphError: If the edges have another form.
            ConfigError: If weights are missing, not wanted or negative.
            NonFiniteError: If a weight is NaN or infinite.
            AccumulatorOverflowError: If a node would have more edges than int32 sums hold.
            OutputError: If the log could not be written, the session is closed, or its log is that
                of the process which forked this one; nothing is changed then, as with every error
                of an update.
        """
        with self._mutex:
            self._accept(self._asked.add_edges(edge_index, edge_weight))

    def remove_edges(self, edge_index: Any) -> None:
        """Takes edges away, of parallel ones the last; those into a node keep their order.

        Args:
            edge_index: Integers ``[2, k]``; an edge that stands twice is taken away twice.

        Raises:
            GraphError: If an edge is not there; with its position, and none is taken away.
            NodeIndexError: As :meth:`add_edges`.
        """
        with self._mutex:
            self._accept(self._asked.remove_edges(edge_index))

    def add_nodes(self, features: Any) -> Tensor:
        """Adds nodes without edges.

        Args:
            features: float ``[k, C]``.

        Returns:
            int64 ``[k]``, their ids.

        Raises:
            ShapeError: If the features are of another shape.
            NonFiniteError: If one is NaN or infinite.
            GraphError: If int32 cannot number the nodes.
        """
        with self._mutex:
            first = self.num_nodes
            self._accept(self._asked.add_nodes(features))
            return torch.arange(first, self.num_nodes, device="cpu")

    def remove_nodes(self, node_ids: Any) -> None:
        """Removes nodes with all of their edges. Their ids stay, and are refused from then on.

        Args:
            node_ids: Integers ``[k]``.

        Raises:
            NodeIndexError: If one does not exist or was removed before.
        """
        with self._mutex:
            self._accept(self._asked.remove_nodes(node_ids))

    def set_features(self, node_ids: Any, features: Any) -> None:
        """Changes the features of some nodes.

        Args:
            node_ids: Integers ``[k]``, each once.
            features: float ``[k, C]``.

        Raises:
            NodeIndexError: If one does not exist or was removed.
            ShapeError: If the features are of another shape, or a node stands twice.
            NonFiniteError: If a feature is NaN or infinite.
        """
        with self._mutex:
            self._accept(self._asked.set_features(node_ids, features))

    def _accept(self, update: Update) -> None:
        """Logs an update that was checked, then makes it.

        One that fails for want of memory, say, may be half made: its record is taken back, and the
        session is closed, so that the log has what a session that is opened anew will have.
        """
        self._check_open()
        if self._log is not None:
            self._log.append(update)
        try:
            with memory_errors():
                self._make(update)
        except BaseException as error:
            if self._log is not None:
                self._log.take_back()
            self._closed = f"an update failed while it was made ({type(error).__name__}: {error})"
            self.close()
            if isinstance(error, Exception) and not isinstance(error, NodebitsError):
                self._check_open()
            raise

    def _check_open(self) -> None:
        """Refuses updates and writes of a closed session.

        Raises:
            OutputError: Says why it was closed, and how to go on.
        """
        if self._log is not None and not self._closed:
            self._log.check_open()
        if self._closed:
            again = "begin another" if self._log is None else "come back with GraphSession.open"
            raise OutputError(errno.EIO, f"the session is closed, {self._closed}: {again}")

    def _make(self, update: Update) -> None:
        t = update.tensors
        if update.kind == "add_edges":
            self._graph.add(t[0], t[1] if len(t) > 1 else None)
            self._added.append(t[0])
        elif update.kind == "remove_edges":
            self._graph.remove(t[0])
            self._taken.append(t[0])
        elif update.kind == "add_nodes":
            first = self.num_nodes
            self._graph.add_nodes(t[0].size(0))
            nodes = torch.arange(first, self.num_nodes, device="cpu")
            before = self._asked.removed
            self._asked.removed = torch.cat([before, before.new_zeros(nodes.numel())])
            self._write(nodes, t[0])
        elif update.kind == "remove_nodes":
            edges = self._graph.edges_at(t[0])
            self._graph.remove(edges)
            self._taken.append(edges)
            self._asked.removed[t[0]] = True
        else:
            self._write(*t)
        self._pending = True

    def _write(self, nodes: Tensor, rows: Tensor) -> None:
        self._values.put_input(self._input, nodes, rows)
        self._written.append(nodes)

    # --- predictions ---

    def predict(self, node_ids: Any = None) -> Tensor:
        """What the model returns for the graph as it is.

        Args:
            node_ids: Integers ``[k]``, also more than once; None for all nodes, where those that
                were removed have the result of a node without edges.

        Returns:
            As a rule float32 ``[k, classes]``, a copy.

        Raises:
            NodeIndexError: If a node does not exist or was removed.
            ConfigError: If the model's forward asks for sizes, and goes another way now.
        """
        with self._mutex, torch.inference_mode(False), torch.no_grad(), memory_errors():
            if node_ids is None:
                nodes = torch.arange(self.num_nodes, device="cpu")
            else:
                nodes = self._asked.checks.nodes(node_ids, self._asked.removed)
            self.refresh()
            return self._values.output.take(nodes)

    @torch.no_grad()
    def refresh(self) -> None:
        """Computes what the updates since the last prediction reach; :meth:`predict` does so."""
        with self._mutex:
            if not self._pending:
                return
            structure = Structure(_joined(self._added), _joined(self._taken))
            written = torch.cat([*self._written, structure.added[0][:0]])
            self._written, self._added, self._taken = [], [], []
            try:
                self._values.update(written, structure)
                if not self._plan.fits(self._values.size):
                    raise ConfigError(
                        f"the model goes another way on a graph of {self.num_nodes} nodes and "
                        f"{self.num_edges} edges than on the one this session began with: begin "
                        "another session on it"
                    )
            except BaseException:  # half of the rows are those of before
                self._values.forget()
                raise
            self._pending = False

    # --- the log ---

    def snapshot(self) -> None:
        """Writes the session as it is to the log, which forgets the updates before it.

        Raises:
            ConfigError: If there is no log.
            OutputError: If it cannot be written, and then the log goes on as it was; or the session
                is closed.
        """
        with self._mutex:
            if self._log is None:
                raise ConfigError("this session has no log: begin it with log=FOLDER")
            self._check_open()
            self._log.snapshot(self._tensors())

    def flush(self) -> None:
        """Waits until all updates are on the disk, for ``sync="os"``.

        Raises:
            OutputError: If that fails, or the session is closed.
        """
        with self._mutex:
            if self._log is not None:
                self._check_open()
                self._log.flush()

    def close(self) -> None:
        """Closes the session and its log: updates are refused from then on, predictions are not."""
        with self._mutex:
            self._closed = self._closed or "close() was called"
            if self._log is not None:
                self._log.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ConfigError(
            "a session is not copied or pickled, since two would write one log: begin another of "
            "session.graph() and session.features, or call snapshot(), copy the log's folder and "
            "come back from the copy with GraphSession.open"
        )

    def __repr__(self) -> str:
        return f"GraphSession({self.num_nodes} nodes, {self.num_edges} edges)"

    def _tensors(self) -> dict[str, Tensor]:
        graph = self._graph.whole()
        tensors = {
            "features": self.features,
            "indptr": graph.indptr,
            "indices": graph.indices,
            "removed": self._asked.removed,
        }
        if graph.edge_weight is not None:
            tensors["weight"] = graph.edge_weight
        return tensors


def _joined(edges: list[Tensor]) -> Tensor:
    return torch.cat([torch.empty((2, 0), dtype=torch.int64, device="cpu"), *edges], 1)
