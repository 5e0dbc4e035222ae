"""What a form answers, and which one a message and an aggregation have."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, TypeVar

from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import Aggregation

from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.forms.message import Product, traced
from nodebits.nn.functional import AnyRows
from nodebits.nn.propagate.arguments import Call
from nodebits.nn.quantizers.base import Quantizer


class Sites(Protocol):
    """Where the tensors of a layer become codes."""

    def rows(self, argument: str) -> AnyRows:
        """Rows of the nodes that an argument such as ``x_j`` is lifted from."""
        ...

    def weights(self, argument: str) -> tuple[Quantizer | RowQuantizer, str]:
        """The site of numbers per edge, and its path."""
        ...


class Form(Protocol):
    """An integer form of a message and an aggregation."""

    @property
    def message(self) -> Product:
        """What the message is a product of."""
        ...

    @classmethod
    def of(cls, message: Product, aggregation: Aggregation) -> Form | None:
        """The form, where these two have it."""
        ...

    def run(self, call: Call, graph: Graph, sites: Sites) -> Tensor:
        """Aggregated messages; the same function in training and on packed rows."""
        ...


_forms: list[type[Form]] = []
F = TypeVar("F", bound=type[Form])


def register_form(cls: F) -> F:
    """Class decorator: the form is asked for every layer without one of its own."""
    _forms.append(cls)
    return cls


def form_of(layer: Any, call: Call) -> Form | None:
    """The integer form of a call of ``propagate``; None where there is none.

    Args:
        layer: A layer that passes messages.
        call: What its ``propagate`` was given.
    """
    if type(layer).aggregate is not MessagePassing.aggregate:
        return None
    message = traced(layer, call)
    if message is None:
        return None
    found = (form.of(message, layer.aggr_module) for form in _forms)
    return next((form for form in found if form is not None), None)


class Known:
    """Forms of a layer by what its calls look like: a message runs on symbols once for each.

    A form is looked for anew when a plain attribute of the layer has changed.
    """

    def __init__(self) -> None:
        self._forms: dict[Hashable, tuple[dict[str, Any], Form | None]] = {}

    def form_of(self, layer: Any, call: Call) -> Form | None:
        """See :func:`form_of`."""
        parts = sorted(call.values.items())
        looks = tuple((name, _look(value, call)) for name, value in parts)
        key = layer.training, call.source, looks
        plain = {name: value for name, value in vars(layer).items() if _is_plain(value)}
        known = self._forms.get(key)
        if known is None or known[0] != plain:
            if len(self._forms) >= _MOST:
                self._forms.clear()
            known = self._forms[key] = plain, form_of(layer, call)
        return known[1]


_PLAIN = (bool, int, float, str, type(None))
_MOST = 32


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(part, _PLAIN) for part in value)
    return isinstance(value, _PLAIN)


def _look(value: Any, call: Call) -> Hashable:
    """What of an argument a message on symbols may depend on."""
    if isinstance(value, Tensor):
        stacked = value.dim() > 2 and call.node_dim != 0
        shape = (*value.shape[:-2], value.size(-1)) if stacked else tuple(value.shape[1:])
        edges = value.dim() > 0 and value.size(0) == call.num_edges
        return value.dtype, value.dim(), shape, edges
    if isinstance(value, list | tuple):
        return tuple(_look(part, call) for part in value)
    # An object is like no other: its call is looked at every time.
    return (type(value), value) if isinstance(value, _PLAIN) else object()
