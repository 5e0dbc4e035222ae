"""The messages of one call, aggregated as integers where the layer has a form for that."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from nodebits.core.errors import AccumulatorOverflowError, FloatSumWarning, indices_of
from nodebits.graph import Graph, as_graph
from nodebits.nn.forms import Form
from nodebits.nn.forms.sums import Sum
from nodebits.nn.propagate.arguments import Call
from nodebits.nn.propagate.sites import MESSAGE, WEIGHT, CallSites, LayerSites
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.ranged import RangeQuantizer


def graph_of(layer: Any, call: Call) -> Graph:
    """The graph of a call of a layer.

    Raises:
        NodeIndexError: If an edge names a node that is not there; names the layer.
    """
    with indices_of(lambda: f"layer {layer.described}: "):
        return as_graph(call.directed(), *call.counts())


def updates_alone(layer: Any) -> bool:
    """Whether ``update`` asks for nothing that PyG itself makes."""
    asked = layer.inspector.get_param_names("update")
    return not any(n in layer.special_args or n[-2:] in ("_i", "_j") for n in asked)


def summed(sites: LayerSites, call: Call, watched: bool) -> Tensor | None:
    """Messages aggregated as integers; None where that is not what the layer runs.

    Args:
        sites: Of the layer.
        call: What its ``propagate`` was given.
        watched: Whether someone looks at messages of single edges.
    """
    form = _form(sites, call, watched)
    if form is None:
        return None
    graph, own = graph_of(sites.layer, call), CallSites(sites, call)
    with sites.layer.layer_scope(graph):
        _tell_weighed(sites, form)
        rows = own.rows(form.message.rows)
        if not form.fits(rows) or (rows.by_row and sites.weight_site is None):
            sites.course.sums = False
            return None
        try:
            return form.run(call, graph, own)
        except AccumulatorOverflowError as error:  # tiles of floats have no such bound
            _tell(sites, "overflow", str(error))
            return None


def _tell_weighed(sites: LayerSites, form: Form) -> None:
    """Tells the sites of a sum whether scales of rows may be part of weights of edges.

    Where there are weights they cost little more. Where a forward rounds in several steps, whose
    errors add up, a sum without weights gets some.
    """
    name = f"{MESSAGE}{form.message.rows[:-2]}_1"
    several = sites.of(name) is not None and sites.weight_site is not None
    weighed = isinstance(form, Sum) and (bool(form.message.weights) or several)
    for site in sites.layer.children():
        if isinstance(site, RangeQuantizer):
            site.weighed = weighed


def _tell(sites: LayerSites, kind: str, reason: str) -> None:
    """Says, once for a kind of reason, that a layer of integer sums runs on decoded rows."""
    course = sites.course
    course.unsummed = kind
    if kind not in course.told:
        course.told.add(kind)
        warnings.warn(
            f"layer {sites.layer.described} adds decoded rows as floats, not codes as integers: "
            f"{reason}",
            FloatSumWarning,
            stacklevel=2,
        )


def _form(sites: LayerSites, call: Call, watched: bool) -> Form | None:
    """The integer form of a call, if the layer has one and nothing stands in its way."""
    layer, course = sites.layer, sites.course
    if course.sums is False:
        return None
    if watched:
        course.unsummed = "watched"
        return None
    form = course.known.form_of(layer, call) if updates_alone(layer) else None
    needed = () if form is None else form.message.weights[:1]
    missing = [name for name in needed if sites.of(WEIGHT + name) is None]
    trained = any(isinstance(site, Quantizer) for site in layer.children())
    if course.sums and not trained and (form is None or missing):
        _tell(
            sites,
            "other message",
            f"it had no {missing[0]!r} when its ranges were taken: calibrate with it"
            if missing
            else "with these arguments its message is no product of rows and numbers per edge",
        )
    form = None if missing else form
    if course.sums is None or (trained and form is None):
        course.sums = form is not None
    if trained and form is not None:
        course.weights = list(dict.fromkeys([*course.weights, *needed]))
    return form
