"""Sums and extremes over edges of two functions of codes that meet there, looked up in tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.errors import ConfigError
from nodebits.core.recorded import no_step
from nodebits.engine.recording import record
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, Site
from nodebits.nn.pairs import Meeting, edge_blocks, meeting
from nodebits.nn.quantizers.base import Quantizer
from nodebits.ops import Edges
from nodebits.ops.definitions.gates import LEVELS

Smooth = Callable[[Tensor], Tensor]


class _Table(NamedTuple):
    """A function of the sum of codes, in codes.

    Attributes:
        codes: float64 ``[768]``, integers.
        zero_point: Sum of codes that stands for zero, float32 ``[1]``.
        scale: Of the sum, float32 ``[1]``.
        unit: What a code of the function stands for, float64.
        function: It.
    """

    codes: Tensor
    zero_point: Tensor
    scale: Tensor
    unit: Tensor
    function: Smooth

    @classmethod
    def of(
        cls, met: Sequence[Meeting], function: Smooth, top: int, most: Tensor | None, name: str
    ) -> _Table:
        """The table of rows that meet; its largest code stands for ``most``.

        ``most`` None is the function of the largest sum.
        """
        first = met[0].rows
        if first.scale.numel() != 1 or met[0].zero_point.numel() != 1:
            raise ConfigError(f"site {name!r} is read by a table: it needs one scale for all")
        assert first.bits is not None
        zero_point = met[0].zero_point
        for other in met[1:]:
            zero_point = zero_point + other.zero_point
        sums = torch.arange(LEVELS, device=first.scale.device)
        # In float64: exponentials of float32 are not rounded alike on every machine.
        levels = function((sums - zero_point.double()) * first.scale.double())
        most = levels[len(met) * max_code(first.bits)] if most is None else most.double()
        unit = (most / top).detach()
        codes = (levels / unit).round().clamp(max=top)
        return cls(codes, zero_point, first.scale, unit, function)

    def looked_up(self, total: Tensor) -> Tensor:
        """Codes of sums, with the gradient of the function."""
        at = total.detach().round().clamp(0, LEVELS - 1).int()
        if not torch.is_grad_enabled():
            return self.codes.float()[at]
        smooth = self.function((total - self.zero_point) * self.scale) / self.unit.float()
        return smooth + (self.codes.float()[at] - smooth).detach()


def gated_product(
    site: Site,
    gates: Sequence[AnyRows],
    values: Sequence[AnyRows],
    graph: Graph,
    places: Tensor | None,
    names: tuple[str, str],
    largest: bool = False,
) -> Tensor:
    """``sum_j sigmoid(a_j + a_i + a_ij) * softplus(b_j + b_i + b_ij)`` over a target's edges.

    Or the largest of these products: none is below zero, in codes too.

    Args:
        site: For the results of both functions.
        gates: a of sources, of targets and, if there are some, of edges, from one site.
        values: b of the same, from another.
        graph: Topology.
        places: int64 ``[E]``, the row of every edge; None where they come as the edges do.
        names: Of the sites of both, for errors.
        largest: Whether the largest is taken, in place of the sum.

    Returns:
        float32 ``[num_dst, C]``, 0 for targets without edges.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
        ConfigError: If a column has a scale of its own.
    """
    if site.bits is None or any(rows.is_float for rows in (*gates, *values)):
        no_step("its gates, or what they weigh, are floats")
        a, b = ([rows.dequantize() for rows in part] for part in (gates, values))
        return _by_blocks(graph, places, a, b, (torch.sigmoid, F.softplus), largest)
    top = max_code(site.bits)
    if not largest:
        graph.check_accumulator(top, top)
    a_met = [meeting(rows, names[0]) for rows in gates]
    b_met = [meeting(rows, names[1]) for rows in values]
    one = torch.ones((), device=a_met[0].zero_point.device)
    gate = _Table.of(a_met, torch.sigmoid, top, one, names[0])
    value = _Table.of(b_met, F.softplus, top, None, names[1])
    scale = (gate.unit * value.unit).float().view(1)
    columns = a_met[0].num_cols
    if isinstance(site, RowQuantizer) and a_met[0].summands is not None:
        record(site, graph.num_edges, columns, num_scales=0)
        pairs = [both for met in (a_met, b_met) for both in met[:2]]
        sources = [m.summands.source for m in (*pairs, *a_met[2:], *b_met[2:]) if m.summands]
        made: Tensor = ops.gated_product(
            Edges(graph.indptr, graph.indices),
            sources,
            places if len(sources) > len(pairs) else None,
            gate.codes.to(torch.uint8),
            value.codes.to(torch.uint8),
            scale,
            largest,
        )
        return made
    if isinstance(site, Quantizer):
        site.last_shape = graph.num_edges, columns
    a, b = [m.codes for m in a_met], [m.codes for m in b_met]
    return _by_blocks(graph, places, a, b, (gate.looked_up, value.looked_up), largest) * scale


def _by_blocks(
    graph: Graph,
    places: Tensor | None,
    gates: Sequence[Tensor],
    values: Sequence[Tensor],
    functions: tuple[Smooth, Smooth],
    largest: bool,
) -> Tensor:
    gate, value = functions
    out = gates[0].new_zeros(graph.num_dst, gates[0].size(1))
    for targets, sources, part in edge_blocks(graph):
        of_edges = part if places is None else places[part]

        def total(
            rows: Sequence[Tensor],
            targets: Tensor = targets,
            sources: Tensor = sources,
            of_edges: Tensor | slice = of_edges,
        ) -> Tensor:
            ends = rows[0].index_select(0, sources) + rows[1].index_select(0, targets)
            return ends if len(rows) < 3 else ends + rows[2][of_edges]

        product = gate(total(gates)) * value(total(values))
        if largest:
            index = targets.view(-1, 1).expand_as(product)
            out = out.scatter_reduce(0, index, product, "amax")
        else:
            out = out.index_add(0, targets, product)
    return out
