"""What the sites of a layer make of the tensors that its functions ask for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.aggr import Aggregation

from nodebits.core.errors import ShapeError
from nodebits.engine.chain import Producer
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.forms import Known
from nodebits.nn.functional import AnyRows, quantize_rows
from nodebits.nn.propagate import arguments
from nodebits.nn.propagate.arguments import Call, Reads, is_edge_feature, is_pair
from nodebits.nn.propagate.lifted import Lifted
from nodebits.nn.quantizers.base import Quantizer

MESSAGE, WEIGHT = "message_", "attention_"
UNTRIED, TILED, AT_ONCE = "untried", "tiled", "at once"
# How many times as large as in another step values may be: three bits of the range are then lost.
STEPS_APART = 8.0


@dataclass
class Course:
    """How the functions of a layer are run, and what one forward keeps.

    Attributes:
        form: ``"untried"``, ``"tiled"``, or ``"at once"`` for all edges together.
        sums: Whether messages are aggregated as integers; None until one was looked at.
        edges: Arguments that were rows of edges when ranges were taken.
        weights: Arguments that were weights of an integer sum.
        known: Forms of its calls.
        kept: Tensor and rows of a site, in the present forward.
        passed: The tensors that came to the first of the sites for steps, in it.
        computed: What ``edge_updater`` returned in it.
        extents: Least and largest magnitude that its calls had at a site, in it.
        unsummed: Kind of reason why the latest forward had a sum that was none of integers, empty
            where it had none: ``"overflow"``, ``"other message"`` or ``"watched"``.
        told: Kinds that were warned of.
    """

    form: str = UNTRIED
    sums: bool | None = None
    edges: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    known: Known = field(default_factory=Known)
    kept: dict[str, tuple[Tensor, Lifted]] = field(default_factory=dict)
    passed: dict[str, list[Callable[[], Tensor | None]]] = field(default_factory=dict)
    computed: Any = None
    extents: dict[str, tuple[float, float]] = field(default_factory=dict)
    unsummed: str = ""
    told: set[str] = field(default_factory=set)

    def __getstate__(self) -> dict[str, Any]:
        # What one forward keeps is of no use to a copy, and weak references have none.
        of_a_forward: dict[str, Any] = {"kept": {}, "passed": {}, "computed": None, "extents": {}}
        return {**self.__dict__, **of_a_forward}

    def forget(self) -> None:
        """Drops what a forward keeps."""
        self.kept, self.passed, self.computed, self.extents = {}, {}, None, {}


class LayerSites:
    """The sites of a layer in one call.

    Args:
        layer: A :class:`nodebits.nn.propagate.layer.QuantMessagePassing`.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.course: Course = layer.course

    def of(self, name: str) -> Quantizer | RowQuantizer | None:
        """The site of an attribute's name."""
        site = self.layer._modules.get(name)
        return site if isinstance(site, Quantizer | RowQuantizer) else None

    @property
    def weight_site(self) -> str | None:
        """The name of a site for numbers per edge, whatever they are; None where there is none."""
        names = (name for name in self.layer._modules if name.startswith(WEIGHT))
        return next((name for name in names if self.of(name) is not None), None)

    def step(self, name: str, value: Tensor) -> str:
        """The site of a tensor of nodes: every tensor of a forward has the next, to the last."""
        if self.of(f"{MESSAGE}{name}_1") is None:
            return name
        passed = self.course.passed.setdefault(name, [])
        place = next((i for i, known in enumerate(passed) if known() is value), len(passed))
        if place == len(passed):
            # A compiler, which follows no weak reference, runs a forward once.
            kept = (lambda: value) if torch.compiler.is_compiling() else weakref.ref(value)
            passed.append(kept)
        while place and self.of(f"{MESSAGE}{name}_{place}") is None:
            place -= 1
        return f"{name}_{place}" if place else name

    def lift(self, name: str, value: Any) -> Lifted | None:
        """What edges take of a tensor of nodes, or of edges; None for no tensor."""
        if not isinstance(value, Tensor):
            return None
        quantizer = self.of(MESSAGE + name)
        if quantizer is None or not value.is_floating_point():
            return Lifted(value, value.shape)
        known = self.course.kept.get(name)
        if known is not None and known[0] is value:
            return known[1]
        rows = quantize_rows(quantizer, arguments.matrix(value, self.layer.node_dim))
        lifted = Lifted(rows, value.shape)
        if not torch.is_grad_enabled():
            self.course.kept[name] = (value, lifted)
        return lifted

    def node_site(self, name: str, value: Any, end: int, source: int) -> str:
        """The site of what was given under a name for one end of the edges."""
        target = end != source and is_pair(value) and value[0] is not value[1]
        if target and self.of(f"{MESSAGE}{name}_dst") is not None:
            return f"{name}_dst"
        one = value[end] if is_pair(value) else value
        return self.step(name, one) if isinstance(one, Tensor) else name

    def end(self, argument: str, call: Call) -> Lifted | None:
        """What edges take under a name such as ``x_j``."""
        name, end = argument[:-2], call.end(argument)
        site = self.node_site(name, call.values[name], end, call.source)
        return self.lift(site, call.at_end(name, end))

    def edge_names(self, read: Reads, call: Call) -> list[str]:
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

    def decoded(self, name: str, value: Any, ends: set[int], call: Call) -> Any:
        """``value`` (or a pair) with codes in place of what edges take."""
        if not is_pair(value):
            site = self.node_site(name, value, call.source, call.source)
            return values_of(self.lift(site, value), value)
        made = list(value)
        for end in ends:
            site = self.node_site(name, value, end, call.source)
            made[end] = values_of(self.lift(site, value[end]), value[end])
        return tuple(made)

    def apart(self, names: list[str], given: dict[str, Any]) -> str | None:
        """Why tensors of one forward cannot share a range: their magnitudes; None where they can.

        Args:
            names: Arguments with suffix.
            given: What is given for them.
        """
        source = 0 if self.layer.flow == "source_to_target" else 1
        for name in sorted({n[:-2] for n in names if n[-2:] in ("_i", "_j")}):
            value = given.get(name)
            extent = _extent(value)
            if extent == 0.0:
                continue
            site = self.node_site(name, value, source, source)
            least, most = self.course.extents.get(site, (extent, extent))
            least, most = min(least, extent), max(most, extent)
            self.course.extents[site] = least, most
            if most > STEPS_APART * least:
                return (
                    f"it propagates several times in one forward, and the largest value of {name!r}"
                    f" goes from {least:.3g} to {most:.3g}, so that one range cannot serve all "
                    "steps: use a layer per step, or APPNP, whose steps have a site each"
                )
        return None


