"""EdgeConv (Wang et al. 2019) with one linear map: products of nodes, and a reduction of codes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv

from nodebits.core.file_fields import Options
from nodebits.engine.reductions import occupied
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.conv import QuantConv, check_width, is_stack, split_pair
from nodebits.nn.functional import aggregate, quantize_rows
from nodebits.nn.layer import lazy_reason
from nodebits.nn.linear import requantize
from nodebits.nn.modulation import modulated_sum
from nodebits.nn.pair_linear import QuantPairLinear, pair_map
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.reductions import extremum
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import hooked

_SUMS, _EXTREMES = ("add", "sum", "mean"), ("max", "min")
# That never fall: the largest of their results is that of the largest.
_MONOTONE = (nn.ReLU, nn.ReLU6, nn.ELU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Hardtanh)


def _parts(module: Any) -> tuple[str, nn.Module, list[nn.Module]] | None:
    """Where the linear map of a layer's ``nn`` is, it, and what follows; None for others."""
    inner = module.nn
    if type(inner) is not nn.Sequential or hooked(inner):
        return ("nn", inner, []) if pair_map(inner) else None
    named = list(inner.named_children())
    if not named or not pair_map(named[0][1]):
        return None
    return f"nn.{named[0][0]}", named[0][1], [child for _, child in named[1:]]


def _rectifies(modules: list[nn.Module]) -> bool:
    return len(modules) == 1 and type(modules[0]) is nn.ReLU


def _rises(module: nn.Module) -> bool:
    leaky = type(module) is nn.LeakyReLU and module.negative_slope >= 0
    return leaky or type(module) in _MONOTONE


@register_layer(EdgeConv)
class QuantEdgeConv(QuantConv):
    """``out_i = act(l_i + max_j Q(r_j))`` of ``l = (W_1 - W_2) x + b`` and ``r = W_2 x``.

    That is what ``nn([x_i, x_j - x_i])`` aggregates to where ``nn`` is one linear map, for an
    extreme also with an activation that never falls. A sum of what a ReLU leaves, and its mean, is
    that of the codes above zero, see :func:`nodebits.ops.modulated_sum`. Others run their own
    messages.
    """

    layer_type = "EdgeConv"
    options: ClassVar[Options] = {}
    absent_sites = ("attention", "message_dst")
    nn: Any
    aggr: str

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        lazy = lazy_reason(module)
        if lazy is not None:
            return lazy
        if getattr(module, "flow", "source_to_target") != "source_to_target":
            return "it has flow='target_to_source'"
        parts = _parts(module)
        if parts is None:
            return "its nn is no single linear map"
        if module.aggr in _EXTREMES and all(map(_rises, parts[2])):
            return None
        if module.aggr in _SUMS and (not parts[2] or _rectifies(parts[2])):
            return None
        return f"aggregating with {module.aggr!r}, its nn does not come apart"

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return f"integer {self.aggr if self.aggr in _EXTREMES else 'sum'}, maps by node"

    def place_quantizers(self, place: Placement, path: str) -> None:
        found = _parts(self)
        assert found is not None
        name, linear, _ = found
        pair = QuantPairLinear.of(linear, f"{path}.{name}".lstrip("."), place, difference=True)
        if name == "nn":
            self.nn = pair
        else:
            self.nn._modules[name.partition(".")[2]] = pair
        self.place_sites(place, path, pair.out_channels, pair.out_channels)
        if self.aggr in _SUMS and found[2]:
            # Compared with a number per target and column: a row cannot have a scale of its own.
            info = SiteInfo(
                path, self.layer_type, "message", "message", pair.out_channels, pairs=True
            )
            self.message = place.activation(info)

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form, without weights.

        Returns:
            float32 ``[num_dst, out_channels]``.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index)
        source, target, num_src, num_dst = split_pair(x, self)
        found = _parts(self)
        assert found is not None and isinstance(found[1], QuantPairLinear)
        pair, activations = found[1], found[2]
        target = source if target is None else target
        for rows in (source, target):
            check_width(rows, pair.in_channels // 2, self)
        graph = self.with_values(self.graph_of(edge_index, num_src, num_dst))
        with self.layer_scope(graph):
            ours, theirs = pair(target, source)
            if activations and self.aggr in _SUMS:
                return requantize(self.output, self._rectified(ours, theirs, graph))
            out = self._reduced(ours, theirs, graph)
            for activation in activations:
                out = activation(out)
            if activations:
                out = out * occupied(graph)
            return requantize(self.output, out)

    def _rectified(self, ours: Tensor, theirs: Tensor, graph: Graph) -> Tensor:
        """The sum or mean of ``relu(l_i + r_j)``: rows that are moved and not stretched."""
        film = torch.cat([ours, torch.ones_like(ours)], 1)
        rows = quantize_rows(self.message, theirs)
        mean = self.aggr == "mean"
        return modulated_sum(rows, graph, film, rectified=True, mean=mean, name="message")

    def _reduced(self, ours: Tensor, theirs: Tensor, graph: Graph) -> Tensor:
        """The aggregate of ``l_i + r_j``; 0 for targets without edges."""
        rows = quantize_rows(self.message, theirs)
        if self.aggr in _EXTREMES:
            most = extremum(rows, graph, self.aggr == "min")
            return (ours + most) * occupied(graph)
        if self.aggr == "mean":
            return aggregate(rows, graph, None, graph.inverse_degree) + ours * occupied(graph)
        return aggregate(rows, graph) + ours * graph.degree.view(-1, 1)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        found = _parts(self)
        assert found is not None and isinstance(found[1], QuantPairLinear)
        return [found[1].input]
