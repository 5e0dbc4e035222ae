"""Weights of edges as codes, with a scale for every target."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import max_code
from nodebits.core.errors import ConfigError
from nodebits.core.recorded import is_recording, no_step, recorded, unrecorded
from nodebits.engine.edges import EdgeCodes
from nodebits.engine.recording import record
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, quantize_rows
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.edge import EdgeQuantizer, EdgeRows, quantize_edges, warn_if_lost


def edge_codes(site: Quantizer | RowQuantizer, graph: Graph, path: str) -> EdgeCodes:
    """Quantizes the edge weights of ``graph``.

    Weights of both signs get the zero point ``2**(bits-1)``. Constant weights are quantized once.

    Args:
        site: For the weights.
        graph: Topology and weights.
        path: Of the site, for warnings.
    """
    assert graph.edge_weight is not None
    weight = graph.edge_weight.view(-1, 1)
    if graph.edge_weight.requires_grad or not isinstance(site, EdgeQuantizer | EdgeRows):
        return codes_of(site, graph, weight)
    _note(site, graph, weight)

    def make() -> EdgeCodes:
        codes, centred = _by_target(site, graph, weight)
        if not is_recording():
            warn_if_lost(weight, centred, graph, path)
        return codes

    key = ("edge codes", type(site), site.bits, torch.is_inference_mode_enabled())
    known: EdgeCodes = graph.cached(key, make)
    return known


def with_row_scales(
    site: Quantizer | RowQuantizer,
    graph: Graph,
    weight: Tensor | None,
    rows: AnyRows,
    x: Tensor,
    factor: Tensor | None = None,
) -> tuple[AnyRows, EdgeCodes]:
    """Rows with a scale each as rows that a sum takes: the scales are part of the weights of edges.

    Args:
        site: For the weights.
        graph: Topology.
        weight: float32 ``[E, H]`` in CSR order, or None for 1.
        rows: ``[num_src, C]`` of one zero point.
        x: What became ``rows``, of any further dimensions.
        factor: float32 ``[num_src]``, by which ``x`` was multiplied first, or None. At a source
            without edges of its own it may be 0.

    Returns:
        ``rows`` with scale 1, and the codes of the weights.
    """
    # The scale of a row of zeros is 1, and would make that of the targets that it reaches.
    size = x.reshape(graph.num_src, rows.num_cols).abs().amax(1)
    size = size if factor is None else size * factor
    scale = torch.where(size > 0, rows.scale.view(-1), 0.0)
    by_source = scale.index_select(0, graph.indices).view(-1, 1)
    # Where rows are zeros so are the products: the weights themselves say which signs there are.
    signs = None if weight is None else weight.detach()
    weight = by_source if weight is None else weight * by_source
    codes = codes_of(site, graph, weight, signs)
    if isinstance(site, EdgeQuantizer) and site.calibrating and weight.size(1) == 1:
        warn_if_lost(weight, codes.codes, graph, site.site_name)
    return rows.unscaled(), codes


def codes_of(
    site: Quantizer | RowQuantizer, graph: Graph, weight: Tensor, signs: Tensor | None = None
) -> EdgeCodes:
    """Quantizes what stands on the edges of ``graph`` in this forward.

    Args:
        site: For the weights.
        graph: Topology.
        weight: float32 ``[E, H]`` in CSR order.
        signs: Whether one of these is below zero decides about a zero point; default: the weights.
    """
    if isinstance(site, EdgeQuantizer | EdgeRows):
        _note(site, graph, weight)
        return _by_target(site, graph, weight, signs)[0]
    rows = quantize_rows(site, weight)
    values = rows.float_codes()
    if rows.is_float:
        return EdgeCodes(values, _row_sum(values, graph), None, 0, 0)
    if not isinstance(site, RowQuantizer) or rows.by_row or rows.bits is None:
        raise ConfigError("edge weights take one width and a scale per target, or stay in float")
    # One scale for all edges: an older file.
    zero_point = int(rows.zero_point)
    row_sum = _row_sum(values - zero_point, graph)
    return EdgeCodes(values.to(torch.uint8), row_sum, rows.scale, zero_point, max_code(rows.bits))


def _note(site: EdgeQuantizer | EdgeRows, graph: Graph, weight: Tensor) -> None:
    heads = weight.size(1)
    if isinstance(site, EdgeRows):
        record(site, graph.num_edges, heads, num_scales=graph.num_dst * heads)
    else:
        site.last_shape = (graph.num_edges, heads)


def _by_target(
    site: EdgeQuantizer | EdgeRows, graph: Graph, weight: Tensor, signs: Tensor | None = None
) -> tuple[EdgeCodes, Tensor]:
    """Codes, and the same less their zero point."""
    bits = int(site.bits or 0)
    if is_recording() and isinstance(site, EdgeRows):
        return _one_step(graph, weight, bits, signs)
    codes, scale, zero_point = quantize_edges(weight, graph, bits, signs)
    centred = codes - zero_point if zero_point else codes
    row_sum = _row_sum(centred, graph)
    if isinstance(site, EdgeRows):
        packed = codes.to(torch.uint8)
        made = EdgeCodes(packed, row_sum, None, zero_point, max_code(bits), scale)
    else:
        made = EdgeCodes(centred, row_sum, None, 0, max_code(bits), scale)
    return made, centred


def _one_step(
    graph: Graph, weight: Tensor, bits: int, signs: Tensor | None
) -> tuple[EdgeCodes, Tensor]:
    """A weight per edge, as a step of a plan: one for weights of both signs, one for others."""
    if weight.size(1) != 1:
        no_step("its edge weights are several per edge")
    given = weight if signs is None else signs
    signed = unrecorded(lambda: bool((given.detach() < 0).any()))
    zero_point = 1 << (bits - 1) if signed else 0

    def run() -> tuple[Tensor, Tensor, Tensor]:
        codes, scale, _ = quantize_edges(weight.view(-1, 1), graph, bits, signs)
        return codes.to(torch.uint8), _row_sum(codes - zero_point, graph), scale

    step = "signed_edge_codes" if signed else "edge_codes"
    more = [signs.view(-1)] if signed and signs is not None else []
    codes, row_sum, scale = recorded(step, run, weight.view(-1), graph.indptr, bits, *more)
    return EdgeCodes(codes, row_sum, None, zero_point, max_code(bits), scale), codes


def _row_sum(codes: Tensor, graph: Graph) -> Tensor:
    return codes.new_zeros(graph.num_dst, codes.size(1)).index_add(0, graph.rows, codes)
