"""Reductions of neighbours other than sums, on packed rows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.engine.chain import Producer
from nodebits.engine.formats import Summands
from nodebits.engine.pending import deliver
from nodebits.engine.rows import Rows
from nodebits.engine.stage import Stage
from nodebits.graph.csr import Graph
from nodebits.ops import Edges, Epilogue, Statistic


def comparable(rows: Rows) -> Summands | None:
    """Codes of which the larger stands for the larger value; None where there are no such.

    Floats have none, and neither have rows with a scale or a zero point each.
    """
    if rows.by_row:
        return None
    summands = rows.data.summands(rows.affine)
    return None if summands is None or summands.row_zero is not None else summands


def occupied(graph: Graph) -> Tensor:
    """1 for targets with edges, 0 for others: float32 ``[num_dst, 1]``."""
    value: Tensor = graph.cached("occupied", lambda: (graph.degree > 0).float().view(-1, 1))
    return value


def extremum_rows(
    rows: Rows, summands: Summands, graph: Graph, smallest: bool, layer: Producer | None
) -> Tensor:
    """See :func:`nodebits.nn.reductions.extremum`; ``summands`` are those of ``rows``."""
    source = summands.source
    records = (
        Edges(graph.indptr, graph.indices),
        source,
        smallest,
        Epilogue(rows.scale, summands.zero_point, occupied(graph)),
    )
    shape = graph.num_dst, source.num_cols
    return deliver(layer, Stage(ops.fused_extremum, records, shape, source.packed.device))


def statistics_rows(
    rows: Rows,
    summands: Summands,
    graph: Graph,
    kinds: Sequence[Statistic],
    moved: Tensor | None,
) -> Tensor:
    """See :func:`nodebits.nn.reductions.statistics`; ``summands`` are those of ``rows``."""
    source = summands.source
    check_statistics(graph, source.bits, kinds)
    made: Tensor = ops.neighbor_statistics(
        Edges(graph.indptr, graph.indices),
        source,
        [int(kind) for kind in kinds],
        rows.scale,
        summands.zero_point,
        moved,
    )
    return made


def check_statistics(graph: Graph, bits: int, kinds: Sequence[Statistic]) -> None:
    """Refuses a graph whose sums, of squares where a variance asks for them, could pass int32.

    Raises:
        AccumulatorOverflowError: Names the row, its degree and the bound.
    """
    code = max_code(bits)
    if {Statistic.VAR, Statistic.STD} & {*kinds}:
        graph.check_accumulator(code, code)
    elif {Statistic.SUM, Statistic.MEAN} & {*kinds}:
        graph.check_accumulator(code)
