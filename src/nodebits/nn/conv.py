"""What convolutions share: their inputs, their graph, and edge weights as codes."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from nodebits.core.affine import max_code
from nodebits.core.bucketed import AlignedRows, BucketedRows
from nodebits.core.errors import ConfigError, NotCalibratedError, ShapeError
from nodebits.core.qtensor import QTensor
from nodebits.graph import Graph, as_graph
from nodebits.nn.functional import EdgeCodes, Features, quantize_rows
from nodebits.nn.layer import Placement, QuantLayer, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.rows import RowQuantizer, UnusedRows

PairFeatures = tuple[Features, Features | None]


class QuantConv(QuantLayer):
    """Base of convolutions: a ``message`` site, often an ``attention`` and an ``output`` one."""

    optional_sites: ClassVar[tuple[str, ...]] = ("attention",)
    message: Quantizer | RowQuantizer
    attention: Quantizer | RowQuantizer
    output: Quantizer | RowQuantizer

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        """See :meth:`QuantLayer.unsupported`."""
        if getattr(module, "flow", "source_to_target") != "source_to_target":
            return "it has flow='target_to_source'; transpose the edges and use the default flow"
        if getattr(module, "aggr", "add") not in cls.aggregations:
            return (
                f"it aggregates with {module.aggr!r}; only {' and '.join(cls.aggregations)} are "
                "exact "
                "integer sums"
            )
        return None

    def freeze(self) -> None:
        """See :meth:`QuantLayer.freeze`; without edge weights their site has no range."""
        site = getattr(self, "attention", None)
        if isinstance(site, Quantizer):
            try:
                self.attention = site.freeze()
            except NotCalibratedError:
                self.attention = UnusedRows()
        super().freeze()

    aggregations: tuple[str, ...] = ("add", "sum")

    def place_sites(
        self, place: Placement, path: str, message_cols: int, output_cols: int, edges: bool = False
    ) -> None:
        """Asks the method for the quantizers of this layer."""

        def site(kind: str, cols: int) -> Quantizer:
            return place.activation(SiteInfo(path, self.layer_type, kind, kind, cols))

        self.message = site("message", message_cols)
        self.output = site("output", output_cols)
        if edges:
            self.attention = site("attention", 1)


def split_pair(x: Features | PairFeatures) -> tuple[Features, Features | None, int, int]:
    """Source and target features with their numbers of rows.

    A single matrix serves as both. A pair with None as targets has as many targets as sources,
    unless the adjacency says otherwise.
    """
    if isinstance(x, tuple):
        source, target = x
        return (
            source,
            target,
            source.shape[0],
            source.shape[0] if target is None else target.shape[0],
        )
    return x, x, x.shape[0], x.shape[0]


def check_width(x: Features, expected: int, layer: str) -> None:
    """Refuses features of the wrong width.

    Raises:
        ShapeError: Names both widths.
    """
    if len(x.shape) != 2 or x.shape[1] != expected:
        raise ShapeError(f"{layer} got features of shape {list(x.shape)}, expected [N, {expected}]")


def conv_graph(
    adjacency: Any,
    num_src: int,
    num_dst: int,
    edge_weight: Tensor | None = None,
    size: tuple[int, int] | None = None,
) -> Graph:
    """The graph of a convolution; ``size`` is PyG's ``(num_src, num_dst)``."""
    if size is not None:
        num_src, num_dst = size
    return as_graph(adjacency, num_src, num_dst, edge_weight)


def edge_codes(site: Quantizer | RowQuantizer, graph: Graph) -> EdgeCodes | None:
    """Quantizes the edge weights of ``graph``; None where it has none.

    Weights of both signs get the zero point ``2**(bits-1)``.
    """
    if graph.edge_weight is None:
        return None
    weight = graph.edge_weight.view(-1, 1)
    rows = quantize_rows(site, weight)
    if isinstance(rows, QTensor):
        codes = rows.codes()
        zero_point = int(rows.zero_point)
        centred = codes.float() - zero_point
        return EdgeCodes(
            codes, _row_sum(centred, graph), rows.scale, zero_point, max_code(rows.bits)
        )
    if isinstance(rows, Tensor):  # left in float
        return EdgeCodes(rows, _row_sum(rows, graph), None, 0, 255)
    if isinstance(rows, BucketedRows | AlignedRows):
        raise ConfigError("edge weights take one width: a width per row is for features")
    centred = rows.codes if rows.bits is None else rows.codes - rows.zero_point
    scale = None if rows.bits is None else rows.scale
    return EdgeCodes(centred, _row_sum(centred, graph), scale, 0, 255)


def _row_sum(codes: Tensor, graph: Graph) -> Tensor:
    return codes.new_zeros(graph.num_dst, codes.size(1)).index_add(0, graph.rows, codes)
