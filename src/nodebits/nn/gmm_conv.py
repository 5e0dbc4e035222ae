"""GMMConv (Monti et al. 2017): sums of rows weighed by Gaussians of an edge, then one map."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.nn import GMMConv

from nodebits.core.file_fields import FLAG, SIZE, Choice, Options
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows
from nodebits.nn.outer_conv import OuterConv
from nodebits.nn.outer_map import OuterMap, too_wide
from nodebits.nn.placement import Placement
from nodebits.nn.registry import register_layer

# As in PyG's layer.
_EPSILON = 1e-15


@register_layer(GMMConv)
class QuantGMMConv(OuterMap, OuterConv):
    """``out_i = W x_i + sum_j sum_k w_k(e_ij) Q(x_j) g_k``, or the mean.

    The Gaussians ``w_k`` of an edge become codes, at ``att_weight_edge``, and weigh the rows; the
    sums of a target meet all ``g_k`` in one product.
    """

    layer_type = "GMMConv"
    options: ClassVar[Options] = {
        "aggr": Choice(OuterConv.aggregations),
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
    counts_features = "dim"
    root: Any
    dim: int
    kernel_size: int
    root_weight: bool
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

    def shape_of_matrices(self) -> tuple[int, int]:
        return self.out_channels, self.kernel_size * self.width

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_rows(place, path)
        self.place_outer(place, path, self.layer_type, self.kernel_size)

    def matrices(self, gain: Tensor) -> Tensor:
        g = self._parameters["g"]
        assert g is not None
        by_kernel = g.view(self.width, self.kernel_size, self.out_channels).permute(2, 1, 0)
        return (by_kernel * gain.view(1, -1, 1)).flatten(1)

    def own_map(self) -> Any:
        return self.root if self.root_weight else None

    def mapped_sums(
        self, rows: AnyRows, features: Tensor, graph: Graph, row_scale: Tensor | None
    ) -> Tensor:
        # Exponentials may be rounded by where they stand: rows are told apart after them.
        table = graph.edge_table(self._gaussians(features))
        return self.of_sums(rows, table.rows, table.places, graph, row_scale, "message")

    def _gaussians(self, features: Tensor) -> Tensor:
        """``w_k`` of every edge, float32 ``[E, K]``, in PyG's own order of operations."""
        apart = features.unsqueeze(1) - self.mu
        exponent = -0.5 * apart.pow(2) / (_EPSILON + self.sigma.pow(2))
        return exponent.sum(-1).exp()
