"""What every layer with sites has in common."""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nodebits.core.errors import (
    AccumulatorOverflowError,
    ConfigError,
    NotCalibratedError,
)
from nodebits.core.file_fields import Flag, Options
from nodebits.engine.sites import RowQuantizer, UnusedRows, rows_from_config
from nodebits.engine.weight import PackedWeight
from nodebits.graph.csr import Graph
from nodebits.graph.scope import graph_scope
from nodebits.nn.carry import carry_over
from nodebits.nn.placement import Placement, Protection
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer
from nodebits.nn.quantizers.weight import FloatWeightQuantizer, WeightQuantizer
from nodebits.nn.translation import not_portable


def lazy_reason(module: nn.Module) -> str | None:
    """Why a module without weights yet cannot be quantized; None where it has them."""
    if any(is_lazy(parameter) for parameter in module.parameters()):
        return "it is lazy and has no weights yet: run the float model once on real data first"
    return None


class QuantLayer(nn.Module):
    """Base of layers with sites.

    A layer is built from its float twin by :meth:`from_float`, trains with quantizers at its
    sites, and becomes its own packed form by :meth:`freeze`: the same ``forward`` on packed rows.

    What a layer is, its float twin says: everything that one has is taken over as it is, parameters
    included. A class here adds what its sites are (:meth:`place_quantizers`), what runs
    (``forward``), and which of the twin's attributes a file keeps (``options``).

    What :func:`layer_for` gives is also a subclass of the float type, so that a model which asks
    ``isinstance(layer, GCNConv)`` goes on as before. Of that type nothing runs but what this class
    does not define: its constructor does not, and what it overrides of ``nn.Module`` does not.

    Attributes:
        float_type: The type that the layer stands in for; ``nn.Module`` for none.
        quant_type: The class that :func:`register_layer` decorated; None for that class itself.
        scaling_parts: Submodules of which only numbers are read, as factors of integers.
        optional_sites: Sites that only some calls reach, see :attr:`SiteInfo.optional` and
            :meth:`unseen_sites`.
    """

    layer_type: ClassVar[str]
    # Attributes that a file keeps in the layer's config, and what they may be; a flag that names a
    # tensor says whether there is one. See core/file_fields.py.
    options: ClassVar[Options] = {}
    # Options that the float type holds under another name, or in another way.
    derived_options: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    # Shapes of the values that stay in float, as options tell them: what a file must bring.
    own_values: ClassVar[Mapping[str, Callable[[Any], tuple[int, ...]]]] = {}
    # Parameters that become codes.
    packed_parameters: ClassVar[tuple[str, ...]] = ()
    float_type: ClassVar[type[nn.Module]] = nn.Module
    quant_type: ClassVar[type[QuantLayer] | None] = None
    scaling_parts: ClassVar[tuple[str, ...]] = ()
    optional_sites: ClassVar[tuple[str, ...]] = ()
    # Whether there are messages of single edges, for hooks and explainers.
    has_messages: ClassVar[bool] = False
    # Whether its own linear maps read rows that exist in float in any case.
    maps_floats: ClassVar[bool] = False
    # Sites that a class declares and a frozen layer may be without.
    absent_sites: ClassVar[tuple[str, ...]] = ()
    protection: Protection | None = None
    # Path in the model, and whether packed results are computed at once; see engine/chain.py.
    layer_name: str = ""
    eager: bool = False
    # Why the layer computes in float although it was prepared; see nn/propagate/trial.py.
    float_reason: str = ""

    def __init__(self) -> None:
        # Not super(): the float type comes next, and would make weights.
        nn.Module.__init__(self)

    __setstate__ = nn.Module.__setstate__
    _save_to_state_dict = nn.Module._save_to_state_dict
    _load_from_state_dict = nn.Module._load_from_state_dict

    def __repr__(self) -> str:
        """One line with the widths of the sites; layers inside follow on lines of their own."""
        parts = [self.extra_repr()]
        sites = (Quantizer, RowQuantizer, WeightQuantizer, PackedWeight)
        found = {n: m.bits for n, m in self._modules.items() if isinstance(m, sites)}
        if not self.float_reason:
            idle = self.idle_sites
            named = {n: b for n, b in found.items() if n not in idle}
            shown = {n: b for n, b in named.items() if b or not n.endswith("output")}
            parts += [f"{n.replace('quantized_', '')}: {b or 32}" for n, b in shown.items()]
        text = f"{self._get_name()}({', '.join(filter(None, parts))}"
        inside = [(n, m) for n, m in self._modules.items() if m is not None and n not in found]
        lines = [textwrap.indent(f"({name}): {module!r}", "  ") for name, module in inside]
        return "\n".join([text, *lines, ")"]) if lines else f"{text})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A stand-in is made when it is needed, so it is not found by its name.
        kind = (self.quant_type or type(self), self.float_type)
        return _blank, kind, nn.Module.__getstate__(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantLayer:
        new = memo[id(self)] = _blank(self.quant_type or type(self), self.float_type)
        new.__setstate__(copy.deepcopy(nn.Module.__getstate__(self), memo))
        return new

    def __prepare_scriptable__(self) -> QuantLayer:
        """Called by ``torch.jit.script``.

        Raises:
            UnsupportedLayerError: Always.
        """
        raise not_portable("torch.jit.script", self.layer_type)

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        """Reason why ``module`` cannot be quantized, or None."""
        return None

    @classmethod
    def reads_sums(cls, module: Any) -> nn.Module | None:
        """Which linear map in a float ``module`` reads its sums over neighbours; None for none."""
        return None

    @classmethod
    def members_for(cls, float_type: type[nn.Module]) -> dict[str, Any]:
        """What a stand-in for ``float_type`` defines beside what both classes do."""
        return {}

    @classmethod
    def from_float(cls, module: Any, path: str, place: Placement) -> QuantLayer:
        """Builds the layer; parameters are shared with ``module``."""
        layer = cls()
        layer._take(module)
        for name, value in cls.derived_options.items():
            setattr(layer, name, value(module))
        layer.place_quantizers(place, path)
        for child in layer.children():
            if isinstance(child, Quantizer | WeightQuantizer):
                child.train(module.training)
        return layer

    def place_quantizers(self, place: Placement, path: str) -> None:
        """Asks the method for the quantizers of this layer.

        Args:
            place: The method.
            path: Path of the layer.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Options of the layer as JSON (sites apart)."""
        found = {name: getattr(self, name) for name in self.options}
        for name, field in self.options.items():
            if isinstance(field, Flag) and not isinstance(found[name], bool):
                found[name] = found[name] is not None
        return found

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantLayer:
        """A layer with these options and no sites: the first half of loading."""
        layer = cls()
        for name, value in config.items():
            if name not in cls.own_values:
                setattr(layer, name, value)
        for name in cls.packed_parameters:
            layer._parameters[name] = None
        for name, shape in cls.own_values.items():
            absent = config.get(name) is False
            layer._parameters[name] = None if absent else nn.Parameter(torch.zeros(shape(layer)))
        return layer

    def site_names(self) -> list[str]:
        """Attribute names of the activation sites."""
        return [
            name
            for name, child in self.named_children()
            if isinstance(child, Quantizer | RowQuantizer)
        ]

    def required_sites(self) -> set[str]:
        """Sites that a frozen layer runs with: a file must bring them."""
        declared = {
            name
            for cls in type(self).__mro__
            for name, kind in inspect.get_annotations(cls).items()
            if "RowQuantizer" in str(kind) or "PackedWeight" in str(kind)
        }
        return declared - set(self.absent_sites)

    @property
    def idle_sites(self) -> tuple[str, ...]:
        """Sites that may be reached and were not so far: not shown."""
        return ()

    def check_loaded(self) -> None:
        """Refuses parts whose shapes, read from a file, do not fit each other.

        Raises:
            FileFormatError: Says which.
        """

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        """The sites that read the layer's input rows: what can be packed ahead of a forward."""
        raise NotImplementedError

    def adopt(self, module: Any) -> None:
        """Takes over from the float twin what a file does not describe.

        Raises:
            ConfigError: If the twin is another layer than that of the file.
        """
        self._take(module)

    def _take(self, module: nn.Module) -> None:
        """Takes over all that ``module`` is, but for sites and what this layer has already."""
        carry_over(module, self)

    def unseen_sites(self) -> list[str]:
        """Names of the sites that have no range yet and need one to be frozen."""
        unseen = []
        for name in self.site_names():
            site = getattr(self, name)
            if name not in self.optional_sites and isinstance(site, Quantizer):
                try:
                    site.freeze()
                except NotCalibratedError:
                    unseen.append(name)
        return unseen

    def leave_float(self) -> None:
        """Takes every quantizer out: what is frozen then computes in float."""
        for name, child in list(self.named_children()):
            if isinstance(child, Quantizer):
                setattr(self, name, FloatQuantizer())
            elif isinstance(child, WeightQuantizer):
                setattr(self, name, FloatWeightQuantizer())
        self.eval()

    def freeze(self) -> None:
        """Replaces every quantizer by its inference form; float weights are dropped."""
        for name in self.site_names():
            site = getattr(self, name)
            if isinstance(site, Quantizer):
                try:
                    setattr(self, name, site.freeze())
                except NotCalibratedError:
                    if name not in self.optional_sites:
                        raise
                    setattr(self, name, UnusedRows())
        self.protection = None

    def sites_config(self) -> dict[str, Any]:
        """JSON of the frozen sites and weights of this layer."""
        result: dict[str, Any] = {}
        for name, child in self.named_children():
            if isinstance(child, RowQuantizer):
                result[name] = child.to_json()
            elif isinstance(child, PackedWeight):
                result[name] = child.config()
        return result

    def load_sites(self, config: dict[str, Any]) -> None:
        """Builds frozen sites from :meth:`sites_config`; ``load_state_dict`` fills them."""
        for name, site in config.items():
            setattr(
                self, name, rows_from_config(site) if "kind" in site else PackedWeight.build(site)
            )

    @contextmanager
    def layer_scope(self, graph: Graph) -> Iterator[None]:
        """Opens the scope of a convolution: its graph, and a fresh draw of protected rows."""
        protected = None
        try:
            with graph_scope(graph=graph) as scope:
                if self.training and self.protection is not None:
                    protected = self.protection.draw(graph, scope.batch)
                if protected is None:
                    yield
                else:
                    with graph_scope(protected=protected):
                        yield
        except AccumulatorOverflowError as error:
            raise AccumulatorOverflowError(f"layer {self.described}: {error}") from None

    @property
    def described(self) -> str:
        """Path and class of the float layer, for messages."""
        return f"{self.layer_name!r} ({self.layer_type})"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantLayer:
        """What ``to``, ``half`` and ``double`` call.

        Raises:
            ConfigError: If it would change the type of floats.
        """

        def checked(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            if tensor.is_floating_point() and result.dtype != tensor.dtype:
                raise ConfigError(
                    f"layer {self.described} computes in {tensor.dtype}, not in {result.dtype}: "
                    "leave the model in float32 (under torch.autocast its quantized layers stay "
                    "so by themselves)"
                )
            return result

        super()._apply(checked, recurse)  # type: ignore[no-untyped-call]
        return self

    def reset_parameters(self) -> None:
        """Forgets observed ranges, and draws parameters anew as the float type does."""
        for child in self.children():
            if isinstance(child, Quantizer | WeightQuantizer):
                child.reset()
        draw = getattr(self.float_type, "reset_parameters", None)
        if draw is not None:
            draw(self)


_stand_ins: dict[tuple[type[QuantLayer], type[nn.Module]], type[QuantLayer]] = {}


def stand_in(quant_type: type[QuantLayer], float_type: type[nn.Module]) -> type[QuantLayer]:
    """``quant_type`` as a subclass of ``float_type``: the same one at every call."""
    known = _stand_ins.get((quant_type, float_type))
    if known is not None:
        return known
    members = {
        "__module__": quant_type.__module__,
        "__doc__": quant_type.__doc__,
        "float_type": float_type,
        "quant_type": quant_type,
        **quant_type.members_for(float_type),
    }
    made = type(quant_type.__name__, (quant_type, float_type), members)
    return _stand_ins.setdefault((quant_type, float_type), made)


def _blank(quant_type: type[QuantLayer], float_type: type[nn.Module]) -> QuantLayer:
    """A layer without state, to be filled by ``copy`` or ``pickle``."""
    cls = quant_type if float_type is nn.Module else stand_in(quant_type, float_type)
    return cls.__new__(cls)
