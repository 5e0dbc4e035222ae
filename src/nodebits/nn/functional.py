"""The arithmetic of a layer, once for both forms of its rows.

A site gives :class:`Codes` (training: float32 codes with gradients) or :class:`Rows` (inference:
packed codes). The functions here take either and follow one formula, so a layer has one ``forward``
and the packed model computes what training simulated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.core.context import current
from nodebits.core.errors import (
    AccumulatorOverflowError,
    ConfigError,
    NotCalibratedError,
    UnsupportedLayerError,
)
from nodebits.core.observer import check_finite
from nodebits.engine.chain import Producer
from nodebits.engine.edges import EdgeCodes
from nodebits.engine.epilogue import rescale
from nodebits.engine.packed_input import PackedInput, packed_ahead
from nodebits.engine.pending import waiting
from nodebits.engine.products import product
from nodebits.engine.recording import record
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import RowQuantizer
from nodebits.engine.sums import Addition, aggregate_rows, zero_point_sum
from nodebits.engine.weight import PackedWeight
from nodebits.graph.csr import INT32_MAX, Graph
from nodebits.graph.reorder import ReorderedGraph
from nodebits.nn.inputs import Features, check_rows
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightCodes, WeightQuantizer
from nodebits.ops.autograd import dense_product, neighbor_sum
from nodebits.ops.learned import CodesProduct, OwnSum

AnyRows = Codes | Rows
Site = Quantizer | RowQuantizer


def quantize_rows(site: Site, x: Features, row_factor: Tensor | None = None) -> AnyRows:
    """Rows at a site.

    Args:
        site: Training or frozen quantizer.
        x: float32 ``[N, C]``, or features packed ahead.
        row_factor: float32 ``[N]``, multiplied into the rows first.

    Raises:
        ConfigError: If features packed ahead reach a site that they were not packed for.
        UnsupportedLayerError: If a packed model's own forward differentiates its layers.
    """
    check_rows(site, x)
    if isinstance(site, RowQuantizer):
        return _frozen_rows(site, x, row_factor, False)
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


def product_rows(site: Site, x: Features) -> AnyRows:
    """:func:`quantize_rows` for :func:`linear`: raw features may be sparse, or still wait."""
    check_rows(site, x)
    if not isinstance(site, RowQuantizer):
        return quantize_rows(site, x)
    pending = waiting(x)
    rows = None if pending is None else pending.wait_for(site)
    if rows is None:
        return _frozen_rows(site, x, None, True)
    _show_use(site, x, None)
    record(site, x.shape[0], x.shape[1], None, True)
    return rows


def _frozen_rows(site: RowQuantizer, x: Features, row_factor: Tensor | None, sparse: bool) -> Rows:
    if isinstance(x, Tensor):
        asked = x.requires_grad and torch.is_grad_enabled()  # of predict, it is not
        if asked and site.bits is not None and current().chains is not None:
            raise UnsupportedLayerError(
                f"site {site.site_name!r} got a tensor whose gradient is asked for within the "
                "model's own forward, and codes have none: leave the layer in float with "
                f"overrides={{{site.site_name.rpartition('.')[0] + '.*'!r}: 32}}"
            )
        x = x if x.dtype == torch.float32 else x.float()
    pending = waiting(x)
    if isinstance(x, PackedInput):
        rows = packed_ahead(site, x, row_factor)
    elif pending is not None:
        rows = pending.pack(site, row_factor, sparse)
    else:
        if site.bits is not None:
            check_finite(x, f"the tensor to be quantized at site {site.site_name!r}")
        rows = site.pack(x, row_factor)
    _show_use(site, x, rows)
    if current().records:
        record(site, x.shape[0], x.shape[1], rows, is_raw(x))
    return rows


def _show_use(site: RowQuantizer, x: Features, rows: Rows | None) -> None:
    uses = current().uses
    if uses is not None:
        uses(site, x, rows)


def is_raw(x: Features) -> bool:
    """Whether these are the features that a packed model was given, not a layer's result."""
    pending = waiting(x)
    return isinstance(x, PackedInput) or (pending is not None and pending.is_raw)


def dequantize_rows(rows: AnyRows) -> Tensor:
    """Float values of either form."""
    return rows.dequantize()


def _scaled_rows(rows: Codes, factor: Tensor) -> Tensor:
    """Values of codes times one ``factor``."""
    if factor.requires_grad or not rows.is_plain:
        return factor * rows.dequantize()
    every = factor.view(1, 1).expand(rows.codes.size(0), 1)
    return rescale(rows.codes, rows.scale, rows.zero_point, None, every, None)


