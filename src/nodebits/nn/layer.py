"""What every layer with sites has in common, and the registry of such layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from nodebits.core.errors import UnknownNameError
from nodebits.core.fields import Options
from nodebits.graph.csr import Graph
from nodebits.graph.scope import graph_scope
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.rows import RowQuantizer, rows_from_config
from nodebits.nn.quantizers.weight import PackedWeight, WeightQuantizer


@dataclass(frozen=True)
class SiteInfo:
    """Where a quantizer is wanted.

    Attributes:
        layer: Path of the layer in the model, such as ``convs.0.lin``.
        layer_type: Class name of the float layer.
        kind: ``input``, ``weight``, ``message``, ``attention`` or ``output``.
        name: Name of the site in its layer; equals the kind but for GAT's ``att_weight``.
        num_cols: Columns of the tensor (for weights: K, its inputs).
        num_channels: For weights: output channels, M.
    """

    layer: str
    layer_type: str
    kind: str
    name: str
    num_cols: int
    num_channels: int = 0

    @property
    def path(self) -> str:
        """``layer.name``, what overrides match."""
        return f"{self.layer}.{self.name}" if self.layer else self.name


class Placement(Protocol):
    """A method's answer to: which quantizer sits here?"""

    def activation(self, site: SiteInfo) -> Quantizer:
        """Quantizer for rows."""
        ...

    def weight(self, site: SiteInfo) -> WeightQuantizer:
        """Quantizer for weights."""
        ...


class Protection(Protocol):
    """Draws the rows of a layer that stay in float in this training step."""

    def draw(self, graph: Graph, batch: Tensor | None) -> Tensor | None:
        """Returns bool ``[num_src]``, or None for no protection."""
        ...


class QuantLayer(nn.Module):
    """Base of layers with sites.

    A layer is built from its float twin by :meth:`from_float`, trains with quantizers at its
    sites, and becomes its own packed form by :meth:`freeze`: the same ``forward`` on packed rows.
    """

    layer_type: ClassVar[str]
    # What a file may say in the layer's config; see core/fields.py.
    options: ClassVar[Options] = {}
    # Sites that a layer may be without, of those that its class declares.
    optional_sites: ClassVar[tuple[str, ...]] = ()
    protection: Protection | None = None
    # Path in a packed model, and whether its results are computed at once; see nn/chain.py.
    layer_name: str = ""
    eager: bool = False

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        """Reason why ``module`` cannot be quantized, or None."""
        return None

    @classmethod
    def from_float(cls, module: Any, path: str, place: Placement) -> QuantLayer:
        """Builds the layer; parameters are shared with ``module``."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Options of the layer as JSON (sites apart)."""
        raise NotImplementedError

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantLayer:
        """A layer with these options and no sites: the first half of loading."""
        raise NotImplementedError

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
        return declared - set(self.optional_sites)

    def check_loaded(self) -> None:
        """Refuses parts whose shapes, read from a file, do not fit each other.

        Raises:
            FileFormatError: Says which.
        """

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        """The sites that read the layer's input rows: what can be packed ahead of a forward."""
        raise NotImplementedError

    def adopt(self, module: Any) -> None:
        """Takes over the float twin's submodules, which a file does not describe."""

    def fold_affine(self, scale: Tensor, shift: Tensor) -> bool:
        """Takes a following ``y * scale + shift`` (a batch norm) into the frozen layer.

        Args:
            scale: float32 ``[C]``, per output column.
            shift: float32 ``[C]``.

        Returns:
            Whether the layer could; False leaves the norm as a module.
        """
        return False

    def freeze(self) -> None:
        """Replaces every quantizer by its inference form; float weights are dropped."""
        for name in self.site_names():
            site = getattr(self, name)
            if isinstance(site, Quantizer):
                setattr(self, name, site.freeze())
        self.protection = None

    def sites_config(self) -> dict[str, Any]:
        """JSON of the frozen sites and weights of this layer."""
        result: dict[str, Any] = {}
        for name, child in self.named_children():
            if isinstance(child, RowQuantizer | PackedWeight):
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
        with graph_scope(graph=graph) as scope:
            if self.training and self.protection is not None:
                protected = self.protection.draw(graph, scope.batch)
            if protected is None:
                yield
            else:
                with graph_scope(protected=protected):
                    yield

    def reset_parameters(self) -> None:
        """Forgets observed ranges; layers with parameters also draw them anew."""
        for child in self.children():
            if isinstance(child, Quantizer | WeightQuantizer):
                child.reset()


_by_float_type: dict[type[nn.Module], type[QuantLayer]] = {}
_by_name: dict[str, type[QuantLayer]] = {}
L = TypeVar("L", bound=type[QuantLayer])


def register_layer(*float_types: type[nn.Module]) -> Callable[[L], L]:
    """Class decorator: the layer replaces modules of exactly these types."""

    def decorate(cls: L) -> L:
        for float_type in float_types:
            _by_float_type[float_type] = cls
        _by_name[cls.__name__] = cls
        return cls

    return decorate


def layer_for(module: nn.Module) -> type[QuantLayer] | None:
    """The class that replaces ``module``, by exact type: a subclass may compute otherwise."""
    return _by_float_type.get(type(module))


def layer_by_name(name: str) -> type[QuantLayer]:
    """The layer class of a file.

    Raises:
        UnknownNameError: If this version does not know it.
    """
    if name not in _by_name:
        raise UnknownNameError.for_name("layer", name, _by_name)
    return _by_name[name]


def supported_layers() -> list[str]:
    """Names of the float layers that have a quantized form."""
    return sorted({f"{t.__module__.split('.')[0]}.{t.__name__}" for t in _by_float_type})
