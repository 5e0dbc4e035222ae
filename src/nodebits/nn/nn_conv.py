"""NNConv (Gilmer et al. 2017): sums of rows weighed by every column of an edge, then one map."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import MLP, NNConv

from nodebits.core.file_fields import FLAG, SIZE, Choice, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import QuantConv, check_width, conv_graph, split_pair
from nodebits.nn.filter_linear import QuantFilterLinear
from nodebits.nn.functional import quantize_rows
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.outer_map import too_wide
from nodebits.nn.pairs import edge_features
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.split_linear import hooked, plain_map


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


@register_layer(NNConv)
class QuantNNConv(QuantConv):
    """``out_i = W x_i + sum_j Q(x_j) nn(e_ij)``, or the mean.

    The last linear map of ``nn`` makes the matrices, and is taken out of the sum: rows are weighed
    by the codes of what it reads, and the sums meet all its matrices in one product, see
    :class:`QuantFilterLinear`.
    """

    layer_type = "NNConv"
    aggregations = ("add", "sum", "mean")
    options: ClassVar[Options] = {
        "aggr": Choice(aggregations),
        "width": SIZE,
        "out_channels": SIZE,
        "root_weight": FLAG,
        "bias": FLAG,
    }
    derived_options: ClassVar = {"width": lambda module: module.in_channels_l}
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    absent_sites = ("attention", "message_dst")
    nn: Any
    lin: Any
    aggr: str
    width: int
    out_channels: int
    root_weight: bool
    bias: nn.Parameter | None

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

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return "integer sum, maps by node"

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.width, self.out_channels)
        self.message = place.activation(
            SiteInfo(path, self.layer_type, "message", "message", self.width, pairs=True)
        )
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

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form, without weights.
            edge_attr: float32 ``[E, D]``.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            ShapeError: On features of other shapes, of nodes or of edges.
        """
        source, target, num_src, num_dst = split_pair(x, self)
        check_width(source, self.width, self)
        graph = conv_graph(edge_index, num_src, num_dst, size=size).topology()
        features = edge_features(edge_attr, graph.num_edges, self)
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            rows = quantize_rows(self.message, source)
            mean = graph.inverse_degree if self.aggr == "mean" else None
            maps = self._filter
            out = maps.of_sums(rows, self.nn(features), graph, mean, "message", maps.plain)
            if self.root_weight and target is not None:
                out = out + self.lin(target)
            return requantize(self.output, out if self.bias is None else out + self.bias)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message, *input_sites_of(self.lin if self.root_weight else None)]
