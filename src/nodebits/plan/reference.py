"""What every step of a plan means, in torch.

The compiled steps (``csrc/plan/``) give the same bits, but for those that are marked ``approx``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nodebits.core.affine import symmetric_qparams, unsigned_qparams
from nodebits.core.errors import (
    AccumulatorOverflowError,
    GraphError,
    PlanRefused,
    raise_memory_error,
)
from nodebits.core.observer import FEATURES, check_finite
from nodebits.core.outcomes import noted
from nodebits.core.own_scale import OwnScale
from nodebits.core.proven import EDGES_OF_POINTER, recall
from nodebits.core.row_norm import halved, normed, rounded_root
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph, Part, joined_graph
from nodebits.graph.adjacency import as_graph
from nodebits.graph.degree import weight_sums
from nodebits.graph.edge_table import distinct_rows
from nodebits.graph.loops import EDGE_INDEX
from nodebits.ops.operator import OPERATORS
from nodebits.ops.records import Epilogue, Output, Product, Sink, Source, Weight
from nodebits.plan.reference_widths import FUNCTIONS
from nodebits.plan.sizes import OTHER_WAY, computed

# Arguments of a feature product that a sink is made of.
_OUTPUTS = 9
_functions: dict[str, Callable[..., Any]] = dict(FUNCTIONS)


def meaning(op: str) -> Callable[..., Any]:
    """The function of a step: from its arguments to a tensor, a tuple of tensors, or None.

    Raises:
        PlanRefused: If this version has no such step.
    """
    found = _functions.get(op)
    if found is None and op in OPERATORS:
        return OPERATORS[op].schema  # type: ignore[no-any-return]
    if found is None:
        raise PlanRefused(f"the plan has a step {op!r}, which this version does not know")
    return found


def _step(function: Callable[..., Any]) -> Callable[..., Any]:
    _functions[function.__name__] = function
    return function


def _refuse(bad: Callable[[], Tensor], error: Exception) -> None:
    """Raises an error where something is wrong, if the check is not noted for later."""
    if not noted(bad) and bool(bad()):
        raise error


# --- graphs ---


def _graph(
    indptr: Tensor, indices: Tensor, weight: Tensor | None = None, form: str = EDGE_INDEX
) -> Graph:
    graph = Graph(indptr, indices, indptr.numel() - 1, None, weight, form)
    graph.checked = True
    return graph


@_step
def csr(edge_index: Tensor, num_src: int, num_dst: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compressed rows of edges, source and target: pointers, sources, and places of the edges."""
    graph = as_graph(edge_index, num_src, num_dst)
    perm = torch.arange(graph.num_edges, device=graph.device) if graph.perm is None else graph.perm
    return graph.indptr, graph.indices, perm


@_step
def self_loops(
    indptr: Tensor, indices: Tensor, perm: Tensor | None, count: int, form: str = EDGE_INDEX
) -> tuple[Tensor, Tensor]:
    """One loop for every node below ``count``, last in its row.

    Loops that are there go; those of a ``torch.sparse`` matrix stay.
    """
    made = _graph(indptr, indices, None, form).with_self_loops(count)
    return made.indptr, made.indices


