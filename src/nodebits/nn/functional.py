"""The arithmetic of a layer, once for both forms of its rows.

A site gives :class:`Codes` (training: float32 codes with gradients) or a :class:`QTensor`
(inference: packed codes). The functions here take either and follow one formula, so a layer has one
``forward`` and the packed model computes what training simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.masked import MaskedTensor

from nodebits import ops
from nodebits.core.affine import Codes
from nodebits.core.bucketed import AlignedRows, BucketedRows, RowLayout
from nodebits.core.context import current, opened
from nodebits.core.errors import (
    AccumulatorOverflowError,
    ConfigError,
    NotCalibratedError,
    ShapeError,
)
from nodebits.core.observer import check_finite
from nodebits.core.qtensor import QTensor
from nodebits.core.sparse_rows import SparseRows
from nodebits.graph.csr import INT32_MAX, Graph
from nodebits.graph.reorder import ReorderedGraph
from nodebits.nn import bucketed
from nodebits.nn.chain import PendingRows, Producer, deliver
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.rows import DynamicRows, FeatureRows, PackedRows, RowQuantizer
from nodebits.nn.quantizers.weight import PackedWeight, WeightCodes, WeightQuantizer
from nodebits.nn.terms import FeatureTerm, SumTerm, product_of, source_of
from nodebits.ops import Edges, Epilogue, Own, Source
from nodebits.ops.autograd import dense_product, neighbor_sum

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


class NamedLayer(Protocol):
    """What messages name."""

    @property
    def described(self) -> str:
        """Path and class."""
        ...


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
    num_scales: int | None = None,
) -> None:
    """Adds a tensor to the open recordings.

    Args:
        site: Where it was quantized.
        num_rows: Its rows.
        num_cols: Its columns.
        rows: The packed rows, where their size is not a function of the numbers above.
        raw: Whether these are the features that the model was given.
        num_scales: What the scales are counted by, where it is not ``num_rows``.
    """
    for records in current().records:
        size = site.scale_bytes(num_rows if num_scales is None else num_scales)
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


def as_features(x: Any, layer: NamedLayer) -> Features:
    """``x`` in float32, in which quantized layers compute, also within ``torch.autocast``.

    Raises:
        ShapeError: If it is no tensor of floats; names the layer.
    """
    if isinstance(x, PackedInput):
        return x
    if isinstance(x, Tensor):
        check_holder(x, f"layer {layer.described}")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() == 0:
        what = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        ids = isinstance(x, Tensor) and not x.is_complex() and not x.is_floating_point()
        raise ShapeError(
            f"layer {layer.described} got {what}: expected a float tensor [num_nodes, channels]"
            f"{'; ids go through an embedding first' if ids else ''}"
        )
    return x if x.dtype == torch.float32 else x.float()


def check_holder(x: Tensor, reader: str) -> None:
    """Refuses tensors that are no array of values: nested and masked ones, and the meta device.

    Raises:
        ShapeError: Names the reader, what it got and what to pass.
    """
    if x.is_nested:
        raise ShapeError(
            f"{reader} got a nested tensor: join its parts (torch.cat(x.unbind()), or "
            "torch_geometric.data.Batch for graphs)"
        )
    if x.is_meta:
        raise ShapeError(
            f"{reader} got a tensor on the meta device, which holds no values: move the data to "
            "the CPU"
        )
    if isinstance(x, MaskedTensor):
        raise ShapeError(f"{reader} got a MaskedTensor: pass x.to_tensor(0.0)")


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
    check_rows(site, x)
    if isinstance(site, RowQuantizer):
        rows = _frozen_rows(site, x, row_factor, False)
        assert not isinstance(rows, SparseRows)
        return rows
    if isinstance(x, PackedInput):
        raise ConfigError("packed rows need a converted model: call nodebits.convert first")
    x = x if x.dtype == torch.float32 else x.float()
    if x.size(0) > 0:
        site.last_shape = (x.size(0), x.size(1))
    if isinstance(current().graph, ReorderedGraph):
        raise ConfigError(
            "a prepared model keeps the user's order of nodes: run it on the graph itself, and "
            "only packed models on what prepare_graph(reorder=True) returned"
        )
    values = x if row_factor is None else x * row_factor.view(-1, 1)
    if not site.training and site.bits is not None and not torch.compiler.is_compiling():
        check_finite(values, site.described)  # a code would hide it
    try:
        codes: Codes = site(values)
    except NotCalibratedError as error:
        if x.size(0) == 0:  # nothing to be wrong about: a degree or type that does not occur
            return Codes(x, x.new_ones(1), x.new_zeros(1), None)
        raise NotCalibratedError(f"site {site.site_name!r}: {error}") from error
    site.show(values, codes)
    return codes


def product_rows(site: Quantizer | RowQuantizer, x: Features) -> Rows | SparseRows | FeatureRows:
    """:func:`quantize_rows` for :func:`linear`: raw features may be sparse, or still wait."""
    check_rows(site, x)
    if isinstance(site, DynamicRows) and isinstance(x, PendingRows):
        waiting = x.wait_for(site)
        if waiting is not None:
            _show_use(site, x, None)
            record(site, x.shape[0], x.shape[1], None, True)
            return waiting
    return (
        _frozen_rows(site, x, None, True)
        if isinstance(site, RowQuantizer)
        else quantize_rows(site, x)
    )


def check_rows(site: Quantizer | RowQuantizer, x: Any) -> None:
    """Refuses what is no float matrix.

    Raises:
        ShapeError: Names the site, where it has a name, and what it got.
    """
    if isinstance(x, PackedInput):
        return
    name = f"site {site.site_name!r}" if getattr(site, "site_name", "") else "a quantized layer"
    if not isinstance(x, Tensor):
        raise ShapeError(f"features are a {type(x).__name__} at {name}: expected a float tensor")
    if x.layout != torch.strided:
        raise ShapeError(
            f"features are a sparse matrix ({x.layout}) at {name}: pass x.to_dense(), codes are "
            "kept as sparse rows by themselves where that is smaller"
        )
    if not x.is_floating_point() or x.dim() != 2:
        hint = "" if x.is_floating_point() else "; ids go through an embedding first"
        raise ShapeError(
            f"features are {x.dtype} {list(x.shape)} at {name}: expected a float tensor "
            f"[num_nodes, channels]{hint}"
        )


def _frozen_rows(
    site: RowQuantizer, x: Features, row_factor: Tensor | None, sparse: bool
) -> PackedRows:
    if isinstance(x, Tensor) and x.dtype != torch.float32:
        x = x.float()
    if isinstance(x, PackedInput):
        rows = packed_ahead(site, x, row_factor)
    elif isinstance(x, PendingRows):
        rows = x.pack(site, row_factor, sparse)
    else:
        if site.bits is not None and current().watcher is None:
            check_finite(x, f"the tensor to be quantized at site {site.site_name!r}")
        rows = site.pack(x, row_factor)
    _show_use(site, x, rows)
    if current().records:
        record(site, x.shape[0], x.shape[1], rows, is_raw(x))
    return rows


def _show_use(site: RowQuantizer, x: Features, rows: PackedRows | None) -> None:
    uses = current().uses
    if uses is not None:
        uses(site, x, rows)


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
            acc = dense_product(rows.codes, weight.codes.t())
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
        Edges(rows.indptr, rows.indices, codes),
        Source(weight.transposed(bits), bits, weight.num_rows),
        Epilogue(weight.scale, row_scale=rows.scale.view(-1, 1), bias=bias),
        Own(*rows.affine(alpha, beta)),
    )


def _linear_mixed(rows: Rows | SparseRows, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """Product in float, where one side stayed float, on a transient copy of the other."""
    codes = weight.codes()
    if isinstance(rows, SparseRows):
        rows = rows.dequantize()
    if isinstance(rows, QTensor | BucketedRows):
        by_row = rows.axis == 0
        acc = dense_product(rows.codes().float(), codes.t())
        zero_point = rows.row_zero_point() if isinstance(rows, BucketedRows) else rows.zero_point
        offset = weight.col_sum * zero_point
        col_scale = weight.scale if by_row else weight.scale * rows.scale
        return rescale(
            acc, col_scale, offset, None, rows.scale.view(-1, 1) if by_row else None, bias
        )
    assert isinstance(rows, Tensor)
    return rescale(dense_product(rows, codes.t()), weight.scale, None, None, None, bias)


@dataclass(frozen=True)
class EdgeCodes:
    """Integer weights of the edges.

    Attributes:
        codes: ``[E, H]`` in CSR order; float32 (training, centred on ``zero_point``) or uint8.
        row_sum: ``[num_dst, H]``, sums of the (centred) codes, float32.
        scale: ``[1]``, or None for 1.
        zero_point: 0, or ``2**(bits-1)`` where weights may be negative (uint8 codes only).
        max_code: Largest code; 0 where the weights stayed in float.
        row_scale: ``[num_dst, 1]``, the scale of every target's weights, or None for 1.
    """

    codes: Tensor
    row_sum: Tensor
    scale: Tensor | None
    zero_point: int
    max_code: int
    row_scale: Tensor | None = None

    def centred(self) -> Tensor:
        """Codes minus their zero point, float32 ``[E, H]``."""
        return self.codes.float() - self.zero_point if self.zero_point else self.codes.float()


def aggregate(
    rows: Rows,
    graph: Graph,
    edges: EdgeCodes | None = None,
    row_scale: Tensor | None = None,
    bias: Tensor | None = None,
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
    if edges is not None and edges.row_scale is not None:
        row_scale = edges.row_scale if row_scale is None else row_scale * edges.row_scale
    row_offset = graph.degree.view(-1, 1) if edges is None else edges.row_sum
    if isinstance(rows, BucketedRows | AlignedRows):
        centred = None if edges is None else edges.centred()
        rows, row_offset = bucketed.summands(bucketed.align(rows), graph, centred)
    if isinstance(rows, QTensor) and edges is not None and edges.codes.dtype != torch.uint8:
        # Edge weights left in float: the sum runs in float on a transient copy of the codes.
        rows = Codes(rows.codes().float(), rows.scale, rows.zero_point, rows.bits)
    if isinstance(rows, QTensor):
        scale = _message_scale(rows.scale, edges)
        epilogue = Epilogue(scale, rows.zero_point, row_offset, row_scale, bias)
        if edges is not None and edges.zero_point:
            return _centred_sum(rows, graph, edges, epilogue)
        _check_sum(rows, graph, edges)
        assert own is None or isinstance(own, QTensor)
        codes = None if edges is None else edges.codes
        blocks = graph.blocks(rows.packed.size(1)) if edges is None else None
        total = SumTerm(
            Edges(graph.indptr, graph.indices, codes, blocks),
            source_of(rows),
            epilogue,
            Own() if own is None else Own(own=own.packed, own_factor=own_factor),
        )
        return deliver(layer, total)
    weight = None if edges is None else edges.codes
    if isinstance(rows, Codes):
        _check_codes(rows, graph, edges)
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
        owned = rows.bits is not None  # a float site's are the features themselves
        acc = graph.cached_for(codes, "sum", lambda: neighbor_sum(codes, graph), owned)
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


def _check_codes(rows: Codes, graph: Graph, edges: EdgeCodes | None) -> None:
    """The same bounds in training: what the packed model would refuse is told before."""
    if rows.bits is not None and (edges is None or edges.max_code):
        graph.check_accumulator((1 << rows.bits) - 1, 1 if edges is None else edges.max_code)


def _centred_sum(rows: QTensor, graph: Graph, edges: EdgeCodes, epilogue: Epilogue) -> Tensor:
    """Edge codes around a zero point (weights of both signs) take two sums."""
    _check_sum(rows, graph, edges)
    source = source_of(rows)
    acc = ops.spmm(Edges(graph.indptr, graph.indices, edges.codes), source)
    acc = acc - edges.zero_point * ops.spmm(Edges(graph.indptr, graph.indices), source)
    return ops.rescale(acc, epilogue)


def check_product(
    rows: Quantizer | RowQuantizer,
    weight: WeightQuantizer | PackedWeight,
    num_cols: int,
    layer: str,
) -> None:
    """Refuses a dense product that could pass int32; known before any data is seen.

    Args:
        rows: The site of the rows.
        weight: The weight's site.
        num_cols: K.
        layer: Path of the layer.

    Raises:
        AccumulatorOverflowError: Names the layer and the bound.
    """
    if rows.bits is None or weight.max_magnitude == 0:
        return
    code = (1 << rows.bits) - 1
    bound = INT32_MAX // (code * weight.max_magnitude)
    if num_cols > bound:
        raise AccumulatorOverflowError(
            f"layer {layer!r} multiplies {num_cols} columns of codes up to {code} with weights up "
            f"to {weight.max_magnitude}: int32 is exact only to {bound} columns; use fewer bits "
            f"there (input_bits, weight_bits or overrides of '{layer}.*')"
        )
