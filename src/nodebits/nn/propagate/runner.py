"""One call of ``propagate`` or ``edge_updater``, from rows at sites."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from nodebits.core.context import current
from nodebits.core.errors import NodebitsError, UnsupportedLayerWarning
from nodebits.core.recorded import no_step
from nodebits.engine.chain import deferring
from nodebits.engine.pending import settle
from nodebits.nn.propagate import arguments, trial
from nodebits.nn.propagate.arguments import Call, call_of
from nodebits.nn.propagate.lifted import Lifted
from nodebits.nn.propagate.sites import (
    AT_ONCE,
    TILED,
    UNTRIED,
    Course,
    LayerSites,
    values_of,
)
from nodebits.nn.propagate.summed import graph_of, summed, updates_alone
from nodebits.nn.propagate.tiles import (
    Attributes,
    Tiled,
    TiledResult,
    Untileable,
    as_given,
    tile_edges,
    tiles_of,
)
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer

# PyG replaces these of a class by code that it writes for it, at its first instance.
_PROPAGATE = vars(MessagePassing).get("_orig_propagate", MessagePassing.propagate)
_UPDATE_EDGES = vars(MessagePassing).get("_orig_edge_updater", MessagePassing.edge_updater)
_HOOKS = tuple(
    f"_{step}_forward_{when}"
    for step in ("propagate", "message", "aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
)


class Runner:
    """Runs the functions of a layer.

    It stands beside the layer, whose class is the user's: a method there could hide one of theirs.

    Args:
        layer: A :class:`nodebits.nn.propagate.layer.QuantMessagePassing`.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.course: Course = layer.course
        self.sites = LayerSites(layer)

    def propagate(self, adjacency: Any, size: Any, keywords: dict[str, Any]) -> Any:
        """Messages, aggregated and updated."""
        names = arguments.message_arguments(self.layer)
        keywords = arguments.by_row(self.layer, names, keywords)
        trained = any(isinstance(site, Quantizer) for site in self.layer.children())
        first = self._observing or self.course.form == UNTRIED
        if trained and first and not self.layer.float_reason:
            reason = self.sites.apart(names, keywords)
            if reason is not None:
                self._stay_float(reason)
        return self._run(names, False, adjacency, size, keywords)

    def edge_updater(self, adjacency: Any, size: Any, keywords: dict[str, Any]) -> Any:
        """Updated rows of edges, in the order of the edges."""
        names = arguments.edge_arguments(self.layer)
        keywords = arguments.by_row(self.layer, names, keywords)
        made = self._run(names, True, adjacency, size, keywords)
        self.course.computed = made
        return made

    def _run(
        self, names: list[str], update: bool, adjacency: Any, size: Any, keywords: dict[str, Any]
    ) -> Any:
        whole = _UPDATE_EDGES if update else _PROPAGATE
        if self.layer.float_reason:
            no_step("its messages are floats")
            return whole(self.layer, adjacency, size, **keywords)
        call = call_of(self.layer, names, adjacency, size, keywords)
        made = None if update else summed(self.sites, call, self._watched)
        if made is not None:
            return self._updated(made, call)
        no_step("its messages run on tiles of edges")
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

    @property
    def _watched(self) -> bool:
        """Whether someone looks at messages of single edges, or a compiler at the code."""
        layer = self.layer
        hooked = layer.explain or layer.decomposed_layers > 1 or any(vars(layer)[h] for h in _HOOKS)
        return bool(hooked) or torch.compiler.is_compiling()

    def _tileable(self, names: Sequence[str], call: Call, update: bool) -> bool:
        """Whether this call may run on tiles, as far as its form says."""
        layer = self.layer
        if layer.training or torch.is_grad_enabled() or self.course.form == AT_ONCE:
            return False
        if self._watched or call.num_edges == 0 or current().records:
            return False
        if not update and not updates_alone(layer):
            return False
        lifted = [call.at_end(n[:-2], call.end(n)) for n in names if n[-2:] in ("_i", "_j")]
        return all(
            arguments.nodes_first(value, layer.node_dim)
            for value in lifted
            if isinstance(value, Tensor)
        )

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
        with layer.layer_scope(graph_of(layer, call)):
            for name in read.lifted:
                ends = {call.end(a) for a in args if a[:-2] == name and a[-2:] in ("_i", "_j")}
                given[name] = self.sites.decoded(name, kwargs.get(name), ends, call)
            for name in self.sites.edge_names(read, call):
                given[name] = values_of(self.sites.lift(name, kwargs[name]), kwargs[name])
        found = collect(layer, args, edge_index, size, given)
        # What is asked for by name and lifted too (`update(aggr_out, x)`) is the float tensor.
        for name in read.plain:
            if name in read.lifted and name in kwargs:
                found[name] = kwargs[name]
        # What a call leaves out has the default that the functions give it.
        return {name: value for name, value in found.items() if value is not Parameter.empty}

    # --- by tiles ---

    def _arguments(self, names: list[str], call: Call) -> Tiled:
        """Packs what edges take."""
        read = arguments.reads(names)
        graph = graph_of(self.layer, call)
        nodes: dict[str, Lifted | None] = {}
        edges: dict[str, Lifted] = {}
        with self.layer.layer_scope(graph):
            for name in names:
                if name[-2:] in ("_i", "_j") and name[:-2] in call.values:
                    nodes[name] = self.sites.end(name, call)
            features = self.sites.edge_names(read, call)
            for name in read.plain:
                value = call.values.get(name)
                if not isinstance(value, Tensor) or not value.dim():
                    continue
                if value.size(0) == call.num_edges:
                    lifted = self.sites.lift(name, value) if name in features else None
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
        dim = None if update else self.layer.node_dim
        rows = tiled.graph.num_edges if update else tiled.graph.num_dst
        parts: list[TiledResult] = []
        several = False
        for tile in tiles_of(tiled.graph, num_edges):
            made = self._functions(tiled.of(tile), update)
            if not _is_tensors(made):
                raise Untileable("its functions return something else than tensors")
            several = isinstance(made, tuple)
            made = made if several else (made,)
            parts = parts or [TiledResult(rows, dim) for _ in made]
            for joined, part in zip(parts, made, strict=True):
                joined.add(part)
            left.take(tile)
        left.settle(tiled.graph)
        found = tuple(joined.result for joined in parts)
        return found if several else found[0]

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


def _is_tensors(value: Any) -> bool:
    """Whether ``value`` is a tensor or a tuple of them."""
    parts = value if type(value) is tuple else (value,)
    return bool(parts) and all(isinstance(part, Tensor) for part in parts)


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