def linear(
    rows: AnyRows,
    weight: WeightCodes | PackedWeight,
    bias: Tensor | None,
    *,
    sparse: Graph | None = None,
    layer: Producer | None = None,
    row_factor: Tensor | None = None,
) -> Tensor:
    """``rows @ weight^T + bias`` on codes.

    Args:
        rows: ``[N, K]``.
        weight: ``[M, K]``.
        bias: float32 ``[M]`` or None.
        sparse: The codes of ``rows`` as sparse rows, where they are known to be sparse (training).
        layer: Whose result it is, if it may wait for its reader (:mod:`nodebits.engine.pending`).
        row_factor: float32 ``[N, 1]``, by which the product is multiplied before the bias.

    Returns:
        float32 ``[N, M]``.
    """
    if isinstance(weight, PackedWeight):
        return product(packed(rows), weight, bias, layer, row_factor)
    codes = trained(rows)
    if sparse is None and row_factor is None and _as_one_step(codes, codes.scale.numel() == 1):
        if weight.scale.numel() == weight.codes.size(0):
            step: Tensor = CodesProduct.apply(
                codes.codes, codes.scale, codes.zero_point, *weight, bias
            )
            return step
    if sparse is not None:
        value = None if sparse.edge_weight is None else sparse.edge_weight.view(-1, 1)
        acc = neighbor_sum(weight.codes.t(), sparse, value)
        offset = None
    else:
        acc = dense_product(codes.codes, weight.codes.t())
        offset = None if codes.bits is None else codes.zero_point * weight.codes.sum(1)
    by_row = codes.scale.dim() == 2
    col_scale = weight.scale if by_row else weight.scale * codes.scale
    row_scale = codes.scale if by_row else None
    if row_factor is not None:
        row_scale = row_factor if row_scale is None else row_scale * row_factor
    return rescale(acc, col_scale, offset, None, row_scale, bias)


def _as_one_step(codes: Codes, plain: bool) -> bool:
    """Whether a function of autograd makes an operation on these codes of training."""
    values = codes.codes
    if not plain or codes.bits is None or not values.requires_grad or values.dim() != 2:
        return False
    if values.device.type not in ("cpu", "cuda"):
        return False
    return values.dtype == torch.float32 and not torch.compiler.is_compiling()


def packed(rows: AnyRows) -> Rows:
    """``rows`` of a frozen site.

    Raises:
        ConfigError: If a model is frozen in parts.
    """
    if isinstance(rows, Rows):
        return rows
    raise ConfigError("codes of training meet a packed weight: convert the whole model")


def trained(rows: AnyRows) -> Codes:
    """``rows`` of a site that is not frozen.

    Raises:
        ConfigError: If a model is frozen in parts.
    """
    if isinstance(rows, Codes):
        return rows
    raise ConfigError("packed rows need a converted model: call nodebits.convert first")


def aggregate(
    rows: AnyRows,
    graph: Graph,
    edges: EdgeCodes | None = None,
    row_scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    own: AnyRows | None = None,
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
        layer: Whose result it is, if it may wait for its reader (:mod:`nodebits.engine.pending`).

    Returns:
        float32 ``[num_dst, C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
    """
    if row_scale is not None and row_scale.dim() == 1:
        row_scale = row_scale.view(-1, 1)
    if edges is not None and edges.row_scale is not None:
        row_scale = edges.row_scale if row_scale is None else row_scale * edges.row_scale
    if isinstance(rows, Rows):
        mine = None if own is None else packed(own)
        then = Addition(row_scale, bias, mine, own_factor, layer)
        return aggregate_rows(rows, graph, edges, then)
    if own is not None and own_factor is not None:
        alone = own is rows and edges is None and row_scale is None and bias is None
        fixed = rows.zero_point.dim() == 1 and not rows.zero_point.requires_grad
        if alone and fixed and own_factor.numel() == 1 and _as_one_step(rows, rows.is_plain):
            graph.check_accumulator((1 << int(rows.bits or 0)) - 1)
            step: Tensor = OwnSum.apply(rows.codes, rows.scale, rows.zero_point, own_factor, graph)
            return step
        out = aggregate(rows, graph, edges, row_scale, bias)
        return out + _scaled_rows(trained(own), own_factor)
    row_offset = graph.degree.view(-1, 1) if edges is None else edges.row_sum
    weight = None if edges is None else edges.codes
    if rows.bits is not None and (edges is None or edges.max_code):
        # What the packed model would refuse is told before.
        graph.check_accumulator((1 << rows.bits) - 1, 1 if edges is None else edges.max_code)
    if rows.zero_point.dim() == 2:  # a zero point per row: its sum takes the place of the degree
        row_offset = zero_point_sum(rows.zero_point, graph, weight)
        rows = rows._replace(zero_point=torch.ones_like(rows.scale[:1]))
    if rows.scale.dim() == 2:
        raise ConfigError(
            "the message site needs one scale per tensor or column: a scale per row does not "
            "commute with the sum over rows"
        )
    if weight is None:
        # Constant codes (raw features) have a constant sum.
        codes = rows.codes
        owned = rows.bits is not None  # a float site's are the features themselves
        acc = graph.cached_for(codes, "sum", lambda: neighbor_sum(codes, graph), owned)
    else:
        acc = neighbor_sum(rows.codes, graph, weight)
    offset = None if rows.bits is None else rows.zero_point
    scale = rows.scale if edges is None or edges.scale is None else rows.scale * edges.scale
    return rescale(acc, scale, offset, row_offset, row_scale, bias)


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
