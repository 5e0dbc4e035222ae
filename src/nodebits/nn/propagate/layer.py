"""The class that takes the place of any layer of PyG that passes messages."""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import is_sparse

from nodebits.core.errors import ConfigError, GraphError, ShapeError
from nodebits.core.file_fields import FLAG, Choice, ListOf, Optional, Options, Text
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.sites import RowQuantizer, UnusedRows
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.nn.forms import may_have_form, runs_of
from nodebits.nn.layer import QuantLayer, lazy_reason
from nodebits.nn.placement import UNKNOWN_COLUMNS, Placement, SiteInfo
from nodebits.nn.propagate import arguments
from nodebits.nn.propagate.by_type import forward_of
from nodebits.nn.propagate.runner import Runner
from nodebits.nn.propagate.sites import (
    AT_ONCE,
    MESSAGE,
    TILED,
    UNTRIED,
    WEIGHT,
    Course,
)
from nodebits.nn.propagate.steps import steps_of
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_general
from nodebits.nn.translation import refuse_translation

_SITES = (Quantizer, RowQuantizer, WeightQuantizer, PackedWeight)
# Arguments of forwards that have an entry for every edge.
_OF_EDGES = ("edge_weight", "edge_attr", "edge_type")
_CONTAINERS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@register_general(MessagePassing)
class QuantMessagePassing(QuantLayer):
    """A layer whose ``propagate`` reads its nodes and edge features as codes.

    The class is made from this one and the layer's own; constructor, ``forward``, ``message``,
    ``aggregate`` and ``update`` are the layer's. Sites: ``message_x`` for every tensor ``x`` that
    is lifted to edges (``x_j``, ``x_i``), ``message_x_dst`` for targets that are not the sources,
    ``message_edge_attr`` for every argument with several floats per edge. Values of single floats
    per edge, what ``edge_updater`` returned, and parameters of the layer stay in float; linear
    maps inside it have sites of their own.

    In evaluation without gradients the functions run on tiles of edges, see :mod:`.tiles`, if a
    trial on the first batch finds that they may (:mod:`.trial`). Results are then those of all
    edges at once, to the rounding of float sums.
    """

    layer_type = "MessagePassing"
    has_messages: ClassVar[bool] = True
    options: ClassVar[Options] = {
        "type": Text(),
        "form": Choice((UNTRIED, TILED, AT_ONCE)),
        # Files of older versions have no integer sums in these layers.
        "sums": Optional(Optional(FLAG), absent=True),
        "weights": Optional(ListOf(Text()), absent=True),
        "edges": ListOf(Text()),
        "float_reason": Text(),
    }
    course: Course
    inspector: Any
    flow: str
    node_dim: int

    @classmethod
    def members_for(cls, float_type: type[nn.Module]) -> dict[str, Any]:
        """``forward`` with the signature of the layer's own."""
        own = forward_of(float_type)
        names = list(inspect.signature(float_type.forward).parameters)[1:]

        @functools.wraps(float_type.forward)
        def forward(self: QuantMessagePassing, *args: Any, **keywords: Any) -> Any:
            refuse_translation("a quantized convolution")
            args = tuple(_argument(self, value) for value in args)
            keywords = {name: _argument(self, value) for name, value in keywords.items()}
            _check_rows_of_edges(self, {**dict(zip(names, args, strict=False)), **keywords})
            self.course.forget()
            self.course.unsummed = ""
            try:
                return own(self, *args, **keywords)
            finally:
                self.course.forget()

        return {"forward": forward}

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        lazy = lazy_reason(module)
        if lazy is not None:
            return lazy
        for kind in type(module).__mro__:
            if kind is MessagePassing:
                break
            for name in ("propagate", "edge_updater", "_collect"):
                own = vars(kind).get(name)
                if own is not None and own.__module__ == kind.__module__:
                    return f"{kind.__name__} defines {name}() itself"
        inspector: Any = module.inspector
        # One by one: functions may give what PyG fills, such as ptr, other types or defaults.
        functions = ("message", "aggregate", "update")
        if any("adj_t" in inspector.get_param_names(name, exclude=()) for name in functions):
            return "its functions ask for the adjacency as a sparse matrix (adj_t)"
        read = arguments.reads(_all_arguments(module))
        if not read.lifted:
            return "its message() asks for no tensor of nodes (x_j, x_i)"
        return None

    def place_quantizers(self, place: Placement, path: str) -> None:
        read = arguments.reads(_all_arguments(self))
        steps, certain = steps_of(self)
        plain = not may_have_form(self)
        later = [f"{name}_{step}" for name in read.lifted for step in range(1, steps)]
        optional = [f"{name}_dst" for name in read.lifted if name in read.both]
        optional += read.plain
        for name in (*read.lifted, *later, *optional):
            unsure = name in optional or (name in later and not certain)
            site = MESSAGE + name
            info = SiteInfo(
                path, self.layer_type, "message", site, UNKNOWN_COLUMNS, 0, unsure, plain, True
            )
            setattr(self, site, place.activation(info))
        weights = arguments.reads(arguments.message_arguments(self)).plain
        for name in weights:
            info = SiteInfo(path, self.layer_type, "attention", WEIGHT + name, 1)
            setattr(self, WEIGHT + name, place.activation(info))
        self.__dict__["optional_sites"] = (
            *(MESSAGE + name for name in (*later, *optional)),
            *(WEIGHT + name for name in weights),
        )

    def __init__(self) -> None:
        super().__init__()
        self.course = Course()

    def _take(self, module: nn.Module) -> None:
        # Whatever it is called: the class is the user's, and so are its names.
        for name, value in vars(module).items():
            if name in ("propagate", "edge_updater", "course"):
                continue
            if name.startswith("_cached"):
                value = None  # results for one graph, of the float layer
            self.__dict__[name] = value.copy() if name in _CONTAINERS else value
        for name, child in list(self._modules.items()):
            if isinstance(child, _SITES):
                del self._modules[name]
        self.__dict__["layer_type"] = getattr(module, "layer_type", type(module).__name__)
        # A matrix of edges goes through the messages too.
        self.__dict__["fuse"] = False
        super()._take(module)

    def _get_name(self) -> str:
        return f"Quant{self.layer_type}"

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"runs {self.runs}"

    @property
    def runs(self) -> str:
        """Its integer form, ``tiled``, ``at once`` or ``float``: how it was run, or will be."""
        if self.float_reason:
            return "float"
        return runs_of(self) if self._sums else self._functions_run

    @property
    def _sums(self) -> bool:
        return bool(self.course.sums) and not self.course.unsummed

    @property
    def _functions_run(self) -> str:
        return TILED if self.course.form == TILED else AT_ONCE

    def runs_at(self, site: str) -> str:
        """What reads the codes of a site; where that is both, the sum.

        Args:
            site: Its name.
        """
        if self.float_reason or not self._sums or site.startswith(WEIGHT):
            return self.runs
        read = arguments.reads(arguments.message_arguments(self))
        summed = any(site.startswith(MESSAGE + name) for name in read.lifted)
        return runs_of(self) if summed else self._functions_run

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        """See :meth:`QuantLayer.input_sites`: none, ``forward`` is the float layer's."""
        return []

    # --- files ---

    def config(self) -> dict[str, Any]:
        kind = self.float_type
        return {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "form": self.course.form,
            "sums": self.course.sums,
            "weights": self.course.weights,
            "edges": self.course.edges,
            "float_reason": self.float_reason,
        }

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantMessagePassing:
        layer = cls()
        sums = config.get("sums", False)
        weights = list(config.get("weights", ()))
        layer.course = Course(str(config["form"]), sums, list(config["edges"]), weights)
        layer.float_reason = str(config["float_reason"])
        layer.__dict__["expected_type"] = str(config["type"])
        return layer

    def adopt(self, module: Any) -> None:
        """See :meth:`QuantLayer.adopt`; the layer must be of the type in the file."""
        reason = self.float_reason
        expected = self.__dict__.pop("expected_type", "")
        found = module.float_type if isinstance(module, QuantLayer) else type(module)
        if expected and expected.rpartition(".")[2] != found.__name__:
            raise ConfigError(f"it is a {found.__name__} in the module, a {expected} in the file")
        super().adopt(module)
        self.float_reason = reason

    # --- sites ---

    def unseen_sites(self) -> list[str]:
        """None where one site of the layer has seen data: arguments may be missing."""
        unseen = super().unseen_sites()
        needed = [name for name in self.site_names() if name not in self.optional_sites]
        return unseen if len(unseen) == len(needed) else []

    def freeze(self) -> None:
        """Leaves out what was never given."""
        self.__dict__["optional_sites"] = tuple(self.site_names())
        super().freeze()
        if self.course.sums is False:
            for name in self.idle_sites:
                setattr(self, name, UnusedRows())

    @property
    def idle_sites(self) -> tuple[str, ...]:
        """See :meth:`QuantLayer.idle_sites`: what an integer sum does not read as codes."""
        used = [WEIGHT + name for name in self.course.weights] if self.course.sums else []
        idle = [n for n in self.site_names() if n.startswith(WEIGHT) and n not in used]
        if self.course.sums:
            sites = {n: getattr(self, n) for n in self.site_names() if n.startswith(MESSAGE)}
            idle += [
                name
                for name, site in sites.items()
                if isinstance(site, Quantizer) and site.last_shape is None
            ]
        return tuple(idle)

    def leave_float(self) -> None:
        super().leave_float()
        self.float_reason = self.float_reason or "no data passed it before the model was converted"

    def required_sites(self) -> set[str]:
        """See :meth:`QuantLayer.required_sites`: those of the arguments that tensors have."""
        return set()

    # --- what PyG calls ---

    def propagate(self, edge_index: Any, size: Any = None, **keywords: Any) -> Any:
        """Runs message, aggregation and update as PyG's layer would, on rows at sites."""
        return Runner(self).propagate(edge_index, size, keywords)

    def edge_updater(self, edge_index: Any, size: Any = None, **keywords: Any) -> Any:
        """Runs ``edge_update`` as PyG's layer would, on rows at sites."""
        return Runner(self).edge_updater(edge_index, size, keywords)

    # What PyG puts on a layer that an explainer masks, and takes off it again.
    _orig_propagate = _jinja_propagate = propagate
    _orig_edge_updater = _jinja_edge_updater = edge_updater

    def _collect(self, args: Any, edge_index: Any, size: Any, kwargs: dict[str, Any]) -> Any:
        return Runner(self).collect(args, edge_index, size, kwargs)


