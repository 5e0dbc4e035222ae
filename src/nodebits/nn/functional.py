"""The arithmetic of a layer, once for both forms of its rows.

A site gives :class:`Codes` (training: float32 codes with gradients) or a :class:`QTensor`
(inference: packed
codes). The functions here take either and follow one formula, so a layer has one ``forward`` and
the packed model computes what training simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.bucketed import AlignedRows, BucketedRows, RowLayout
from nodebits.core.context import current, opened
from nodebits.core.errors import AccumulatorOverflowError, ConfigError, ShapeError
from nodebits.core.qtensor import QTensor
from nodebits.core.sparse_rows import SparseRows
from nodebits.graph.csr import INT32_MAX, Graph
from nodebits.graph.reorder import ReorderedGraph
from nodebits.nn import bucketed
from nodebits.nn.chain import PendingRows, Producer, deliver
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.rows import DynamicRows, FeatureRows, PackedRows, RowQuantizer
from nodebits.nn.quantizers.weight import PackedWeight, WeightCodes
from nodebits.nn.terms import FeatureTerm, SumTerm, product_of
from nodebits.ops.autograd import neighbor_sum

Rows = Codes | QTensor | BucketedRows | AlignedRows | Tensor


@dataclass(frozen=True)
class PackedInput:
    """Features packed ahead for every site that reads them; takes the place of ``x``.

    Attributes:
        rows: Packed rows by site path.
        shape: ``(N, C)`` before packing.
        graph: The reordered graph in whose order the rows are, or None for the user's order.
    """

    rows: dict[str, PackedRows]
    shape: tuple[int, int]
    graph: ReorderedGraph | None = None

    def __post_init__(self) -> None:
        """Checks that all rows are of the matrix that was packed.

        Raises:
            ShapeError: Names the site whose rows are others.
        """
        for name, rows in self.rows.items():
            shape = (
                (rows.codes.size(0), rows.num_cols)
                if isinstance(rows, AlignedRows)
                else tuple(rows.shape)
            )
            if shape != tuple(self.shape):
                raise ShapeError(
                    f"the packed rows of site {name} are {list(shape)}, those of the features "
                    f"{list(self.shape)}: pack all of them from one matrix"
                )

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(rows.nbytes for rows in self.rows.values())


Features = Tensor | PackedInput


@dataclass(frozen=True)
class SiteRecord:
    """One activation tensor of a recorded forward; see :func:`recording`."""

    site: str
    bits: int | None
    granularity: str
    num_rows: int
    num_cols: int
    scale_bytes: int
    layout: RowLayout | None = None  # where rows have widths of their own
    sparse_bytes: int | None = None  # where only the codes that are not zero are kept
    raw: bool = False  # whether these are the features that the model was given


@contextmanager
def recording() -> Iterator[list[SiteRecord]]:
    """Collects what this thread passes through the sites of frozen layers while it is open."""
    records: list[SiteRecord] = []
    with opened(records=(*current().records, records)):
        yield records


def record(
    site: RowQuantizer,
    num_rows: int,
    num_cols: int,
    rows: PackedRows | None = None,
    raw: bool = False,
) -> None:
    """Adds a tensor to the open recordings."""
    for records in current().records:
        size = site.scale_bytes(num_rows)
        layout = rows.layout if isinstance(rows, BucketedRows | AlignedRows) else None
        sparse = rows.nbytes - size if isinstance(rows, SparseRows) else None
        records.append(
            SiteRecord(
                site.site_name,
                site.bits,
                site.granularity,
                num_rows,
                num_cols,
                size,
                layout,
                sparse,
                raw,
            )
        )


def quantize_rows(
    site: Quantizer | RowQuantizer, x: Features, row_factor: Tensor | None = None
) -> Rows:
    """Rows at a site.

    Args:
        site: Training or frozen quantizer.
        x: float32 ``[N, C]``, or features packed ahead.
        row_factor: float32 ``[N]``, multiplied into the rows first.

    Raises:
        ConfigError: If features packed ahead reach a site that they were not packed for.
    """
    if isinstance(site, RowQuantizer):
        rows = _frozen_rows(site, x, row_factor, False)
        assert not isinstance(rows, SparseRows)
        return rows
    if isinstance(x, PackedInput):
        raise ConfigError("packed rows need a converted model: call nodebits.convert first")
    site.last_shape = (x.size(0), x.size(1))
    codes: Codes = site(x if row_factor is None else x * row_factor.view(-1, 1))
    return codes


def product_rows(site: Quantizer | RowQuantizer, x: Features) -> Rows | SparseRows | FeatureRows:
    """:func:`quantize_rows` for :func:`linear`: raw features may be sparse, or still wait."""
    if isinstance(site, DynamicRows) and isinstance(x, PendingRows):
        waiting = x.wait_for(site)
        if waiting is not None:
            record(site, x.shape[0], x.shape[1], None, True)
            return waiting
    return (
        _frozen_rows(site, x, None, True)
        if isinstance(site, RowQuantizer)
        else quantize_rows(site, x)
    )


def _frozen_rows(
    site: RowQuantizer, x: Features, row_factor: Tensor | None, sparse: bool
) -> PackedRows:
    if isinstance(x, PackedInput):
        rows = packed_ahead(site, x, row_factor)
    elif isinstance(x, PendingRows):
        rows = x.pack(site, row_factor, sparse)
    else:
        rows = site.pack(x, row_factor)
    if current().records:
        record(site, x.shape[0], x.shape[1], rows, is_raw(x))
    return rows


def is_raw(x: Features) -> bool:
    """Whether these are the features that a packed model was given, not a layer's result."""
    return isinstance(x, PackedInput) or (isinstance(x, PendingRows) and x.is_raw)