@_step
def self_loops_placed(
    indptr: Tensor, indices: Tensor, perm: Tensor | None, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, with the number of every edge as it was given, behind which are those of loops."""
    graph = Graph(indptr, indices, count, perm)
    made, places = graph.with_placed_loops()
    return made.indptr, made.indices, places


@_step
def self_loops_weighted(
    indptr: Tensor,
    indices: Tensor,
    weight: Tensor | None,
    count: int,
    fill: float,
    form: str = EDGE_INDEX,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with weights, and all loops that are there go: :meth:`Graph.with_self_loops`."""
    made = _graph(indptr, indices, weight, form).with_self_loops(count, fill)
    value = (
        torch.ones(made.num_edges, device=made.device)
        if made.edge_weight is None
        else made.edge_weight
    )
    return made.indptr, made.indices, value


@_step
def by_relation(
    indptr: Tensor, indices: Tensor, perm: Tensor | None, kinds: Tensor, count: int
) -> tuple[Tensor, ...]:
    """Compressed rows of the edges of every relation: pointers and sources of each in turn."""
    graph = Graph(indptr, indices, int(indices.max()) + 1 if indices.numel() else 1, perm)
    made = graph.by_relation(kinds, count)
    return tuple(part for one in made for part in (one.indptr, one.indices))


@_step
def joined_rows(
    indptrs: list[Tensor],
    indices: list[Tensor],
    sources: list[int],
    targets: list[int],
    counts: list[int],
) -> tuple[Tensor, Tensor]:
    """Compressed rows of graphs of several types: :func:`nodebits.graph.joined_graph`."""
    graphs = map(Graph, indptrs, indices, sources)
    made = joined_graph([Part(*one) for one in zip(graphs, targets, strict=True)], counts)
    return made.indptr, made.indices


@_step
def degree(indptr: Tensor) -> Tensor:
    """In-degree of every target, float32."""
    return indptr.diff().float()


@_step
def source_degree(indices: Tensor, num_src: int, weight: Tensor | None = None) -> Tensor:
    """Out-degree of every source, weighted where edges are, float32."""
    if weight is None:
        return torch.bincount(indices, minlength=num_src).float()
    return weights_by_source(indices, num_src, weight).float()


def weights_by_source(indices: Tensor, num_src: int, weight: Tensor) -> Tensor:
    """What the weights of every source's edges add up to, float64.

    Raises:
        PlanRefused: If one is below zero.
    """
    _refuse(
        lambda: (weight < 0).any(),
        PlanRefused("edge weights below zero: the module looks at the sign of their sums"),
    )
    return weight_sums(indices, num_src, weight)


_step(distinct_rows)


@_step
def inverse_degree(indptr: Tensor) -> Tensor:
    """``1 / degree``, 0 for targets without edges."""
    return _graph(indptr, indptr[:0].int()).inverse_degree


@_step
def deg_inv_sqrt(indptr: Tensor, weight: Tensor | None) -> Tensor:
    """``d^-1/2`` of the (weighted) in-degree, 0 where it is 0."""
    indices = indptr.new_zeros(0 if weight is None else weight.numel(), dtype=torch.int32)
    return _graph(indptr, indices, weight).deg_inv_sqrt


@_step
def targets(indptr: Tensor) -> Tensor:
    """Target of every edge."""
    return torch.repeat_interleave(
        torch.arange(indptr.numel() - 1, device=indptr.device),
        indptr.diff(),
        output_size=recall(EDGES_OF_POINTER, indptr),
    )


@_step
def edge_index(indptr: Tensor, indices: Tensor, perm: Tensor) -> Tensor:
    """The edges as they were given, source and target."""
    edges = torch.stack([indices.long(), targets(indptr)])
    return torch.empty_like(edges).index_copy(1, perm, edges)


@_step
def in_order(weight: Tensor, perm: Tensor) -> Tensor:
    """Weights in the order of compressed rows."""
    check_finite(weight, "edge_weight")
    return weight[perm]


@_step
def check_degree(indptr: Tensor, bound: int) -> None:
    """Refuses in-degrees beyond ``bound``, whose sums could pass int32."""
    if noted(lambda: (indptr.diff() > bound).any()):
        return
    largest = _graph(indptr, indptr[:0].int()).max_degree
    if largest > bound:
        raise AccumulatorOverflowError(
            f"a node has in-degree {largest}, and int32 sums are exact only to {bound}"
        )


@_step
def edge_codes(weight: Tensor, indptr: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of weights that are not negative, their sums, and a scale for every target."""
    rows, count = targets(indptr), indptr.numel() - 1
    _refuse(
        lambda: (weight < 0).any(),
        PlanRefused("edge weights below zero: their codes have a zero point"),
    )
    extent = weight.new_zeros(count).scatter_reduce(0, rows, weight.abs(), "amax")
    scale, _ = unsigned_qparams(extent, bits)
    codes = torch.round(weight / scale[rows]).clamp(0, (1 << bits) - 1).view(-1, 1)
    row_sum = codes.new_zeros(count, 1).index_add(0, rows, codes)
    return codes.to(torch.uint8), row_sum, scale.view(-1, 1)


@_step
def signed_edge_codes(
    weight: Tensor, indptr: Tensor, bits: int, signs: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of weights, or of ``signs``, of which some are below zero.

    Sums are of codes less the zero point.
    """
    rows, count = targets(indptr), indptr.numel() - 1
    given = weight if signs is None else signs
    _refuse(
        lambda: ~(given < 0).any(),
        PlanRefused("no edge weight is below zero: their codes have no zero point"),
    )
    extent = weight.new_zeros(count).scatter_reduce(0, rows, weight.abs(), "amax")
    scale, zero_point = symmetric_qparams(extent, bits)
    codes = torch.round(weight / scale[rows] + zero_point[rows]).clamp(0, (1 << bits) - 1)
    codes = codes.view(-1, 1)
    centred = codes - (1 << (bits - 1))
    row_sum = codes.new_zeros(count, 1).index_add(0, rows, centred)
    return codes.to(torch.uint8), row_sum, scale.view(-1, 1)


@_step
def centred(acc: Tensor, plain: Tensor, zero_point: int) -> Tensor:
    """Sums weighed by codes around a zero point, of those by codes and of those without weights."""
    return acc - zero_point * plain


# --- rows ---


_functions["check_finite"] = lambda x: check_finite(x, FEATURES)


@_step
def pack_own(x: Tensor, bits: int, signed: bool, trim: bool = False) -> tuple[Tensor, Tensor]:
    """Packed rows, each with the scale of its own values."""
    check_finite(x, "the rows to be packed")
    own = OwnScale(bits, signed, trim)
    scale = own.scale(x)
    zero = x.new_full((x.size(0),), own.zero_point)
    return OPERATORS["quantize_pack"](x, scale, zero, 0, bits), scale


@_step
def feature_product(
    x: Tensor,
    bits: int,
    signed: bool,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    w_scale: Tensor,
    w_col_sum: Tensor,
    bias: Tensor | None,
    relu: bool,
    *outputs: Any,
) -> list[Tensor]:
    """A product of raw features, packed by their own scales, and what a sink makes of it."""
    check_finite(x, FEATURES)
    trim = len(outputs) > _OUTPUTS and bool(outputs[_OUTPUTS])
    packed, scale = pack_own(x, bits, signed, trim)
    offset = w_col_sum * (float(1 << (bits - 1)) if signed else 0.0)
    epilogue = Epilogue(w_scale, offset, None, scale.view(-1, 1), bias)
    product = Product(Source(packed, bits, x.size(1)), Weight(w_packed, w_bits, midrise), epilogue)
    *lists, post_scale, post_shift = outputs[:_OUTPUTS]
    sinks = [Output(*one) for one in zip(*lists, strict=True)]
    made: list[Tensor] = OPERATORS["fused_gemm"](
        [product], Sink(relu, sinks, post_scale, post_shift)
    )
    return made


@_step
def embedding(
    ids: Tensor, packed: Tensor, scale: Tensor, bits: int, num_cols: int, midrise: bool
) -> Tensor:
    """Rows of a packed table by number, each times the scale of its row."""
    return PackedWeight(
        packed, scale, bits=bits, num_cols=num_cols, midrise=midrise, col_sum=scale
    ).rows(ids)


_functions.update(row_sum=halved, row_norm=normed, root=rounded_root)
_functions["times"] = lambda x, factor: x * factor
_functions["filled"] = torch.full_like

# --- torch's exact operators ---

_functions.update(
    add=torch.add,
    sub=lambda x, y: x - y,
    mul=torch.mul,
    div=torch.div,
    maximum=torch.maximum,
    minimum=torch.minimum,
    relu=torch.relu,
    neg=torch.neg,
    abs=torch.abs,
    reciprocal=torch.reciprocal,
    sqrt=torch.sqrt,
    clamp_min=lambda x, low: x.clamp_min(low),
    clamp=lambda x, low, high: x.clamp(low, high),
    leaky_relu=F.leaky_relu,
    inverse=lambda x: torch.where(x > 0, 1.0 / x.clamp_min(1e-30), 0.0),
    cat=lambda parts, dim: torch.cat(parts, dim),
    stack=lambda parts, dim: torch.stack(parts, dim),
    select=lambda x, dim, i: x.select(dim, i).contiguous(),
    view=lambda x, shape: x.reshape(shape),
    transpose=lambda x, one, other: x.transpose(one, other).contiguous(),
    clone=torch.clone,
    float=lambda x: x.float(),
    arange=lambda end, dtype: torch.arange(end, dtype=getattr(torch, dtype), device="cpu"),
    full=lambda shape, value, dtype="float32": torch.full(
        shape, value, dtype=getattr(torch, dtype), device="cpu"
    ),
    index_select=lambda x, dim, index: x.index_select(dim, index),
    where=torch.where,
    max_index=lambda index: (index.max() if index.numel() else index.new_tensor(-1)).view(1),
    amax=lambda x, dim, keep: x.amax(dim, keep),
    amin=lambda x, dim, keep: x.amin(dim, keep),
    **{op: getattr(torch, op) for op in ("gt", "lt", "ge", "le", "eq", "ne")},
)


@_step
def slice(x: Tensor, dim: int, start: int, end: int | None, step: int) -> Tensor:
    """Part of an axis; ``end`` None: to its end, negative: from there."""
    size = x.size(dim)
    first, last = (
        min(max(n + size if n < 0 else n, 0), size) for n in (start, size if end is None else end)
    )
    return x.index_select(dim, torch.arange(first, max(first, last), step, device=x.device))


@_step
def expect(terms: list[Any], outcome: str) -> None:
    """Leaves the plan where a comparison of sizes, operands first, has another outcome."""
    found = computed(terms)
    if found is None or bool(found) is not (outcome == "true"):
        raise PlanRefused(OTHER_WAY)


@_step
def number(terms: list[Any]) -> Tensor:
    """A whole number that is computed of sizes, operands first, int64 ``[1]``."""
    found = computed(terms)
    if found is None or int(found) != found:
        raise PlanRefused(OTHER_WAY)
    return torch.tensor([int(found)], device="cpu")


@_step
def shift(x: Tensor, by: int) -> Tensor:
    """int64 plus a whole number, such as that of the nodes before these."""
    return x + by


@_step
def segment_sum(src: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums of the rows with one index, in their order."""
    return src.new_zeros(size, *src.shape[1:]).index_add(0, _checked(index, size), src)


def _checked(index: Tensor, size: int) -> Tensor:
    if index.numel():
        _refuse(
            lambda: (index.min() < 0) | (index.max() >= size),
            GraphError(f"an index of segments is outside of [0, {size - 1}]"),
        )
    return index


def _extreme(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    wide = _checked(index, size).view(-1, 1).expand_as(src)
    return src.new_zeros(size, src.size(1)).scatter_reduce(0, wide, src, reduce, include_self=False)


_functions["segment_max"] = lambda src, index, size: _extreme(src, index, size, "amax")
_functions["segment_min"] = lambda src, index, size: _extreme(src, index, size, "amin")

# --- what torch rounds in its own way ---

_ROUNDED = ("exp", "log", "tanh", "sigmoid", "sin", "cos", "expm1", "log1p", "rsqrt")
_functions.update({op: getattr(torch, op) for op in _ROUNDED})
_functions.update(
    elu=F.elu,
    gelu=F.gelu,
    silu=F.silu,
    softmax=torch.softmax,
    log_softmax=torch.log_softmax,
    sum=lambda x, dims, keep: x.sum(dims, keep),
    mean=lambda x, dims, keep: x.mean(dims, keep),
    norm=lambda x, dims, keep: torch.linalg.vector_norm(x, 2.0, dims, keep),
    var=lambda x, dims, correction, keep: x.var(dims, correction=correction, keepdim=keep),
    std=lambda x, dims, correction, keep: x.std(dims, correction=correction, keepdim=keep),
    layer_norm=lambda x, shape, w, b, eps: F.layer_norm(x, shape, w, b, eps),
)


def _torch(name: str, given: list[list[Any]]) -> Any:
    namespace, op, overload = name.split(".")
    found = getattr(getattr(getattr(torch.ops, namespace), op), overload)
    keywords = {key: _named(value) for key, value in given}
    kept = {a.name for a in found._schema.arguments}
    try:
        return found(**{key: value for key, value in keywords.items() if key in kept})
    except RuntimeError as error:
        raise_memory_error(error)
        # torch chose the operator for the recorded sizes: oneDNN's LSTM takes no empty batch.
        raise PlanRefused(f"torch's {name!r} does not take these data: {error}") from error


_functions["torch"] = _torch


def _named(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value[6:])
    return torch.device(value) if value == "cpu" else value