def _argument(layer: QuantMessagePassing, value: Any) -> Any:
    """What ``forward`` is given, in a form that PyG's layers know.

    Raises:
        ConfigError: If it is features packed ahead.
        GraphError: If it is a graph with edge weights.
    """
    if isinstance(value, PackedInput):
        raise ConfigError(
            f"layer {layer.described} takes no features packed ahead: its forward is the float "
            "layer's; pass the float matrix"
        )
    if isinstance(value, Graph):
        if value.edge_weight is not None:
            raise GraphError(
                f"layer {layer.described} takes edge weights beside the edges: prepare the graph "
                "without them and pass edge_weight"
            )
        return value.cached("edge_index", value.edge_index)
    return value


def _check_rows_of_edges(layer: QuantMessagePassing, given: dict[str, Any]) -> None:
    """Raises ShapeError where weights or features of edges are of another number than the edges."""
    edges = given.get("edge_index")
    if not isinstance(edges, Tensor) or is_sparse(edges) or edges.dim() != 2:
        return
    for name in _OF_EDGES:
        value = given.get(name)
        if isinstance(value, Tensor) and value.dim() and value.size(0) != edges.size(1):
            raise ShapeError(
                f"layer {layer.described} got {name!r} of shape {list(value.shape)} for "
                f"{edges.size(1)} edges: it has a row for every edge"
            )


def _all_arguments(module: Any) -> list[str]:
    return [*arguments.message_arguments(module), *arguments.edge_arguments(module)]
