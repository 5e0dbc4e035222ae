"""What a form answers, and which one a message and an aggregation have."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import Aggregation

from nodebits.engine.chain import Producer
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

    def weights(self, arguments: tuple[str, ...]) -> tuple[Quantizer | RowQuantizer, str]:
        """The site of numbers per edge that are these arguments, or none; and its path."""
        ...

    @property
    def layer(self) -> Producer:
        """Whose results may wait for their reader."""
        ...

    @property
    def aggregation(self) -> Aggregation:
        """That of the layer."""
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

    @classmethod
    def runs(cls, aggregation: Aggregation) -> str | None:
        """What a layer with this aggregation is said to run; None where it has another form."""
        ...

    def fits(self, rows: AnyRows) -> bool:
        """Whether it can be computed on the codes of such rows."""
        ...

    def run(self, call: Call, graph: Graph, sites: Sites) -> Tensor:
        """Aggregated messages; the same function in training and on packed rows."""
        ...


_forms: list[type[Form]] = []
SUM = "integer sum"
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


def runs_of(layer: Any) -> str:
    """What a layer whose messages have a form is said to run."""
    found = (form.runs(layer.aggr_module) for form in _forms)
    return next((said for said in found if said is not None), SUM)


def may_have_form(layer: Any) -> bool:
    """Whether some call could have an integer form, as far as can be told without data.

    A message is tried on rows of several widths, with numbers per edge or without.
    """
    reads = layer.inspector.get_param_names("message", exclude=layer.special_args)
    names = [name[:-2] if name[-2:] in ("_i", "_j") else name for name in reads]
    out = getattr(layer, "out_channels", None)
    out = out if isinstance(out, int) and out > 0 else 6
    heads = getattr(layer, "heads", None)
    heads = heads if isinstance(heads, int) and heads > 0 else 1
    rows = {(6,), (out,), (heads * out,), (heads, out)}
    numbers = [None, *{(), (heads,)}]
    lifted = {name[:-2]: name[-1] for name in reads if name[-2:] in ("_i", "_j")}
    for width, shape in itertools.product(rows, numbers):
        values: dict[str, Any] = {}
        for name in names:
            if lifted.get(name) == "j":
                values[name] = torch.empty(3, *width, device="cpu")
            elif shape is not None:
                values[name] = torch.empty(3 if name in lifted else 2, *shape, device="cpu")
            else:
                values[name] = None
        edges = torch.zeros(2, 2, dtype=torch.int64, device="cpu")
        if form_of(layer, Call(edges, (3, 3), values, 0, 0)) is not None:
            return True
    return False


class Known:
    """Forms of a layer by what its calls look like: a message runs on symbols once for each.

    A form is looked for anew when a plain attribute of the layer has changed.
    """

    def __init__(self) -> None:
        self._forms: dict[Hashable, tuple[dict[str, Any], Form | None]] = {}

    def form_of(self, layer: Any, call: Call) -> Form | None:
        """What :func:`form_of` finds, if such a call was not looked at before."""
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
