"""Runs cut by graphs: the bits of the whole run, and the whole run where they must not be cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import NAMES, Case, results, same
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodeIndexError, NonFiniteError
from nodebits.graph import as_graph


def batch_of(graphs: int, empty: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges within graphs, and the graph of every node."""
    sizes = torch.randint(5, 60, (graphs,))
    numbers = torch.arange(graphs) * (2 if empty else 1) + (3 if empty else 0)
    starts = sizes.cumsum(0) - sizes
    pairs = zip(sizes.tolist(), starts.tolist(), strict=True)
    edges = [torch.randint(0, n, (2, 3 * n)) + start for n, start in pairs]
    batch = numbers.repeat_interleave(sizes)
    return torch.randn(batch.numel(), 8), torch.cat(edges, 1), batch


def gin(x: Tensor, edges: Tensor, batch: Tensor, by: str, weight: Tensor | None = None) -> Case:
    case = Case()
    rows = case.input(x, "x", [None, 8])
    index = case.input(edges, "edge_index", [2, None])
    case.input(batch, "batch", [None])
    case.inputs[1]["graph"] = {"indptr": 3, "indices": 4, "perm": 5}
    ptr, idx, perm = case.step("csr", index, "d0.0", "d0.0", outs=3)
    codes, scale = case.step("pack_own", rows, 4, True, outs=2)
    weights = [ops.pack(torch.randint(0, 16, (32, 8), dtype=torch.uint8), 4)]
    column = case.step("view", scale, [-1, 1])
    sink: list[Any] = [True, [torch.rand(1)], [torch.ones(1)], [4], [None], [None], [None], [None]]
    h = case.step(
        "fused_gemm", [codes], [4], [8], [0], weights, [4], [False], [torch.rand(32)],
        [torch.randn(32)], [None], [column], [None], *sink, None, None,
    )  # fmt: skip
    edge = None
    if weight is not None:
        given = case.step("in_order", case.input(weight, "edge_weight", [None]), perm)
        edge, _, _ = case.step("edge_codes", given, ptr, 8, outs=3)
    y = case.step(
        "fused_spmm", ptr, idx, edge, None, h, 4, 32, 0, None, None, h, torch.ones(1),
        torch.rand(32), torch.ones(1), None, None, None, True, *[[] for _ in range(7)], None, None,
    )  # fmt: skip
    case.steps[-1]["name"] = "y"
    if by == "graph":
        top = case.step("max_index", "v2")
        pooled = case.step("segment_sum", y, "v2", f"n{top[1:]}+1")
        case.step("add", pooled, torch.randn(32))
    return case


def compared(case: Case, by: str, values: list[Any] | None = None) -> Tensor:
    ref = f"v{case.steps[-1]['outs'][0]}"
    values = case.values() if values is None else values
    (whole,) = results(case.plan(ref).run(values, 1))
    plan = case.plan(ref, parts={"batch": 2, "by": by})
    for threads in (1, 2, 4):
        for _ in range(2):
            (made,) = results(plan.run(values, threads))
            assert same(made, whole)
    return whole


@pytest.mark.parametrize("by", ["graph", "node"])
@pytest.mark.parametrize("graphs", [1, 3, 200])
@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_equal_the_whole(by: str, graphs: int, empty: bool, weighted: bool) -> None:
    x, edges, batch = batch_of(graphs, empty)
    weight = torch.rand(edges.size(1)) if weighted else None
    made = compared(gin(x, edges, batch, by, weight), by)
    assert made.size(0) == (int(batch.max()) + 1 if by == "graph" else x.size(0))


@pytest.mark.parametrize("by", ["graph", "node"])
def test_a_prepared_graph_is_cut_too(by: str) -> None:
    x, edges, batch = batch_of(100)
    graph = as_graph(edges, x.size(0))
    case = gin(x, edges, batch, by)
    parts = [(3, graph.indptr), (4, graph.indices), (5, graph.perm)]
    values = [case.values()[0], case.values()[2]]
    for number, t in parts:
        assert t is not None
        values.append((number, t.data_ptr(), NAMES[t.dtype], tuple(t.shape)))
    expected = compared(case, by)
    assert same(compared(case, by, values), expected)


def test_what_is_not_to_be_cut_runs_whole() -> None:
    x, edges, batch = batch_of(100)
    compared(gin(x, edges[:, torch.randperm(edges.size(1))], batch, "graph"), "graph")
    across = edges.clone()
    across[0, 100] = x.size(0) - 1  # an edge from another graph
    compared(gin(x, across, batch, "graph"), "graph")
    compared(gin(x, edges, batch[torch.randperm(batch.numel())], "graph"), "graph")
    compared(gin(x, edges, batch, "graph"), "node")  # as no output has such rows


def test_errors_are_those_of_the_whole_run() -> None:
    x, edges, batch = batch_of(100)
    case = gin(x, edges, batch, "graph")
    case.step("check_finite", "v0", outs=0)
    ref = f"v{case.steps[-2]['outs'][0]}"
    plan = case.plan(ref, parts={"batch": 2, "by": "graph"})
    bad = edges.clone()
    bad[1, 5000] = 1 << 40
    with pytest.raises(NodeIndexError, match=r"edge_index\[1, 5000\] is 1099511627776"):
        plan.run(case.values(x, bad, batch), 2)
    x[1500, 3] = float("nan")
    with pytest.raises(NonFiniteError, match=r"\[1500, 3\]"):
        plan.run(case.values(x, edges, batch), 2)