class CallSites:
    """The sites of one call of ``propagate``, for a form.

    Args:
        sites: Of the layer.
        call: The call.
    """

    def __init__(self, sites: LayerSites, call: Call) -> None:
        self._sites, self._call = sites, call
        self._made: dict[str, AnyRows] = {}

    def rows(self, argument: str) -> AnyRows:
        """Rows of the nodes that an argument such as ``x_j`` is lifted from."""
        if argument not in self._made:
            lifted = self._sites.end(argument, self._call)
            assert lifted is not None and not isinstance(lifted.rows, Tensor)
            self._made[argument] = lifted.rows
        return self._made[argument]

    @property
    def layer(self) -> Producer:
        """The layer itself."""
        found: Producer = self._sites.layer
        return found

    @property
    def aggregation(self) -> Aggregation:
        """That of the layer."""
        found: Aggregation = self._sites.layer.aggr_module
        return found

    def weights(self, arguments: tuple[str, ...]) -> tuple[Quantizer | RowQuantizer, str]:
        """The site of numbers per edge, and its path.

        Args:
            arguments: That hold them; where there are none, any such site of the layer serves.
        """
        name = WEIGHT + arguments[0] if arguments else self._sites.weight_site
        assert name is not None
        site = self._sites.of(name)
        assert site is not None
        return site, f"{self._sites.layer.layer_name}.{name}".lstrip(".")


def values_of(lifted: Lifted | None, value: Any) -> Any:
    """The decoded values, or ``value`` where nothing was lifted."""
    return value if lifted is None else lifted.values


def _extent(value: Any) -> float:
    """Largest magnitude of the floats in an argument; 0 where there are none."""
    parts = value if isinstance(value, list | tuple) else (value,)
    floats = (t.detach() for t in parts if isinstance(t, Tensor) and t.is_floating_point())
    ends = [end for t in floats if t.numel() for end in t.aminmax()]
    return max((abs(float(end)) for end in ends), default=0.0)
