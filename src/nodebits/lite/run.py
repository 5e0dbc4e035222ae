"""Runs of a model and graphs that are used again: handles of the library."""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any

from ..core.errors import ConfigError
from .arrays import Array, as_array, copied, described, fill
from .library import NbArray, check, library

# A number of nodes, or of sources and of targets.
Nodes = int | tuple[int, int] | None


class Graph:
    """A handle of an adjacency."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self.handle = handle
        weakref.finalize(self, library().nb_graph_free, handle).atexit = False

    @classmethod
    def of(cls, edge_index: Any, num_nodes: Nodes, indptr: Any, indices: Any) -> Graph:
        """Of one form or the other, see :meth:`nodebits.lite.Model.set_graph`."""
        handle = ctypes.c_void_p()
        if (edge_index is None) == (indptr is None) or (indptr is None) != (indices is None):
            raise ConfigError("a graph is edge_index and num_nodes, or indptr and indices")
        if edge_index is not None:
            if num_nodes is None:
                raise ConfigError("how many nodes the graph has is missing: num_nodes=...")
            sources, targets = num_nodes if isinstance(num_nodes, tuple) else (num_nodes, num_nodes)
            edges = as_array(edge_index, "edge_index")
            call = library().nb_graph_coo
            check(call(ctypes.byref(described(edges)), sources, targets, ctypes.byref(handle)))
            return cls(handle)
        rows, columns = as_array(indptr, "indptr"), as_array(indices, "indices")
        if num_nodes is None:
            num_nodes = max(rows.size - 1, 0)
        sources = num_nodes[0] if isinstance(num_nodes, tuple) else num_nodes
        described_rows, described_columns = described(rows), described(columns)
        check(
            library().nb_graph_csr(
                ctypes.byref(described_rows),
                ctypes.byref(described_columns),
                sources,
                ctypes.byref(handle),
            )
        )
        return cls(handle)


class Run:
    """A handle of a run, used by one thread at a time."""

    def __init__(self, model: ctypes.c_void_p, inputs: int, outputs: int) -> None:
        self._handle = ctypes.c_void_p()
        check(library().nb_run_new(model, ctypes.byref(self._handle)))
        weakref.finalize(self, library().nb_run_free, self._handle).atexit = False
        self._inputs = (NbArray * inputs)()
        self._outputs = (NbArray * outputs)()
        self._threads = 0
        self._graphs: dict[str, Graph] = {}

    def __call__(
        self, arrays: list[Array | None], graphs: dict[str, Graph], threads: int
    ) -> list[Array]:
        """The outputs."""
        if threads != self._threads:
            check(library().nb_set_threads(self._handle, threads))
            self._threads = threads
        for target, array in zip(self._inputs, arrays, strict=True):
            if array is None:
                target.ndim = -1
            else:
                fill(target, array)
        for name, graph in graphs.items():
            if self._graphs.get(name) is not graph:
                check(library().nb_set_graph(self._handle, name.encode(), graph.handle))
        self._graphs = graphs
        inputs, outputs = self._inputs, self._outputs
        check(library().nb_predict(self._handle, inputs, len(inputs), outputs, len(outputs)))
        return [copied(output) for output in outputs]

    def beside(
        self, arrays: list[Array | None], graphs: dict[str, Graph], threads: int
    ) -> list[Array]:
        """The same on a thread of its own: a signal reaches the one that waits."""
        results: list[list[Array]] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(self(arrays, graphs, threads))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="nodebits.lite")
        thread.start()
        try:
            thread.join()
        except BaseException:
            library().nb_interrupt(self._handle)
            thread.join()
            raise
        if errors:
            raise errors[0]
        return results[0]
