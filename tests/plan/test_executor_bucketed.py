"""Rows of several widths: the steps' definitions, on every level and thread count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, same
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodebitsError
from nodebits.core.row_layout import RowLayout, pack_widths
from nodebits.graph.adjacency import as_graph
from nodebits.ops import Epilogue
from nodebits.plan.reference import meaning

ROWS, COLS = 203, 37


def check(op: str, args: list[Any], outs: int = 1) -> list[Tensor]:
    """A step whose tensors are inputs, and one whose tensors are constants."""
    expected = meaning(op)(*args)
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    found: list[Tensor] = []
    for as_input in (True, False):
        case = Case()
        placed = [case.input(arg) if as_input and isinstance(arg, Tensor) else arg for arg in args]
        refs = case.step(op, *placed, outs=outs)
        found = case.everywhere(*([refs] if outs == 1 else refs))
        for got, want in zip(found, expected, strict=True):
            assert same(got, want), op
    return found


def layout(rows: int = ROWS, seed: int = 0, some: tuple[int, int] = (1, 9)) -> RowLayout:
    generator = torch.Generator().manual_seed(seed)
    return RowLayout.of(torch.randint(*some, (rows,), generator=generator, dtype=torch.uint8))


def counts_of(made: RowLayout) -> Tensor:
    return torch.tensor(made.counts)


@pytest.mark.parametrize("rows", [ROWS, 1, 0])
def test_row_layout(rows: int) -> None:
    widths = layout(rows).widths
    order, position, counts = check("row_layout", [widths], outs=3)
    made = RowLayout.of(widths)
    assert same(order, made.order) and same(position, made.position)
    assert tuple(counts.tolist()) == made.counts


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("factor", [False, True])
def test_quantize_pack_bucketed(axis: int, factor: bool) -> None:
    made, x = layout(), torch.randn(ROWS, COLS)
    scale = torch.rand({-1: 1, 0: ROWS, 1: COLS}[axis]) + 0.05
    args = [x, scale, torch.rand(8) * 3, axis, made.widths, made.position]
    check("quantize_pack_bucketed", [*args, torch.rand(ROWS) if factor else None])


def packed(made: RowLayout, cols: int) -> Tensor:
    x, scale = torch.rand(made.num_rows, cols), torch.full((1,), 0.01)
    return ops.quantize_pack_bucketed(x, scale, torch.zeros(8), -1, made.widths, made.position)


@pytest.mark.parametrize("some", [(1, 9), (4, 5)])
def test_unpack_bucketed(some: tuple[int, int]) -> None:
    made = layout(some=some)
    shift = torch.minimum(8 - made.widths, torch.tensor(2, dtype=torch.uint8))
    for by in (None, shift):
        for counts in (list(made.counts), counts_of(made)):
            check("unpack_bucketed", [packed(made, COLS), made.order, counts, COLS, by])


@pytest.mark.parametrize("cols", [COLS, 64])
@pytest.mark.parametrize("sink", ["floats", "dense", "shift", "placed"])
def test_fused_gemm_bucketed(cols: int, sink: str) -> None:
    made, other, outputs = layout(), layout(seed=1), 19
    weight = ops.pack(torch.randint(0, 16, (outputs, cols), dtype=torch.uint8), 4)
    epilogue = Epilogue(torch.rand(outputs), torch.rand(outputs), torch.rand(ROWS, 1),
                        torch.rand(ROWS, 1), torch.rand(outputs))  # fmt: skip
    lists: list[list[Any]] = [[], [], [], [], [], [], []]
    if sink != "floats":
        mixed = sink in ("shift", "placed")
        scale = torch.rand(ROWS if sink == "placed" else outputs) + 0.1
        zero = torch.rand(8 if mixed else outputs) * 3
        shift = torch.minimum(8 - other.widths, torch.tensor(1, dtype=torch.uint8))
        lists = [
            [scale], [zero], [8 if mixed else 4], [None if mixed else torch.rand(ROWS)],
            [other.widths if mixed else None], [other.position if sink == "placed" else None],
            [shift if sink == "shift" else None],
        ]  # fmt: skip
    for counts in (list(made.counts), counts_of(made)):
        rows = [packed(made, cols), made.order, counts, cols]
        args = [*rows, weight, 4, False, *epilogue, sink == "dense", *lists, None, None]
        check_lists("fused_gemm_bucketed", args)


def check_lists(op: str, args: list[Any]) -> None:
    """:func:`check` where lists hold tensors too."""
    expected = meaning(op)(*args)
    case = Case()

    def place(arg: Any) -> Any:
        if isinstance(arg, list):
            return [place(one) for one in arg]
        return case.input(arg) if isinstance(arg, Tensor) else arg

    found = case.everywhere(case.step(op, *map(place, args)))
    assert same(found[0], expected[0])


@pytest.mark.parametrize("signed", [False, True])
def test_extents_and_scales(signed: bool) -> None:
    x = torch.randn(ROWS, COLS)
    x[3], x[4, 5], x[5, 2] = 0.0, float("inf"), float("nan")
    (extent,) = check("row_extent", [x, signed])
    check("row_extent", [torch.empty(4, 0), signed])
    check("width_scale", [extent, layout().widths, signed])
    check("nearest_group", [extent, torch.rand(50).sort().values])
    check("nearest_group", [extent, torch.zeros(1)])


def test_zero_points_and_powers() -> None:
    made = layout()
    shift = torch.minimum(8 - made.widths, torch.tensor(3, dtype=torch.uint8))
    zero = torch.rand(8) * 100
    for by in (None, shift):
        check("row_zero_point", [zero, made.widths, by])
    check("inverse_power", [shift])


@pytest.mark.parametrize("heads", [0, 1, 4])
def test_zero_point_sum(heads: int) -> None:
    graph = as_graph(torch.randint(0, ROWS, (2, 2000)), ROWS, ROWS)
    zero = torch.randint(0, 255, (ROWS, 1)).float() / 2
    weight = torch.randint(0, 16, (graph.num_edges, heads)).float() if heads else None
    check("zero_point_sum", [graph.indptr, graph.indices, zero, weight])


def test_what_is_known_of_a_graph() -> None:
    for edges in (torch.randint(0, ROWS, (2, 900)), torch.empty(2, 0, dtype=torch.int64)):
        graph = as_graph(edges, ROWS, ROWS)
        check("degree_bucket", [graph.indptr, [2, 4, 9]])
        (found,) = check("fingerprint", [graph.indptr, graph.indices, ROWS])
        assert int(found) == graph.fingerprint
        nearest = torch.randint(0, 7, (ROWS,))
        for known in (graph.fingerprint, graph.fingerprint ^ 1):
            check("own_nodes_or", ["=a", found, known, ROWS, nearest])
        check("own_nodes", ["=a", found, graph.fingerprint, ROWS, ROWS])


@pytest.mark.parametrize("wrong", ["edges", "nodes"])
def test_another_graph_is_refused(wrong: str) -> None:
    case = Case()
    x = case.input(torch.zeros(ROWS, 2))
    found = case.constant(torch.tensor([5]))
    known, nodes = (6, ROWS) if wrong == "edges" else (5, ROWS + 1)
    out = case.step("own_nodes", "=convs.0.input", found, known, nodes, f"d{x[1:]}.0")
    with pytest.raises(NodebitsError, match=r"'convs.0.input' has a bitwidth .* serve_other"):
        case.run(out)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_fields_and_tables(dtype: torch.dtype) -> None:
    widths = layout().widths
    group = torch.randint(0, ROWS, (500,), dtype=dtype)
    for plus in (0, 1):
        check("fields_at", [pack_widths(widths), 3, group, plus])
    (found,) = check("fields_at", [pack_widths(widths), 3, group, 1])
    assert same(found, widths[group.long()])
    for bits in (8, 5):
        index = ops.pack(torch.randint(0, 1 << bits, (1, ROWS), dtype=torch.uint8), bits).view(-1)
        check("table_at", [torch.rand(1 << bits), index, bits, group])


def test_what_is_outside_is_refused() -> None:
    case = Case()
    group = case.input(torch.tensor([0, 8]))
    out = case.step("fields_at", torch.zeros(3, dtype=torch.uint8), 3, group, 1)
    with pytest.raises(NodebitsError, match=r"group\[1\] is 8"):
        case.run(out)
    case = Case()
    outs = case.step("row_layout", case.input(torch.tensor([1, 9], dtype=torch.uint8)), outs=3)
    with pytest.raises(NodebitsError, match="1 to 8"):
        case.run(*outs)
