"""GMMConv (Monti et al. 2017): sums of rows weighed by Gaussians of an edge, then one map."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import GMMConv

from nodebits.core.file_fields import FLAG, SIZE, Choice, Options
from nodebits.engine.pending import expect_sites
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import QuantConv, check_width, conv_graph, split_pair
from nodebits.nn.functional import quantize_rows
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.outer_map import OuterMap, too_wide
from nodebits.nn.pairs import edge_features
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer

# As in PyG's layer.
_EPSILON = 1e-15


@register_layer(GMMConv)
class QuantGMMConv(OuterMap, QuantConv):
    """``out_i = W x_i + sum_j sum_k w_k(e_ij) Q(x_j) g_k``, or the mean.

    The Gaussians ``w_k`` of an edge become codes, at ``att_weight_edge``, and weigh the rows; the
    sums of a target meet all ``g_k`` in one product.
    """

    layer_type = "GMMConv"
    aggregations = ("add", "sum", "mean")
    options: ClassVar[Options] = {
        "aggr": Choice(aggregations),
        "width": SIZE,
        "out_channels": SIZE,
        "dim": SIZE,
        "kernel_size": SIZE,
        "root_weight": FLAG,
        "bias": FLAG,
    }
    # What a lazy layer was made with is no width.
    derived_options: ClassVar = {"width": lambda module: module.g.size(0)}
    own_values: ClassVar = {
        "bias": lambda layer: (layer.out_channels,),
        "mu": lambda layer: (layer.kernel_size, layer.dim),
        "sigma": lambda layer: (layer.kernel_size, layer.dim),
    }
    packed_parameters = ("g",)
    counts_factors = "kernel_size"
    absent_sites = ("attention", "message_dst")
    root: Any
    aggr: str
    width: int
    out_channels: int
    dim: int
    kernel_size: int
    root_weight: bool
    bias: nn.Parameter | None
    mu: nn.Parameter
    sigma: nn.Parameter

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        said = super().unsupported(module)
        if said is not None:
            return said
        if getattr(module, "separate_gaussians", False):
            return "its Gaussians are others for every pair of channels"
        return too_wide(module.kernel_size * module.g.size(0))

    @property
    def runs(self) -> str:
        """What it runs on codes."""
        return "integer sum, maps by node"

    def shape_of_matrices(self) -> tuple[int, int]:
        return self.out_channels, self.kernel_size * self.width

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.width, self.out_channels)
        self.message = place.activation(
            SiteInfo(path, self.layer_type, "message", "message", self.width, pairs=True)
        )
        self.place_outer(place, path, self.layer_type, self.kernel_size)

    def matrices(self, gain: Tensor) -> Tensor:
        g = self._parameters["g"]
        assert g is not None
        by_kernel = g.view(self.width, self.kernel_size, self.out_channels).permute(2, 1, 0)
        return (by_kernel * gain.view(1, -1, 1)).flatten(1)

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
            edge_attr: float32 ``[E, dim]``.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            ShapeError: On features of other shapes, of nodes or of edges.
        """
        source, target, num_src, num_dst = split_pair(x, self)
        check_width(source, self.width, self)
        graph = conv_graph(edge_index, num_src, num_dst, size=size).topology()
        features = edge_features(edge_attr, graph.num_edges, self, self.dim)
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            rows = quantize_rows(self.message, source)
            mean = graph.inverse_degree if self.aggr == "mean" else None
            out = self.of_sums(rows, self._gaussians(features), graph, mean, "message")
            if self.root_weight and target is not None:
                out = out + self.root(target)
            return requantize(self.output, out if self.bias is None else out + self.bias)

    def _gaussians(self, features: Tensor) -> Tensor:
        """``w_k`` of every edge, float32 ``[E, K]``, in PyG's own order of operations."""
        apart = features.unsqueeze(1) - self.mu
        exponent = -0.5 * apart.pow(2) / (_EPSILON + self.sigma.pow(2))
        return exponent.sum(-1).exp()

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message, *input_sites_of(self.root if self.root_weight else None)]
