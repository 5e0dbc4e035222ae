"""NNConv (Gilmer et al. 2017): sums of rows weighed by every column of an edge, then one map."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import MLP, NNConv

from nodebits.core.file_fields import FLAG, SIZE, Choice, Options
from nodebits.graph import Graph
from nodebits.nn.filter_linear import QuantFilterLinear
from nodebits.nn.functional import AnyRows
from nodebits.nn.linear import QuantLinear
from nodebits.nn.outer_conv import OuterConv
from nodebits.nn.outer_map import too_wide
from nodebits.nn.pairs import maps_codes
from nodebits.nn.placement import Placement
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import hooked, plain_map

_CONTAINERS = (nn.Sequential, nn.ModuleList, MLP)
_EXACT = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout)


def last_map(owner: nn.Module, name: str) -> tuple[nn.Module, str] | None:
    """The module that holds the linear map whose result a network returns, and its name there.

    Args:
        owner: What holds the network.
        name: Of the network.

    Returns:
        None where a network does not end so, or not for sure.
    """
    net: Any = owner._modules.get(name)
    if net is None or plain_map(net):
        return None if net is None else (owner, name)
    if hooked(net):
        return None
    if type(net) is nn.Sequential and len(net) > 0:
        return last_map(net, next(reversed(net._modules)))
    if type(net) is MLP and net.plain_last and not any(net.dropout[-1:]):
        return last_map(net.lins, str(len(net.lins) - 1))
    return None


def _by_row(net: nn.Module) -> bool:
    """Whether a network is known to give a row the same bits wherever it stands."""
    if isinstance(net, QuantLinear):
        return isinstance(net, QuantFilterLinear) or maps_codes(net)
    if type(net) in _CONTAINERS:
        return not hooked(net) and all(map(_by_row, net.children()))
    return type(net) in _EXACT and not hooked(net)


@register_layer(NNConv)
class QuantNNConv(OuterConv):
    """``out_i = W x_i + sum_j Q(x_j) nn(e_ij)``, or the mean.

    The last linear map of ``nn`` makes the matrices, and is taken out of the sum: rows are weighed
    by the codes of what it reads, and the sums meet all its matrices in one product, see
    :class:`QuantFilterLinear`.
    """

    layer_type = "NNConv"
    options: ClassVar[Options] = {
        "aggr": Choice(OuterConv.aggregations),
        "width": SIZE,
        "out_channels": SIZE,
        "root_weight": FLAG,
        "bias": FLAG,
    }
    derived_options: ClassVar = {"width": lambda module: module.in_channels_l}
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    nn: Any
    lin: Any
    root_weight: bool

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        said = super().unsupported(module)
        if said is not None:
            return said
        found = last_map(module, "nn")
        if found is None:
            return "its network does not end with a linear map"
        linear: Any = found[0]._modules[found[1]]
        return too_wide((linear.weight.size(1) + 1) * module.in_channels_l)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_rows(place, path)
        found = last_map(self, "nn")
        assert found is not None
        owner, name = found
        linear: Any = owner._modules[name]
        where = next(p for p, module in self.named_modules() if module is linear)
        owner._modules[name] = QuantFilterLinear.of(
            linear,
            f"{path}.{where}".lstrip("."),
            place,
            node_channels=self.width,
            plain=linear.bias is not None,
        )

    @property
    def _filter(self) -> QuantFilterLinear:
        """What stands in the place of the network's last map."""
        return next(m for m in self.nn.modules() if isinstance(m, QuantFilterLinear))

    def own_map(self) -> Any:
        return self.lin if self.root_weight else None

    def mapped_sums(
        self, rows: AnyRows, features: Tensor, graph: Graph, row_scale: Tensor | None
    ) -> Tensor:
        maps, places = self._filter, graph.perm
        if _by_row(self.nn):
            features, places, _ = graph.edge_table(features)
        factors = self.nn(features)
        return maps.of_sums(rows, factors, places, graph, row_scale, "message", maps.plain)
