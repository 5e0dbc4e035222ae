"""A matrix for every number of an edge, applied to sums over edges in place of rows.

``sum_j x_j (sum_k f_ijk W_k + B)`` is ``sum_k (sum_j f_ijk x_j) W_k + (sum_j x_j) B``: no matrix of
an edge exists, and what there is of a product is one of targets.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits.core.distributed import rows_of_all_ranks
from nodebits.core.errors import UnsupportedLayerError
from nodebits.engine.loaded import check_values
from nodebits.engine.pending import settle
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.graph.csr import INT32_MAX
from nodebits.nn.functional import AnyRows, check_product, linear, product_rows, quantize_rows
from nodebits.nn.inputs import Features
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import check_weight
from nodebits.nn.outer_sums import outer_sum
from nodebits.nn.pairs import EdgeRows
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer

# Columns of a product that fits int32 at any width.
_MOST_COLUMNS = INT32_MAX // (255 * 128)
# Of the largest column, below which one counts as without values.
_LEAST_SHARE = 1e-4
_FACTORS = "att_weight_edge"


def too_wide(columns: int) -> str | None:
    """Why sums of so many columns cannot meet one product; None where they can."""
    if columns <= _MOST_COLUMNS:
        return None
    return f"its sums of {columns} columns pass int32 in one product"


class OuterMap(QuantLayer):
    """Base of layers that map rows by matrices of edges.

    Attributes:
        att_weight_edge: Site of the numbers f, a row of K for every edge.
        gain: float32 ``[K]``, how large their columns are; 0 before they were seen.
        input: Site of the sums over these gains, K times the columns of a row, and once more with a
            matrix that all edges have alike.
        quantized_weight: Of all matrices times their gains, as many columns for each of M.
    """

    own_values: ClassVar = {}
    # The option that is K.
    counts_factors: ClassVar[str]
    att_weight_edge: Quantizer | RowQuantizer
    input: Quantizer | RowQuantizer
    quantized_weight: WeightQuantizer | PackedWeight
    gain: Tensor

    def matrices(self, gain: Tensor) -> Tensor:
        """What becomes ``quantized_weight``, float32 ``[M, K * C]`` or ``[M, (K + 1) * C]``.

        Args:
            gain: float32 ``[K]``, by which the matrices are multiplied.
        """
        raise NotImplementedError

    def shape_of_matrices(self) -> tuple[int, int]:
        """M, and columns of the sums."""
        raise NotImplementedError

    def place_outer(self, place: Placement, path: str, layer_type: str, factors: int) -> None:
        """The sites.

        Args:
            place: Gives the quantizers.
            path: Of the layer.
            layer_type: Of the layer, or of a part of it.
            factors: K.
        """
        out, columns = self.shape_of_matrices()

        def site(kind: str, name: str, width: int, **more: Any) -> SiteInfo:
            return SiteInfo(path, layer_type, kind, name, width, **more)

        first = next(p for p in self._parameters.values() if p is not None)
        self.register_buffer("gain", first.detach().new_zeros(factors))
        self.att_weight_edge = place.activation(site("message", _FACTORS, factors, pairs=True))
        # A plan packs the sums as they are made, so scales of their own cost them nothing.
        self.input = place.activation(site("input", "input", columns, plain=True))
        weight = site("weight", "weight", columns, num_channels=out)
        self.quantized_weight = place.weight(weight)
        check_product(self.input, self.quantized_weight, columns, path)

    def of_sums(
        self,
        rows: AnyRows,
        factors: Features,
        places: Tensor | None,
        graph: Graph,
        row_scale: Tensor | None,
        name: str,
        plain: bool = False,
    ) -> Tensor:
        """``sum_j x_j (sum_k f_ijk W_k + B)`` over the edges of every target.

        Args:
            rows: x, ``[num_src, C]``.
            factors: f, rows that edges have, float32 ``[E, K]`` or ``[M, K]``.
            places: int64 ``[E]``, the row of every edge; None where they stand as edges do.
            graph: Topology.
            row_scale: float32 ``[num_dst]``, by which a target's sum is multiplied, or None.
            name: Of the site of the rows, for errors.
            plain: Whether there is a B.

        Returns:
            float32 ``[num_dst, M]``.
        """
        self._observe(factors)
        sums = outer_sum(
            rows,
            EdgeRows(quantize_rows(self.att_weight_edge, factors), places),
            graph,
            (name, _FACTORS),
            gain=self._gains(),
            plain=plain,
            row_scale=row_scale,
            layer=self,
        )
        site = self.quantized_weight
        weight = site if isinstance(site, PackedWeight) else site(self.matrices(self._gains()))
        return linear(product_rows(self.input, sums), weight, None, layer=self)

    @torch.no_grad()
    def _observe(self, factors: Features) -> None:
        """Learns the gains from the first rows that are seen: their root mean squares.

        The sums of a large column would else leave those of others few codes. What gains are right
        is no matter of exactness: weights are multiplied by them.
        """
        site = self.att_weight_edge
        if not isinstance(site, Quantizer) or bool(self.gain.any()):
            return
        if not (self.training or site.calibrating):
            return
        seen = rows_of_all_ranks(settle(factors))
        if seen.size(0):
            size = seen.square().mean(0).sqrt()
            alive = size > _LEAST_SHARE * size.amax()
            # A column without values is taken for one like the others.
            usual = size[alive].median() if bool(alive.any()) else size.new_ones(())
            self.gain = torch.where(alive, size, usual)

    def _gains(self) -> Tensor:
        """The gains; 1 before they are known, as a file has them."""
        frozen = isinstance(self.quantized_weight, PackedWeight)
        return self.gain if frozen or bool(self.gain.any()) else torch.ones_like(self.gain)

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantLayer:
        layer = super().build(config)
        layer.register_buffer("gain", torch.ones(config[cls.counts_factors], device="cpu"))
        return layer

    def freeze(self) -> None:
        QuantLayer.freeze(self)
        quantizer = self.quantized_weight
        if not isinstance(quantizer, WeightQuantizer):
            return
        if all(self._parameters.get(name) is None for name in self.packed_parameters):
            raise UnsupportedLayerError("a linear layer without weights cannot be converted")
        self.gain = self._gains()
        self.quantized_weight = quantizer.freeze(self.matrices(self.gain).contiguous())
        for name in self.packed_parameters:
            self._parameters[name] = None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.gain.zero_()

    def check_loaded(self) -> None:
        check_values(self.gain, "gain", True)
        check_weight(self._modules.get("quantized_weight"), self.shape_of_matrices(), "weight")
