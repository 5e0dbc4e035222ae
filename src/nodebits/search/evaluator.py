"""Quality of a bit table without training: the float model is calibrated once for all tables.

Every site's float tensor is kept from one forward; a quantizer is made and calibrated on it when a
width is first asked for, and put in place for the evaluations that follow. A table then costs one
forward of the simulated model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from nodebits.core.context import Context
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph, graph_scope
from nodebits.graph.scope import current_scope
from nodebits.methods import QuantConfig, UniformConfig, calibrate, prepare
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import FloatQuantizer, FloatWeightQuantizer, Quantizer, WeightQuantizer
from nodebits.runtime import Account, PackedModel, convert
from nodebits.search.space import Point, Space
from nodebits.tasks import Metrics
from nodebits.train import Problem
from nodebits.train.evaluate import forward_of
from nodebits.train.inputs import Inputs
from nodebits.train.problem import Split

# Quantizers with widths per degree bucket that are kept at each site.
MIXED_KEPT = 4


@dataclass(frozen=True)
class _Recorder(UniformConfig):
    """Leaves every site in float and remembers which site each quantizer sits at."""

    found: list[tuple[SiteInfo, nn.Module]] = field(default_factory=list)

    def activation(self, site: SiteInfo) -> Quantizer:
        quantizer = FloatQuantizer()
        self.found.append((site, quantizer))
        return quantizer

    def weight(self, site: SiteInfo) -> WeightQuantizer:
        quantizer = FloatWeightQuantizer()
        self.found.append((site, quantizer))
        return quantizer


@dataclass
class _Place:
    """A site of the working copy: its layer, the attribute there, and what it saw in float."""

    site: SiteInfo
    layer: nn.Module
    attribute: str
    seen: Tensor | None = None
    scope: Context = field(default_factory=Context)


class Evaluator:
    """Evaluates points of a space on the validation split.

    Args:
        model: Trained float model.
        problem: Data and split.
        space: What may be chosen; None to ask :meth:`account` for the sites first.
    """

    def __init__(self, model: nn.Module, problem: Problem, space: Space | None = None) -> None:
        self.float_model, self.problem, self.space = model, problem, space
        recorder = _Recorder(bits=32, attention_bits=32)
        self._model = prepare(model, recorder).eval()
        self._places = _places(self._model, recorder)
        self._bank: dict[tuple[str, int | tuple[int, ...] | None], nn.Module] = {}
        self._capture()
        self._example = problem.example("val")

    def _capture(self) -> None:
        hooks = []
        for place in self._places:
            module = getattr(place.layer, place.attribute)
            if place.site.kind == "output":  # a float result does not pass its site
                hooks.append(place.layer.register_forward_hook(partial(_keep_result, place)))
            elif isinstance(module, Quantizer):
                hooks.append(module.register_forward_pre_hook(partial(_keep, place)))
        try:
            step = next(iter(self.problem.steps(1024, torch.Generator().manual_seed(0))))
            step.inputs.call(partial(calibrate, self._model), self._model)
        finally:
            for hook in hooks:
                hook.remove()

    def _put(self, config: QuantConfig) -> None:
        """Puts the quantizers of ``config`` in place."""
        for place in self._places:
            attribute = place.attribute
            if place.site.kind == "weight":
                key = (place.site.path, config.bits_at(place.site))
                if key not in self._bank:
                    self._bank[key] = config.weight(place.site)
                quantizer = self._bank[key]
                if place.site.name.startswith("att_weight"):
                    # Its matrix holds the message's scale, which other tables change.
                    assert isinstance(quantizer, WeightQuantizer)
                    quantizer.reset()
            else:
                quantizer = self._activation(place, config)
            setattr(place.layer, attribute, quantizer)

    def _activation(self, place: _Place, config: QuantConfig) -> nn.Module:
        widths = getattr(config, "widths_at", lambda site: None)(place.site)
        key = (place.site.path, widths or config.bits_at(place.site))
        if widths is not None and key not in self._bank:
            # Widths per bucket are many, and each quantizer may remember codes of its input.
            mine = [k for k in self._bank if k[0] == key[0] and isinstance(k[1], tuple)]
            for old in mine[: len(mine) - MIXED_KEPT + 1]:
                del self._bank[old]
        if key not in self._bank:
            quantizer = config.activation(place.site).eval()
            if place.seen is not None:
                quantizer.calibrating = True
                with torch.no_grad(), graph_scope(graph=place.scope.graph, batch=place.scope.batch):
                    quantizer(place.seen)
                quantizer.calibrating = False
            self._bank[key] = quantizer
        return self._bank[key]

    def metrics(self, config: QuantConfig, split: Split = "val") -> Metrics:
        """Metric and loss of the simulated model with the widths of ``config``."""
        self._put(config)
        return self.problem.metrics(forward_of(self._model), split)

    def point_metrics(self, point: Point) -> Metrics:
        """Validation metric and loss of a point of the space."""
        assert self.space is not None
        return self.metrics(self.space.config(point))

    def packed(self, config: QuantConfig) -> PackedModel:
        """The packed model with the widths of ``config``, calibrated but not trained."""
        self._put(config)
        with torch.no_grad():
            # Attention vectors take their scale from the first forward.
            self._example.apply(self._model)
        return convert(self._model)

    def example(self) -> Inputs:
        """The forward that bytes and latencies are those of."""
        return self._example

    def graph(self) -> Graph | None:
        """Graph of the example, as the layers' scope sees it."""
        graphs: list[Graph | None] = [place.scope.graph for place in self._places]
        return next((graph for graph in graphs if graph is not None), None)

    def account(self, config: QuantConfig) -> Account:
        """Counts the bytes of the packed model in one forward."""
        return self._example.call(self.packed(config).account)  # type: ignore[no-any-return]

    def frozen(self, config: QuantConfig, path: str) -> RowQuantizer | None:
        """The inference form of an activation site; None where it needs no data (softmax)."""
        for place in self._places:
            if place.site.path == path and place.seen is not None:
                quantizer = self._activation(place, config)
                assert isinstance(quantizer, Quantizer)
                return quantizer.freeze()
        return None


def _keep(place: _Place, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    place.seen, place.scope = arguments[0], current_scope()


def _keep_result(
    place: _Place, layer: nn.Module, arguments: tuple[object, ...], result: Tensor
) -> None:
    place.seen, place.scope = result, current_scope()


def _places(model: nn.Module, recorder: _Recorder) -> list[_Place]:
    known = {id(quantizer): site for site, quantizer in recorder.found}
    return [
        _Place(known[id(child)], layer, name)
        for layer in model.modules()
        for name, child in layer.named_children()
        if id(child) in known
    ]
