"""What the steps of a plan mean on a device: as on the CPU, where nobody looks at a value.

Most are those of :mod:`nodebits.plan.reference`, whose checks note what they find
(:mod:`nodebits.core.outcomes`). Here are those that make tensors of their own, whose size would
follow from values, or that torch adds up in an order of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nodebits.core.context import current
from nodebits.core.errors import PlanRefused
from nodebits.core.outcomes import is_fixed, noted
from nodebits.core.proven import EDGES_OF_POINTER, INDICES_BELOW, remember
from nodebits.graph.degree import weight_sums
from nodebits.graph.index_range import outside
from nodebits.ops import coo_to_csr
from nodebits.plan.device.loops import NewLoops, looped, looped_weighted
from nodebits.plan.reference import meaning
from nodebits.plan.sizes import OTHER_WAY, computed

# Functions that are told the device first, and others; both by step.
_MAKERS: dict[str, Callable[..., Any]] = {}
_FUNCTIONS: dict[str, Callable[..., Any]] = {}


class Steps:
    """The functions of steps on a device.

    Args:
        device: Where their tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def meaning(self, op: str) -> Callable[..., Any]:
        """The function of a step, as :func:`nodebits.plan.reference.meaning` has them.

        Raises:
            PlanRefused: If this version has no such step.
        """
        maker = _MAKERS.get(op)
        if maker is not None:
            return lambda *args: maker(self._device, *args)
        return _FUNCTIONS.get(op) or meaning(op)


def _step(function: Callable[..., Any]) -> Callable[..., Any]:
    _FUNCTIONS[function.__name__] = function
    return function


def _maker(function: Callable[..., Any]) -> Callable[..., Any]:
    _MAKERS[function.__name__] = function
    return function


def know_rows(indptr: Tensor, indices: Tensor, num_src: int | None) -> None:
    """Notes what operators would look at: that rows have these edges, of so many sources.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``.
        num_src: None where that is not known.
    """
    remember(EDGES_OF_POINTER, indices.numel(), indptr)
    if num_src is not None:
        remember(INDICES_BELOW, num_src, indices)


def rows_of(source: Tensor, target: Tensor, num_src: int, num_dst: int) -> tuple[Tensor, ...]:
    """Compressed rows of edges that are known to lead to nodes."""
    indptr, indices, perm = coo_to_csr.reference(target, source, num_dst)
    know_rows(indptr, indices, num_src)
    return indptr, indices, perm


# --- graphs ---


@_step
def csr(edge_index: Tensor, num_src: int, num_dst: int) -> tuple[Tensor, ...]:
    """Edges that lead to no node are noted, and lead to the first one."""
    edges = edge_index.long()
    if edges.numel():
        if not (num_src and num_dst):
            raise PlanRefused("there are edges, and no nodes")
        bad = outside(edges, num_src, num_dst)
        if noted(bad.any):
            edges = torch.where(bad, 0, edges)
    return rows_of(edges[0], edges[1], num_src, num_dst)


@_step
def self_loops(indptr: Tensor, indices: Tensor, *about: Any) -> Any:
    """Where sizes are fixed the loops that go become edges of the last node, which is padding.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``.
        *about: As :mod:`nodebits.plan.reference` has them.
    """
    if not is_fixed():
        return _known(meaning("self_loops")(indptr, indices, *about))
    _, count, *form = about
    edges = targets_of(indptr, indices), indices
    source, target = looped(*edges, count, *form)
    rows = indptr.numel() - 1
    return rows_of(source, target, rows, rows)[:2]


@_step
def self_loops_weighted(indptr: Tensor, indices: Tensor, weight: Tensor | None, *about: Any) -> Any:
    """Likewise, with weights."""
    if not is_fixed():
        return _known(meaning("self_loops_weighted")(indptr, indices, weight, *about))
    edges = targets_of(indptr, indices), indices, weight
    source, target, values = looped_weighted(*edges, NewLoops(*about))
    rows = indptr.numel() - 1
    pointer, found, perm = rows_of(source, target, rows, rows)
    return pointer, found, values[perm]


