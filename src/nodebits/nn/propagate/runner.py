"""One call of ``propagate`` or ``edge_updater``, from rows at sites."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from nodebits.core.context import current
from nodebits.core.errors import NodebitsError, ShapeError, UnsupportedLayerWarning
from nodebits.engine.chain import deferring
from nodebits.engine.pending import settle
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph, as_graph
from nodebits.nn.functional import quantize_rows
from nodebits.nn.propagate import arguments, trial
from nodebits.nn.propagate.arguments import Call, Reads, call_of, is_edge_feature, is_pair
from nodebits.nn.propagate.lifted import Lifted
from nodebits.nn.propagate.tiles import (
    Attributes,
    Tiled,
    Untileable,
    as_given,
    tile_edges,
    tiles_of,
)
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer

PREFIX = "message_"
UNTRIED, TILED, AT_ONCE = "untried", "tiled", "at once"
# PyG replaces these of a class by code that it writes for it, at its first instance.
_PROPAGATE = vars(MessagePassing).get("_orig_propagate", MessagePassing.propagate)
_UPDATE_EDGES = vars(MessagePassing).get("_orig_edge_updater", MessagePassing.edge_updater)
# How many times as large as in another step values may be: three bits of the range are then lost.
STEPS_APART = 8.0
_HOOKS = tuple(
    f"_{step}_forward_{when}"
    for step in ("propagate", "message", "aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
)


@dataclass
class Course:
    """How the functions of a layer are run, and what one forward keeps.

    Attributes:
        form: ``"untried"``, ``"tiled"``, or ``"at once"`` for all edges together.
        edges: Arguments that were rows of edges when ranges were taken.
        kept: Tensor and rows of a site, in the present forward.
        computed: What ``edge_updater`` returned in it.
        extents: Least and largest magnitude that its calls had at a site, in it.
    """

    form: str = UNTRIED
    edges: list[str] = field(default_factory=list)
    kept: dict[str, tuple[Tensor, Lifted]] = field(default_factory=dict)
    computed: Any = None
    extents: dict[str, tuple[float, float]] = field(default_factory=dict)

    def forget(self) -> None:
        """Drops what a forward keeps."""
        self.kept, self.computed, self.extents = {}, None, {}


class Runner:
    """Runs the functions of a layer.

    It stands beside the layer, whose class is the user's: a method there could hide one of theirs.

    Args:
        layer: A :class:`nodebits.nn.propagate.QuantMessagePassing`.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.course: Course = layer.course

    def propagate(self, adjacency: Any, size: Any, keywords: dict[str, Any]) -> Any:
        """Messages, aggregated and updated."""
        names = arguments.message_arguments(self.layer)
        self._check_steps(names, keywords)
        return self._run(names, False, adjacency, size, keywords)

    def _check_steps(self, names: Sequence[str], keywords: dict[str, Any]) -> None:
        """Leaves a layer in float whose steps differ by magnitudes: they share a range."""
        layer = self.layer
        trained = any(isinstance(site, Quantizer) for site in layer.children())
        if (
            layer.float_reason
            or not trained
            or not (self._observing or self.course.form == UNTRIED)
        ):
            return
        for name in sorted({n[:-2] for n in names if n[-2:] in ("_i", "_j")}):
            extent = _extent(keywords.get(name))
            if extent == 0.0:
                continue
            least, most = self.course.extents.get(name, (extent, extent))
            least, most = min(least, extent), max(most, extent)
            self.course.extents[name] = least, most
            if most > STEPS_APART * least:
                return self._stay_float(
                    f"it propagates several times in one forward, and the largest value of {name!r}"
                    f" goes from {least:.3g} to {most:.3g}, so that one range cannot serve all "
                    "steps: use a layer per step, or APPNP, whose steps have a site each"
                )

    def edge_updater(self, adjacency: Any, size: Any, keywords: dict[str, Any]) -> Any:
        """Updated rows of edges, in the order of the edges."""
        names = arguments.edge_arguments(self.layer)
        made = self._run(names, True, adjacency, size, keywords)
        self.course.computed = made
        return made

    def _run(
        self, names: list[str], update: bool, adjacency: Any, size: Any, keywords: dict[str, Any]
    ) -> Any:
        whole = _UPDATE_EDGES if update else _PROPAGATE
        if self.layer.float_reason:
            return whole(self.layer, adjacency, size, **keywords)
        call = call_of(self.layer, names, adjacency, size, keywords)
        if self._tileable(names, call, update):
            if self.course.form == UNTRIED or self._observing:
                return self._tried(names, update, call)
            tiled = self._arguments(names, call)
            edges = tile_edges(tiled.width)
            if call.num_edges > edges:
                made = self._tiles(tiled, update, edges)
                return as_given(made, tiled.graph) if update else self._updated(made, call)
        return whole(self.layer, call.edge_index, call.size, **call.values)

    @property
    def _observing(self) -> bool:
        sites = self.layer.children()
        return any(isinstance(site, Quantizer) and site.calibrating for site in sites)

    def _tileable(self, names: Sequence[str], call: Call, update: bool) -> bool:
        """Whether this call may run on tiles, as far as its form says."""
        layer = self.layer
        if layer.training or torch.is_grad_enabled() or self.course.form == AT_ONCE:
            return False
        if layer.explain or layer.decomposed_layers > 1 or any(vars(layer)[h] for h in _HOOKS):
            return False
        if torch.compiler.is_compiling() or call.num_edges == 0 or current().records:
            return False
        last = layer.inspector.get_param_names("update")
        if not update and any(n in layer.special_args or n[-2:] in ("_i", "_j") for n in last):
            return False
        lifted = [call.at_end(n[:-2], call.end(n)) for n in names if n[-2:] in ("_i", "_j")]
        return all(
            arguments.nodes_first(value, layer.node_dim)
            for value in lifted
            if isinstance(value, Tensor)
        )

    # --- rows at sites ---

    def _site(self, name: str) -> Quantizer | RowQuantizer | None:
        site = self.layer._modules.get(PREFIX + name)
        return site if isinstance(site, Quantizer | RowQuantizer) else None

    def _lift(self, site: str, value: Any) -> Lifted | None:
        """What edges take of a tensor of nodes, or of edges; None for no tensor."""
        if not isinstance(value, Tensor):
            return None
        quantizer = self._site(site)
        if quantizer is None or not value.is_floating_point():
            return Lifted(value, value.shape)
        known = self.course.kept.get(site)
        if known is not None and known[0] is value:
            return known[1]
        rows = quantize_rows(quantizer, arguments.matrix(value, self.layer.node_dim))
        lifted = Lifted(rows, value.shape)
        if not torch.is_grad_enabled():
            self.course.kept[site] = (value, lifted)
        return lifted

    def _node_site(self, name: str, value: Any, end: int, call: Call) -> str:
        """The site of one end of the edges."""
        distinct = is_pair(value) and value[0] is not value[1]
        target = distinct and end != call.source
        return f"{name}_dst" if target and self._site(f"{name}_dst") is not None else name

    def _edge_names(self, read: Reads, call: Call) -> list[str]:
        """Arguments that are rows of edges; noted while ranges are taken.

        Raises:
            ShapeError: If one that is known to be so has another length.
        """
        for name in self.course.edges:
            value = call.values.get(name) if name in read.plain else None
            if isinstance(value, Tensor) and value.dim() and value.size(0) != call.num_edges:
                raise ShapeError(
                    f"layer {self.layer.described} got {name!r} of shape {list(value.shape)} for "
                    f"{call.num_edges} edges: it has a row for every edge"
                )
        found = [
            name
            for name in read.plain
            if is_edge_feature(call.values.get(name), call.num_edges)
            and call.values[name] is not self.course.computed
        ]
        sites = self.layer.children()
        if any(isinstance(site, RowQuantizer) for site in sites):
            return [name for name in found if name in self.course.edges]
        self.course.edges = list(dict.fromkeys([*self.course.edges, *found]))
        return found

    def _graph(self, call: Call) -> Graph:
        return as_graph(call.directed(), *call.counts())

    # --- all edges at once ---

    def collect(
        self, args: Any, edge_index: Any, size: list[int | None], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """What PyG's functions are given for all edges at once, from codes."""
        layer = self.layer
        collect: Any = MessagePassing._collect
        if layer.float_reason:
            found: dict[str, Any] = collect(layer, args, edge_index, size, kwargs)
            return found
        source = 0 if layer.flow == "source_to_target" else 1
        known = arguments.counted(layer, args, kwargs, size)
        call = Call(edge_index, (known[0], known[1]), kwargs, source, layer.node_dim)
        given = dict(kwargs)
        read = arguments.reads(args)
        with layer.layer_scope(self._graph(call)):
            for name in read.lifted:
                ends = {call.end(a) for a in args if a[:-2] == name and a[-2:] in ("_i", "_j")}
                given[name] = self._decoded(name, kwargs.get(name), ends, call)
            for name in self._edge_names(read, call):
                given[name] = _values(self._lift(name, kwargs[name]), kwargs[name])
        found = collect(layer, args, edge_index, size, given)
        # What is asked for by name and lifted too (`update(aggr_out, x)`) is the float tensor.
        for name in read.plain:
            if name in read.lifted and name in kwargs:
                found[name] = kwargs[name]
        return found

    def _decoded(self, name: str, value: Any, ends: set[int], call: Call) -> Any:
        """``value`` (or a pair) with codes in place of what edges take."""
        if not is_pair(value):
            return _values(self._lift(name, value), value)
        made = list(value)
        for end in ends:
            site = self._node_site(name, value, end, call)
            made[end] = _values(self._lift(site, value[end]), value[end])
        return tuple(made)

    # --- by tiles ---

    def _arguments(self, names: list[str], call: Call) -> Tiled:
        """Packs what edges take."""
        read = arguments.reads(names)
        graph = self._graph(call)
        nodes: dict[str, Lifted | None] = {}
        edges: dict[str, Lifted] = {}
        with self.layer.layer_scope(graph):
            for name in names:
                if name[-2:] not in ("_i", "_j") or name[:-2] not in call.values:
                    continue
                end, value = call.end(name), call.values[name[:-2]]
                site = self._node_site(name[:-2], value, end, call)
                nodes[name] = self._lift(site, call.at_end(name[:-2], end))
            features = self._edge_names(read, call)
            for name in read.plain:
                value = call.values.get(name)
                if not isinstance(value, Tensor) or not value.dim():
                    continue
                if value.size(0) == call.num_edges:
                    lifted = self._lift(name, value) if name in features else None
                    edges[name] = lifted or Lifted(value, value.shape)
        return Tiled(call, graph, names, nodes, edges)

    def _updated(self, made: Any, call: Call) -> Any:
        asked = self.layer.inspector.collect_param_data("update", call.values)
        return self.layer.update(made, **asked)

    def _tiles(self, tiled: Tiled, update: bool, num_edges: int) -> Any:
        """Aggregated messages of all targets, or updated rows of all edges in CSR order.

        Returns:
            A tensor, or a tuple where the functions return tuples.

        Raises:
            Untileable: If the functions leave something that is no tile's.
        """
        left = Attributes(self.layer)
        parts = []
        for tile in tiles_of(tiled.graph, num_edges):
            made = self._functions(tiled.of(tile), update)
            if not _is_tensors(made):
                raise Untileable("its functions return something else than tensors")
            parts.append(made)
            left.take(tile)
        left.settle(tiled.graph)
        dim = None if update else self.layer.node_dim
        if isinstance(parts[0], tuple):
            return tuple(_joined(of_one, dim) for of_one in zip(*parts, strict=True))
        return _joined(parts, dim)

    def _functions(self, given: dict[str, Any], update: bool) -> Any:
        """``message`` and ``aggregate``, or ``edge_update``."""
        layer = self.layer
        of = layer.inspector.collect_param_data
        with _own_results():
            if update:
                return settle(layer.edge_update(**of("edge_update", given)))
            made = settle(layer.message(**of("message", given)))
            return settle(layer.aggregate(made, **of("aggregate", given)))

    # --- the trial ---

    def _tried(self, names: list[str], update: bool, call: Call) -> Any:
        """All edges at once, and by tiles; notes how the layer is run from now on."""
        layer = self.layer
        given = self.collect(names, call.edge_index, list(call.size), call.values)
        states, before = trial.States(layer, call.values), dict(vars(layer))
        at_once = self._functions(given, update)
        left = {n: v for n, v in vars(layer).items() if before.get(n, self) is not v}
        reason, form = states.written(), TILED
        if reason is None:
            vars(layer).update({name: before[name] for name in left if name in before})
            with _resting(layer):
                try:
                    tiled = self._arguments(names, call)
                    made = self._tiles(tiled, update, max(call.num_edges // 3, 1))
                    made = as_given(made, tiled.graph) if update else made
                    reason = trial.differs(at_once, made)
                    if reason is not None and trial.pads(layer.aggr_module):
                        # Its result depends on the largest target of those aggregated together.
                        reason, form = None, AT_ONCE
                except Untileable as error:
                    reason = str(error)
                except (NodebitsError, ValueError, TypeError, RuntimeError, IndexError):
                    # They run, but not on a part of the graph (widths of single rows, say).
                    form = AT_ONCE
        vars(layer).update(left)
        if reason is not None:
            self._stay_float(reason)
            whole = _UPDATE_EDGES if update else _PROPAGATE
            return whole(layer, call.edge_index, call.size, **call.values)
        self.course.form = form if self.course.form != AT_ONCE else AT_ONCE
        return at_once if update else self._updated(at_once, call)

    def _stay_float(self, reason: str) -> None:
        layer = self.layer
        layer.float_reason = reason
        for name, child in list(layer._modules.items()):
            if isinstance(child, Quantizer):
                setattr(layer, name, FloatQuantizer().train(child.training))
        warnings.warn(
            f"layer {layer.described} stays in float: {reason}",
            UnsupportedLayerWarning,
            stacklevel=2,
        )


def _extent(value: Any) -> float:
    """Largest magnitude of the floats in an argument; 0 where there are none."""
    parts = value if isinstance(value, list | tuple) else (value,)
    floats = (t.detach() for t in parts if isinstance(t, Tensor) and t.is_floating_point())
    ends = [end for t in floats if t.numel() for end in t.aminmax()]
    return max((abs(float(end)) for end in ends), default=0.0)


def _is_tensors(value: Any) -> bool:
    """Whether ``value`` is a tensor or a tuple of them."""
    parts = value if type(value) is tuple else (value,)
    return bool(parts) and all(isinstance(part, Tensor) for part in parts)


def _joined(parts: Sequence[Tensor], node_dim: int | None) -> Tensor:
    """What tiles made, along the dimension of nodes, or the first one of edges."""
    inside = node_dim is not None and -parts[0].dim() <= node_dim < parts[0].dim()
    return torch.cat(list(parts), node_dim if inside and node_dim is not None else 0)


def _values(lifted: Lifted | None, value: Any) -> Any:
    return value if lifted is None else lifted.values


@contextmanager
def _own_results() -> Iterator[None]:
    """Lets layers inside a function pass on packed rows, as those of a forward do."""
    if current().chains is None:
        yield
    else:
        with deferring():
            yield


@contextmanager
def _resting(module: nn.Module) -> Iterator[None]:
    """Keeps quantizers of ``module`` from taking a second look at the same data."""
    sites = [m for m in module.modules() if isinstance(m, Quantizer)]
    before = [(site, site.calibrating, site.last_shape) for site in sites]
    for site in sites:
        site.calibrating = False
    try:
        yield
    finally:
        for site, calibrating, shape in before:
            site.calibrating, site.last_shape = calibrating, shape
