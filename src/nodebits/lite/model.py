"""Models read from files, and their runs."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError, FileFormatError, UnknownNameError
from .arrays import DTYPES, Array, as_array
from .holders import as_key, graph_of_type, holders_of, taken_apart, top_name
from .library import SKIP_CHECKSUMS, NbInputInfo, check, encoded, library
from .run import Features, Graph, Nodes, Run

# Calls with more than this run beside the thread that waits for them, so that it can be
# interrupted; others are over before anybody could.
_LONG_BYTES = 1 << 22


@dataclass(frozen=True)
class Input:
    """What a model takes.

    Attributes:
        name: Of the argument of ``predict``.
        dtype: Of the array.
        shape: None where any size will do.
        is_graph: Whether it is an edge index, which :meth:`Model.set_graph` can set.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    is_graph: bool


class Model:
    """A packed model on numpy's arrays. Any number of threads may call it at once.

    Attributes:
        inputs: What :meth:`predict` takes, in its order.
        header: What the file says of itself, see docs/format.md.
    """

    header: dict[str, Any]

    def __init__(
        self, path: str | os.PathLike[str], threads: int | None = None, checksums: bool = True
    ) -> None:
        self._handle = ctypes.c_void_p()
        flags = 0 if checksums else SKIP_CHECKSUMS
        check(library().nb_load(encoded(path), flags, ctypes.byref(self._handle)))
        weakref.finalize(self, library().nb_model_free, self._handle).atexit = False
        try:
            self.header = json.loads(library().nb_model_header(self._handle))
        except ValueError as error:
            raise FileFormatError(
                f"{path!s}: the header is damaged ({str(error)[:200]})"
            ) from error
        self.inputs = tuple(self._inputs())
        self._holders = holders_of(self.header.get("plan", {}).get("arguments", []), self.inputs)
        self.threads = threads if threads is not None else _processors()
        self._num_outputs = library().nb_num_outputs(self._handle)
        self._graphs: dict[str, Graph] = {}
        self._features: dict[str, Features] = {}
        self._idle: deque[Run] = deque()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ConfigError(
            "a model of nodebits.lite lies in the memory of its process, and is not copied or "
            "pickled: any number of threads may call it, and another process loads the file"
        )

    def _inputs(self) -> Iterator[Input]:
        for i in range(library().nb_num_inputs(self._handle)):
            info = NbInputInfo()
            check(library().nb_input(self._handle, i, ctypes.byref(info)))
            shape = tuple(None if n < 0 else n for n in info.shape[: info.ndim])
            yield Input(info.name.decode(), str(DTYPES[info.dtype]), shape, bool(info.is_graph))

    @property
    def threads(self) -> int:
        """How many threads a call may use; small graphs are computed on one."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"threads is {count!r}; a whole number of at least 1 is expected")
        self._threads = count

    @property
    def plan(self) -> dict[str, Any]:
        """The steps of the forward, see docs/format.md."""
        plan: dict[str, Any] = self.header["plan"]
        return plan

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given to ``save(metadata=...)``."""
        metadata: dict[str, Any] = self.header.get("metadata", {})
        return metadata

    def set_graph(
        self,
        edge_index: Any = None,
        num_nodes: Nodes = None,
        *,
        indptr: Any = None,
        indices: Any = None,
        name: str | tuple[str, ...] | None = None,
    ) -> None:
        """Sets the graph of the calls that follow and name none: rows are made of it once.

        Args:
            edge_index: int64 or int32 [2, edges], sources and targets.
            num_nodes: How many nodes it has; of sources and of targets where these are of two
                kinds. With ``indptr`` only the sources' is needed, if it differs.
            indptr: In place of ``edge_index``: int64 or int32 [targets + 1].
            indices: The sources of every target, int64 or int32 [edges].
            name: Of the input, where the model has several graphs: one of :attr:`inputs`, or the
                type of its edges, ``("paper", "cites", "paper")``.

        Raises:
            ConfigError: If the arguments contradict each other, or the model has no such graph.
            GraphError: If the arrays are malformed.
            NodeIndexError: If they name a node that is not there.
        """
        name = self._graph_name(name)
        self._graphs = {**self._graphs, name: Graph.of(edge_index, num_nodes, indptr, indices)}

    def set_features(self, features: Features | str | os.PathLike[str], name: str = "") -> None:
        """Sets packed features of the calls that follow, in place of float ones.

        For a model whose plan was made of packed features: ``packed.plan(features, ...)`` before
        ``packed.save(...)``.

        Args:
            features: A file that ``save_input`` or ``nodebits pack`` has written, or what
                :class:`Features` made of it, which several models may share. It is mapped.
            name: Of the argument, where the model takes several such.

        Raises:
            FileFormatError: If the file is foreign, truncated or damaged.
            ConfigError: If the model takes none, or several.
            UnknownNameError: If it has no such argument.
        """
        known = self._packed
        if not known:
            raise ConfigError(
                "the model takes float features: have nodebits make its plan of packed ones, "
                "packed.plan(features, ...), and save it again"
            )
        if not name and len(known) > 1:
            raise ConfigError(f"the model has the features {', '.join(known)}: say name=...")
        name = name or known[0]
        if name not in known:
            raise UnknownNameError.for_name("features", name, known)
        found = features if isinstance(features, Features) else Features(features)
        self._features = {**self._features, name: found}

    def forget_graph(self) -> None:
        """Undoes :meth:`set_graph`."""
        self._graphs = {}

    def _graph_name(self, name: str | tuple[str, ...] | None) -> str:
        if isinstance(name, tuple):
            name = graph_of_type(self._holders, name, self.inputs)
        known = [item.name for item in self.inputs if item.is_graph]
        if name is None and len(known) == 1:
            return known[0]
        if name is None:
            has = f"has the graphs {', '.join(known)}: say name=..." if known else "takes no graph"
            raise ConfigError(f"the model {has}")
        if name not in known:
            raise UnknownNameError.for_name("graph", name, known)
        return name

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward.

        Args:
            *args: Arrays in the order of :attr:`inputs`; of a model that was recorded with
                dictionaries or PyG's ``Data`` in the order of its forward, dictionaries by type:
                ``predict({"paper": x}, {("paper", "cites", "paper"): edges})``. In place of a
                ``HeteroData`` it is one of those: ``{"paper": {"x": x}, (...): {"edge_index":
                edges}}``.
            **kwargs: Arrays by name. An edge index may be left out after :meth:`set_graph`.

        Returns:
            What the module returned when it was recorded: an array, or lists, tuples and
            dictionaries of arrays.

        Raises:
            ConfigError: If an input is missing, or there is one more.
            ShapeError: If an array has another dtype or shape.
            NodeIndexError: If a node is named that is not there.
            NonFiniteError: If features are NaN or infinite.
        """
        arrays = self._bound(args, kwargs)
        size, missing = 0, False
        for array in arrays:
            if array is None:
                missing = True
            else:
                size += array.nbytes
        graphs, features = self._needed(arrays) if missing else ({}, {})
        try:
            run = self._idle.pop()
        except IndexError:
            run = Run(self._handle, len(self.inputs), self._num_outputs)
        if size > _LONG_BYTES:
            results = run.beside(arrays, graphs, features, self._threads)
        else:
            results = run(arrays, graphs, features, self._threads)
        self._idle.append(run)
        return results[0] if self._is_plain else _arranged(self.plan["outputs"], iter(results))

    @functools.cached_property
    def _packed(self) -> list[str]:
        """Names of the arguments that are features packed ahead."""
        arguments = self.plan.get("arguments", [])
        return [one["name"] for one in arguments if one.get("role") == "packed"]

    @functools.cached_property
    def _is_plain(self) -> bool:
        return "value" in self.plan["outputs"]

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Array | None]:
        """An array per input, None where there is none."""
        if self._holders:
            args, kwargs = taken_apart(self._holders, args, kwargs), {}
        if len(args) > len(self.inputs):
            names = ", ".join(item.name for item in self.inputs)
            raise ConfigError(f"predict got {len(args)} inputs, the model takes {names}")
        found: list[Array | None] = []
        for i, item in enumerate(self.inputs):
            value = args[i] if i < len(args) else kwargs.pop(item.name, None)
            found.append(None if value is None else as_array(value, item.name))
        for name in kwargs:
            if any(name == item.name for item in self.inputs):
                raise ConfigError(f"predict got {name} twice, by place and by name")
            raise UnknownNameError.for_name("input", name, [item.name for item in self.inputs])
        return found

    def _needed(self, arrays: list[Array | None]) -> tuple[dict[str, Graph], dict[str, Features]]:
        """The graphs and features that stand in for arrays that were not given."""
        graphs: dict[str, Graph] = {}
        features: dict[str, Features] = {}
        for item, array in zip(self.inputs, arrays, strict=True):
            name, slash, _ = item.name.partition("/")
            if array is not None:
                continue
            if item.name in self._graphs:
                graphs[item.name] = self._graphs[item.name]
            elif slash and name in self._features:
                features[name] = self._features[name]
            else:
                cure = ", or set_graph once" if item.is_graph else ""
                call = f"call predict({item.name}=...)"
                if self._holders:
                    call = (
                        f"give it in the dictionary that predict takes, of {top_name(item.name)!r}"
                    )
                packed = slash and name in self._packed
                how = "set_features(...)" if packed else f"{call}{cure}"
                raise ConfigError(f"input {item.name!r} is missing: {how}")
        return graphs, features


def load(
    path: str | os.PathLike[str], *, threads: int | None = None, checksums: bool = True
) -> Model:
    """Reads a packed model. The file is mapped: weights are read where they lie.

    Args:
        path: A file that nodebits saved after a ``predict``. Replace it, do not write to it, while
            the model is in use.
        threads: How many a call may use; as many as the process has processors by default.
        checksums: Whether every tensor is compared with its checksum. The header always is.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign, truncated or damaged.
        FileVersionError: If a newer version wrote it.
        ConfigError: If it holds no plan.
    """
    return Model(path, threads, checksums)


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _arranged(shape: Any, results: Iterator[Array]) -> Any:
    """Results in the lists, tuples and dictionaries that the plan says."""
    if isinstance(shape, list):
        return [_arranged(item, results) for item in shape]
    if "value" in shape:
        return next(results)
    if "none" in shape:
        return None
    if "items" in shape:
        return {as_key(key): _arranged(item, results) for key, item in shape["items"]}
    if "tuple" in shape:
        return tuple(_arranged(item, results) for item in shape["tuple"])
    return {key: _arranged(item, results) for key, item in shape["dict"].items()}