def _known(made: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Rows of which operators need not look how many edges they have."""
    know_rows(made[0], made[1], None)
    return made


def targets_of(indptr: Tensor, indices: Tensor) -> Tensor:
    """Target of every edge, int64 ``[E]``."""
    rows = torch.arange(indptr.numel() - 1, device=indptr.device)
    return torch.repeat_interleave(rows, indptr.diff(), output_size=indices.numel())


@_step
def edge_index(indptr: Tensor, indices: Tensor, perm: Tensor) -> Tensor:
    """As :mod:`nodebits.plan.reference` has it, of the edges that there are."""
    edges = torch.stack([indices.long(), targets_of(indptr, indices)])
    return torch.empty_like(edges).index_copy(1, perm, edges)


@_step
def check_degree(indptr: Tensor, bound: int) -> None:
    """Of the nodes that are no padding."""
    outcomes, degree = current().outcomes, indptr.diff()
    if outcomes is not None and outcomes.real is not None:
        degree = degree * (torch.arange(degree.numel(), device=degree.device) < outcomes.real)
    noted((degree > bound).any)


@_step
def distinct_rows(
    features: Tensor, perm: Tensor | None, ordered: bool, more: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as they are: how many differ would follow from values."""
    rows = features if more is None else torch.cat([features, more])
    if perm is None or ordered:
        rows = rows if perm is None else rows.index_select(0, perm)
        places = torch.arange(rows.size(0), device=rows.device)
    else:
        places = perm
    return rows, places, places.int()


@_step
def source_degree(indices: Tensor, num_src: int, weight: Tensor | None = None) -> Tensor:
    """Counted by adding ones, since torch's count would wait for the largest index."""
    if weight is None:
        ones = torch.ones_like(indices, dtype=torch.int64)
        return ones.new_zeros(num_src).scatter_add(0, indices.long(), ones).float()
    noted((weight < 0).any)
    return weight_sums(indices, num_src, weight).float()


@_step
def fingerprint(indptr: Tensor, indices: Tensor, num_src: int) -> Tensor:
    """:attr:`nodebits.graph.Graph.fingerprint`, int64 ``[1]``."""
    target = (targets_of(indptr, indices) + 1) * -7046029254386353131
    source = (indices.long() + 1) * -4417276706812531889
    mixed = (target ^ (target >> 29)) * (source ^ (source >> 31))
    shape = (num_src * 1_000_003 + indptr.numel() - 1) * 2_654_435_761
    edges = (mixed ^ (mixed >> 27)).sum().view(1)
    return (edges + _wrapped(shape)) & (2**63 - 1)


def _wrapped(value: int) -> int:
    """A whole number as int64 has it."""
    return (value + 2**63) % 2**64 - 2**63


@_maker
def own_nodes(
    device: torch.device, site: str, found: Tensor | None, known: int, num_nodes: int, rows: int
) -> Tensor:
    """Another graph than the site's own is noted."""
    if rows != num_nodes:
        raise PlanRefused(f"site {site!r} has a bitwidth for each node of another graph")
    if found is not None:
        noted((found != known).any)
    return torch.arange(rows, device=device)


@_maker
def own_nodes_or(
    device: torch.device,
    site: str,
    found: Tensor | None,
    known: int,
    num_nodes: int,
    nearest: Tensor,
) -> Tensor:
    """Chosen on the device."""
    if nearest.numel() != num_nodes:
        return nearest
    own = torch.arange(num_nodes, device=device)
    return own if found is None else torch.where(found == known, own, nearest)


# --- values that follow from sizes ---


@_maker
def arange(device: torch.device, end: int, dtype: str) -> Tensor:
    """Numbers from 0."""
    return torch.arange(end, dtype=getattr(torch, dtype), device=device)


@_maker
def full(device: torch.device, shape: list[int], value: float, dtype: str = "float32") -> Tensor:
    """One value, as often as asked for."""
    return torch.full(shape, value, dtype=getattr(torch, dtype), device=device)


@_step
def number(terms: list[Any]) -> int:
    """A whole number of sizes, which becomes a size again."""
    found = computed(terms)
    if found is None or int(found) != found:
        raise PlanRefused(OTHER_WAY)
    return int(found)


@_maker
def _torch(device: torch.device, name: str, given: list[list[Any]]) -> Any:
    made = [[key, device if value == "cpu" else value] for key, value in given]
    return meaning("torch")(name, made)


_MAKERS["torch"] = _MAKERS.pop("_torch")

# --- sums of rows with one index ---


@_step
def segment_sum(src: Tensor, index: Tensor, size: int) -> Tensor:
    """In the order of the rows, which torch's ``index_add`` does not keep on a card."""
    if not (src.numel() and size):
        return src.new_zeros(size, *src.shape[1:])
    index = _within(index, size)
    order = index.argsort(stable=True)
    numbers = torch.arange(size + 1, device=index.device)
    offsets = torch.searchsorted(index.index_select(0, order), numbers)
    rows = src.index_select(0, order)
    wide = rows.reshape(rows.size(0), -1)
    made = torch.segment_reduce(
        wide, "sum", lengths=offsets.diff(), axis=0, unsafe=True, initial=0.0
    )
    return made.view(size, *src.shape[1:])


def _within(index: Tensor, size: int) -> Tensor:
    """Places within so many, at which others are noted."""
    if not index.numel():
        return index
    if not size:
        raise PlanRefused("there are indices, and no rows")
    bad = (index < 0) | (index >= size)
    return torch.where(bad, 0, index) if noted(bad.any) else index


@_step
def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Where torch would stop the whole device, an index that leads to no row is noted."""
    return x.index_select(dim, _within(index, x.size(dim)))


@_step
def embedding(ids: Tensor, packed: Tensor, *about: Any) -> Any:
    """Likewise."""
    return meaning("embedding")(_within(ids, packed.size(0)), packed, *about)


_EXTREMES: Mapping[str, str] = {"segment_max": "amax", "segment_min": "amin"}
for _op in _EXTREMES:

    def _extreme(src: Tensor, index: Tensor, size: int, op: str = _op) -> Tensor:
        made: Tensor = meaning(op)(src, _within(index, size), size)
        return made

    _FUNCTIONS[_op] = _extreme