def packed_ahead(
    site: RowQuantizer, x: PackedInput, row_factor: Tensor | None = None
) -> PackedRows:
    """The rows that were packed for ``site``.

    Raises:
        ConfigError: If there are none, or another model's.
    """
    name = site.site_name
    if name not in x.rows or row_factor is not None:
        raise ConfigError(
            f"the features were packed for {', '.join(x.rows)}, but {name or 'another site'} reads "
            "them: call pack_input of this model"
        )
    packed = x.rows[name]
    if not isinstance(packed, Tensor | AlignedRows) and not site.made(packed):
        raise ConfigError(
            f"the features were packed for {name} of another model, with other widths or "
            "scales: call pack_input of this model"
        )
    return packed


def dequantize_rows(rows: Rows) -> Tensor:
    """Float values of either form."""
    if isinstance(rows, BucketedRows):
        return bucketed.dequantize(rows)
    return rows if isinstance(rows, Tensor) else rows.dequantize()


def rescale(
    acc: Tensor,
    col_scale: Tensor | None,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The differentiable epilogue.

    ``((acc - row_offset * col_offset) * col_scale) * row_scale + bias``, in this order.

    Args:
        acc: float32 ``[N, C]``.
        col_scale: ``[C]`` or ``[1]``, or None for 1.
        col_offset: ``[C]`` or ``[1]``, or None for no offset.
        row_offset: ``[N, H]``, H groups of columns; None for 1.
        row_scale: ``[N, H]`` or None.
        bias: ``[C]`` or None.
    """
    if col_offset is not None:
        if row_offset is None:
            acc = acc - col_offset
        else:
            acc = acc - _spread(row_offset, acc.size(1)) * col_offset
    if col_scale is not None:
        acc = acc * col_scale
    if row_scale is not None:
        acc = acc * _spread(row_scale, acc.size(1))
    return acc if bias is None else acc + bias


def _spread(per_head: Tensor, num_cols: int) -> Tensor:
    """``[N, H]`` -> ``[N, C]`` (or ``[N, 1]``, which broadcasts)."""
    if per_head.size(1) == 1:
        return per_head
    return per_head.repeat_interleave(num_cols // per_head.size(1), dim=1)


def linear(
    rows: Rows | SparseRows | FeatureRows,
    weight: WeightCodes | PackedWeight,
    bias: Tensor | None,
    *,
    sparse: Graph | None = None,
    layer: Producer | None = None,
) -> Tensor:
    """``rows @ weight^T + bias`` on codes.

    Args:
        rows: ``[N, K]``.
        weight: ``[M, K]``.
        bias: float32 ``[M]`` or None.
        sparse: The codes of ``rows`` as sparse rows, where they are known to be sparse (training).
        layer: Whose result it is, if it may wait for its reader (see :mod:`nodebits.nn.chain`).

    Returns:
        float32 ``[N, M]``.
    """
    if isinstance(weight, PackedWeight):
        found = _num_cols(rows)
        if found != weight.num_cols:
            raise ShapeError(
                f"rows of {found} columns meet a weight of {weight.num_cols}: they were packed "
                "for another layer, or the layer's in_channels was changed"
            )
    if isinstance(weight, WeightCodes):
        assert isinstance(rows, Codes)
        if sparse is not None:
            value = None if sparse.edge_weight is None else sparse.edge_weight.view(-1, 1)
            acc = neighbor_sum(weight.codes.t(), sparse, value)
            offset = None
        else:
            acc = rows.codes @ weight.codes.t()
            offset = None if rows.bits is None else rows.zero_point * weight.codes.sum(1)
        by_row = rows.scale.dim() == 2
        col_scale = weight.scale if by_row else weight.scale * rows.scale
        return rescale(acc, col_scale, offset, None, rows.scale if by_row else None, bias)
    if isinstance(rows, QTensor) and weight.bits is not None:
        return deliver(layer, product_of(rows, weight, bias))
    if isinstance(rows, FeatureRows):
        if weight.bits is not None:
            return deliver(layer, FeatureTerm(rows, weight, bias))
        rows = rows.settle()
    if isinstance(rows, SparseRows) and weight.bits is not None:
        return deliver(layer, _sparse_product(rows, weight, bias))
    if isinstance(rows, BucketedRows) and weight.bits is not None:
        return deliver(layer, bucketed.product(rows, weight, bias))
    return _linear_mixed(rows, weight, bias)


def _num_cols(rows: Rows | SparseRows | FeatureRows) -> int:
    if isinstance(rows, Codes):
        return rows.codes.size(1)
    if isinstance(rows, FeatureRows):
        return rows.x.size(1)
    return rows.size(1) if isinstance(rows, Tensor) else rows.num_cols


def _sparse_product(rows: SparseRows, weight: PackedWeight, bias: Tensor | None) -> SumTerm:
    """A product with sparse rows is a sum over rows of the transposed weight.

    Its fields are unsigned there, ``u = c + 2^(b-1)``; the sums of the codes take the offset out
    again, in int32, so that the epilogue sees the integers of the dense product.
    """
    assert weight.bits is not None
    half = 1 << (weight.bits - 1)
    alpha, beta = (2, 1 - 2 * half) if weight.midrise else (1, -half)
    codes = None if rows.codes is None else rows.codes.view(-1, 1)
    # Fields that are multiplied take a byte each: a row of 64 then fills a register.
    bits = weight.bits if codes is None else 8
    return SumTerm(
        rows.indptr,
        rows.indices,
        weight.transposed(bits),
        bits,
        weight.num_rows,
        codes,
        None,
        *rows.affine(alpha, beta),
        weight.scale,
        None,
        None,
        rows.scale.view(-1, 1),
        bias,
    )


def _linear_mixed(rows: Rows | SparseRows, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """Product in float, where one side stayed float, on a transient copy of the other."""
    codes = weight.codes()
    if isinstance(rows, SparseRows):
        rows = rows.dequantize()
    if isinstance(rows, QTensor | BucketedRows):
        by_row = rows.axis == 0
        acc = rows.codes().float() @ codes.t()
        zero_point = rows.row_zero_point() if isinstance(rows, BucketedRows) else rows.zero_point
        offset = weight.col_sum * zero_point
        col_scale = weight.scale if by_row else weight.scale * rows.scale
        return rescale(
            acc, col_scale, offset, None, rows.scale.view(-1, 1) if by_row else None, bias
        )
    assert isinstance(rows, Tensor)
    return rescale(rows @ codes.t(), weight.scale, None, None, None, bias)


@dataclass(frozen=True)
class EdgeCodes:
    """Integer weights of the edges.

    Attributes:
        codes: ``[E, H]`` in CSR order; float32 (training, centred on ``zero_point``) or uint8.
        row_sum: ``[num_dst, H]``, sums of the (centred) codes, float32.
        scale: ``[1]``, or None for 1.
        zero_point: 0, or ``2**(bits-1)`` where weights may be negative (uint8 codes only).
        max_code: Largest code.
    """

    codes: Tensor
    row_sum: Tensor
    scale: Tensor | None
    zero_point: int
    max_code: int

    def centred(self) -> Tensor:
        """Codes minus their zero point, float32 ``[E, H]``."""
        return self.codes.float() - self.zero_point if self.zero_point else self.codes.float()


def aggregate(
    rows: Rows,
    graph: Graph,
    edges: EdgeCodes | None = None,
    row_scale: Tensor | None = None,
    bias: Tensor | None = None,
    col_factor: Tensor | None = None,
    *,
    own: Rows | None = None,
    own_factor: Tensor | None = None,
    layer: Producer | None = None,
) -> Tensor:
    """Sum over neighbours, exact on codes, rescaled once per output.

    Args:
        rows: ``[num_src, C]``, one scale per tensor or per column.
        graph: Topology.
        edges: Edge weights, or None for unit weights.
        row_scale: float32 ``[num_dst]`` or ``[num_dst, H]``: the target's factor of the
            normalisation.
        bias: float32 ``[C]``.
        col_factor: float32 ``[C]``, multiplied into the message's scale (a folded norm; packed
            rows only).
        own: ``[num_dst, C]`` at the same site as ``rows`` (unit weights only), or None.
        own_factor: float32 ``[1]``; ``own_factor * own`` is added to the sum.
        layer: Whose result it is, if it may wait for its reader (see :mod:`nodebits.nn.chain`).

    Returns:
        float32 ``[num_dst, C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
    """
    if own is not None and own_factor is not None and not isinstance(rows, QTensor):
        out = aggregate(rows, graph, edges, row_scale, bias)
        return out + own_factor * dequantize_rows(own)
    if row_scale is not None and row_scale.dim() == 1:
        row_scale = row_scale.view(-1, 1)
    row_offset = graph.degree.view(-1, 1) if edges is None else edges.row_sum
    if isinstance(rows, BucketedRows | AlignedRows):
        centred = None if edges is None else edges.centred()
        rows, row_offset = bucketed.summands(bucketed.align(rows), graph, centred)
    if isinstance(rows, QTensor) and edges is not None and edges.codes.dtype != torch.uint8:
        # Edge weights left in float: the sum runs in float on a transient copy of the codes.
        rows = Codes(rows.codes().float(), rows.scale, rows.zero_point, rows.bits)
    if isinstance(rows, QTensor):
        scale = _message_scale(rows.scale, edges)
        if col_factor is not None:
            scale = scale * col_factor
        epilogue = (scale, rows.zero_point, row_offset, row_scale, bias)
        if edges is not None and edges.zero_point:
            return _centred_sum(rows, graph, edges, epilogue)
        _check_sum(rows, graph, edges)
        assert own is None or isinstance(own, QTensor)
        total = SumTerm(
            graph.indptr,
            graph.indices,
            rows.packed,
            rows.bits,
            rows.num_cols,
            None if edges is None else edges.codes,
            graph.blocks(rows.packed.size(1)) if edges is None else None,
            None,
            None,
            *epilogue,
            None if own is None else own.packed,
            own_factor,
        )
        return deliver(layer, total)
    weight = None if edges is None else edges.codes
    if isinstance(rows, Tensor):  # a site left in float
        if weight is not None and edges is not None and weight.dtype == torch.uint8:
            weight = weight.float() - edges.zero_point
        acc = neighbor_sum(rows, graph, weight)
        col_scale = None if edges is None else edges.scale
        return rescale(acc, col_scale, None, None, row_scale, bias)
    if rows.zero_point.dim() == 2:  # a zero point per row: its sum takes the place of the degree
        row_offset = bucketed.zero_point_sum(rows.zero_point, graph, weight)
        rows = rows._replace(zero_point=torch.ones_like(rows.scale[:1]))
    if rows.scale.dim() == 2:
        raise ConfigError(
            "the message site needs one scale per tensor or column: a scale per row does not "
            "commute with "
            "the sum over rows"
        )
    if weight is None:
        # Constant codes (raw features) have a constant sum.
        codes = rows.codes
        acc = graph.cached_for(codes, "sum", lambda: neighbor_sum(codes, graph))
    else:
        acc = neighbor_sum(rows.codes, graph, weight)
    offset = None if rows.bits is None else rows.zero_point
    return rescale(acc, _message_scale(rows.scale, edges), offset, row_offset, row_scale, bias)


def _message_scale(scale: Tensor, edges: EdgeCodes | None) -> Tensor:
    return scale if edges is None or edges.scale is None else scale * edges.scale


def _check_sum(rows: QTensor, graph: Graph, edges: EdgeCodes | None) -> None:
    if rows.axis == 0:
        raise ConfigError("the message site needs one scale per tensor or column, not per row")
    graph.check_accumulator((1 << rows.bits) - 1, 1 if edges is None else edges.max_code)


def _centred_sum(
    rows: QTensor,
    graph: Graph,
    edges: EdgeCodes,
    epilogue: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
) -> Tensor:
    """Edge codes around a zero point (weights of both signs) take two sums."""
    _check_sum(rows, graph, edges)
    table = (graph.indptr, graph.indices, rows.packed, rows.bits, rows.num_cols)
    acc = torch.ops.nodebits.spmm_weighted(*table, edges.codes)
    acc = acc - edges.zero_point * torch.ops.nodebits.spmm(*table)
    result: Tensor = torch.ops.nodebits.rescale(acc, *epilogue)
    return result


def check_product(num_cols: int, max_code: int, max_weight: int, layer: str) -> None:
    """Refuses a dense product that could pass int32.

    Raises:
        AccumulatorOverflowError: Names the layer and the bound.
    """
    bound = INT32_MAX // (max_code * max_weight)
    if num_cols > bound:
        raise AccumulatorOverflowError(
            f"{layer} multiplies {num_cols} columns of codes up to {max_code} with weights up to "
            f"{max_weight}: int32 is exact only to {bound} columns; use fewer bits"
        )
