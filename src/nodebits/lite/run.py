"""Runs of a model and graphs that are used again: handles of the library."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .arrays import Array, Described, as_array, described
from .library import SKIP_CHECKSUMS, check, encoded, library

# What the library takes; more would be cut to it.
_MOST_NODES = 2**63 - 1
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
            sources, targets = _counts(num_nodes)
            edges = as_array(edge_index, "edge_index")
            call = library().nb_graph_coo
            check(call(described(edges).pointer, sources, targets, ctypes.byref(handle)))
            return cls(handle)
        rows, columns = as_array(indptr, "indptr"), as_array(indices, "indices")
        sources, _ = _counts(max(rows.size - 1, 0) if num_nodes is None else num_nodes)
        pointers = described(rows).pointer, described(columns).pointer
        check(library().nb_graph_csr(*pointers, sources, ctypes.byref(handle)))
        return cls(handle)


def _counts(num_nodes: Any) -> tuple[int, int]:
    """Numbers of sources and of targets.

    Raises:
        ConfigError: If they are no whole numbers, or more than an index can name.
    """
    several = isinstance(num_nodes, tuple | list)
    counts = tuple(num_nodes) if several else (num_nodes, num_nodes)
    for count in counts:
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if len(counts) != 2 or not whole or not -_MOST_NODES <= count <= _MOST_NODES:
            raise ConfigError(
                f"num_nodes is {num_nodes!r}: expected a whole number from 0 to {_MOST_NODES}, or "
                "two of them, of sources and of targets"
            )
    return int(counts[0]), int(counts[1])


class Features:
    """A handle of packed features.

    Args:
        path: A file that ``save_input`` or ``nodebits pack`` has written.
        checksums: Whether every tensor is compared with its checksum.
    """

    def __init__(self, path: str | os.PathLike[str], checksums: bool = True) -> None:
        self.handle = ctypes.c_void_p()
        flags = 0 if checksums else SKIP_CHECKSUMS
        check(library().nb_features_load(encoded(path), flags, ctypes.byref(self.handle)))
        weakref.finalize(self, library().nb_features_free, self.handle).atexit = False


class Run:
    """A handle of a run, used by one thread at a time."""

    def __init__(self, model: ctypes.c_void_p, inputs: int, outputs: int) -> None:
        self._handle = ctypes.c_void_p()
        check(library().nb_run_new(model, ctypes.byref(self._handle)))
        weakref.finalize(self, library().nb_run_free, self._handle).atexit = False
        self._inputs, self._outputs = Described(inputs), Described(outputs)
        self._arguments = (
            self._handle, self._inputs.pointer, inputs, self._outputs.pointer, outputs,
        )  # fmt: skip
        self._predict = library().nb_predict
        self._threads = 0
        self._graphs: dict[str, Graph] = {}
        self._features: dict[str, Features] = {}

    def __call__(
        self,
        arrays: list[Array | None],
        graphs: dict[str, Graph],
        features: dict[str, Features],
        threads: int,
    ) -> list[Array]:
        """The outputs."""
        if threads != self._threads:
            check(library().nb_set_threads(self._handle, threads))
            self._threads = threads
        for i, array in enumerate(arrays):
            self._inputs.fill(i, array)
        for name, graph in graphs.items():
            if self._graphs.get(name) is not graph:
                check(library().nb_set_graph(self._handle, name.encode(), graph.handle))
        self._graphs = graphs
        for name, packed in features.items():
            if self._features.get(name) is not packed:
                check(library().nb_set_packed_features(self._handle, name.encode(), packed.handle))
        self._features = features
        check(self._predict(*self._arguments))
        return [self._outputs.copied(i) for i in range(len(self._outputs))]

    def beside(
        self,
        arrays: list[Array | None],
        graphs: dict[str, Graph],
        features: dict[str, Features],
        threads: int,
    ) -> list[Array]:
        """The same on a thread of its own: a signal reaches the one that waits."""
        results: list[list[Array]] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(self(arrays, graphs, features, threads))
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
