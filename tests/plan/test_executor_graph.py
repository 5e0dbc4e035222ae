"""Steps that make and read the structure of a graph: what ``Graph`` and its layers compute."""

from __future__ import annotations

import pytest
import torch
from executor_case import Case, same
from torch import Tensor

from nodebits.core.errors import (
    AccumulatorOverflowError,
    GraphError,
    NodeIndexError,
    NonFiniteError,
    PlanRefused,
    ShapeError,
)
from nodebits.graph import as_graph
from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.edge import quantize_edges


def edges(nodes: int, count: int, loops: bool = True) -> Tensor:
    edge_index = torch.randint(0, nodes, (2, count))
    if loops and count > 3:
        edge_index[1, :3] = edge_index[0, :3]
    return edge_index


def csr(case: Case, edge_index: Tensor, nodes: int) -> list[str]:
    x = case.input(torch.zeros(nodes, 1))
    given = case.input(edge_index, "edge_index", [2, None])
    made: list[str] = case.step("csr", given, f"d{x[1:]}.0", f"d{x[1:]}.0", outs=3)
    return made


def parts(graph: Graph) -> list[Tensor]:
    assert graph.perm is not None
    return [graph.indptr, graph.indices, graph.perm]


# Two threads share the last two; the last has more rows than are counted one by one.
SIZES = [(1, 0), (1, 3), (20, 60), (700, 9000), (40_000, 99), (5000, 40_000), (140_000, 40_000)]


@pytest.mark.parametrize(("nodes", "count"), SIZES)
@pytest.mark.parametrize("ordered", [False, True])
def test_csr(nodes: int, count: int, ordered: bool) -> None:
    edge_index = edges(nodes, count)
    if ordered:
        edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
    case = Case()
    refs, expected = csr(case, edge_index, nodes), parts(as_graph(edge_index, nodes))
    assert all(map(same, case.everywhere(*refs), expected))
    # Nothing asks for the order of the edges.
    assert all(map(same, case.everywhere(*refs[:2]), expected))


@pytest.mark.parametrize(("row", "value", "what"), [(0, 20, "source"), (1, -1, "target")])
def test_an_edge_outside_of_the_nodes(row: int, value: int, what: str) -> None:
    edge_index = edges(20, 60)
    edge_index[row, 7] = value
    case = Case()
    refs = csr(case, edge_index, 20)
    with pytest.raises(NodeIndexError, match=rf"edge_index\[{row}, 7\] is {value}: {what}"):
        case.run(*refs)
    # A model of several types of edges has a name for the edges of each.
    case.inputs[-1]["name"] = "edge_index_dict[a,to,b]"
    with pytest.raises(NodeIndexError, match=rf"^edge_index_dict\[a,to,b\]\[{row}, 7\] is {value}"):
        case.run(*refs)


def test_structure_without_weights() -> None:
    edge_index = edges(30, 90)
    graph = as_graph(edge_index, 30)
    case = Case()
    ptr, idx, perm = csr(case, edge_index, 30)
    looped = case.step("self_loops", ptr, idx, perm, 30, outs=2)
    refs = [
        *looped,
        case.step("degree", ptr),
        case.step("inverse_degree", ptr),
        case.step("source_degree", idx, 30),
        case.step("deg_inv_sqrt", looped[0], None),
        case.step("deg_inv_sqrt", ptr, None),
        case.step("targets", ptr),
    ]
    case.step("check_degree", ptr, 100, outs=0)
    loops = graph.with_self_loops()
    expected = [loops.indptr, loops.indices, graph.degree, graph.inverse_degree]
    expected += [graph.source_degree, loops.deg_inv_sqrt, graph.deg_inv_sqrt, graph.rows]
    for got, want in zip(case.everywhere(*refs), expected, strict=True):
        assert same(got, want)


@pytest.mark.parametrize("seed", range(3))
def test_weights_by_source(seed: int) -> None:
    edge_index = edges(30, 90)
    weight = torch.rand(90, generator=torch.Generator().manual_seed(seed)) ** 9
    graph = as_graph(edge_index, 30, 30, weight)
    case = Case()
    given = case.input(graph.indices), 30, case.input(graph.edge_weight)
    (made,) = case.everywhere(case.step("source_degree", *given))
    assert same(made, graph.source_degree)


def test_weights_below_zero_are_not_added_by_source() -> None:
    case = Case()
    indices, weight = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([1.0, -0.5])
    made = case.step("source_degree", case.input(indices), 3, case.input(weight))
    with pytest.raises(PlanRefused, match="negative"):
        case.run(made)


FORMS = {"edge_index": [], "torch.sparse": ["=torch.sparse"], "SparseTensor": ["=SparseTensor"]}


@pytest.mark.parametrize("form", FORMS)
def test_loops_without_weights(form: str) -> None:
    graph = as_graph(edges(30, 90), 30)
    graph = Graph(graph.indptr, graph.indices, 30, None, None, form)
    case = Case()
    given = case.input(graph.indptr), case.input(graph.indices)
    made = case.everywhere(*case.step("self_loops", *given, None, 30, *FORMS[form], outs=2))
    loops = graph.with_self_loops()
    assert same(made[0], loops.indptr) and same(made[1], loops.indices)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fill", [1.0, 2.0])
def test_loops_with_weights(weighted: bool, fill: float, form: str) -> None:
    edge_index = edges(30, 90)
    edge_index[:, 5] = edge_index[:, 0]  # two loops at one node
    weight = torch.rand(90)
    graph = as_graph(edge_index, 30, edge_weight=weight if weighted else None)
    graph = Graph(graph.indptr, graph.indices, 30, None, graph.edge_weight, form)
    case = Case()
    ptr, idx, perm = csr(case, edge_index, 30)
    given = case.step("in_order", case.input(weight, "edge_weight"), perm) if weighted else None
    made = case.step("self_loops_weighted", ptr, idx, given, 30, fill, *FORMS[form], outs=3)
    factor = case.step("deg_inv_sqrt", made[0], made[2])
    codes = case.step("edge_codes", made[2], made[0], 8, outs=3)
    if form == "torch.sparse" and not weighted:  # one more edge for each, unless weights are asked
        graph.edge_weight = torch.ones(90)
    loops = graph.with_self_loops(fill=fill)
    if loops.edge_weight is None:
        loops.edge_weight = torch.ones(loops.num_edges)
    found = quantize_edges(loops.edge_weight.view(-1, 1), loops, 8)
    sums = torch.zeros(30, 1).index_add(0, loops.rows, found.codes)
    expected = [loops.indptr, loops.indices, loops.edge_weight, loops.deg_inv_sqrt]
    expected += [found.codes.to(torch.uint8), sums, found.scale]
    for got, want in zip(case.everywhere(*made, factor, *codes), expected, strict=True):
        assert same(got, want)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_codes_of_weights_of_every_size(bits: int, signed: bool) -> None:
    edge_index = edges(30, 400)
    weight = torch.rand(400) * 10.0 ** torch.randint(-40, 30, (400,)).float()
    weight[::3] *= -1.0 if signed else 1.0
    weight[::7] = 0.0
    graph = as_graph(edge_index, 30, edge_weight=weight)
    assert graph.edge_weight is not None
    case = Case()
    ptr, _, perm = csr(case, edge_index, 30)
    given = case.step("in_order", case.input(weight), perm)
    step = "signed_edge_codes" if signed else "edge_codes"
    made = case.everywhere(given, *case.step(step, given, ptr, bits, outs=3))
    found = quantize_edges(graph.edge_weight.view(-1, 1), graph, bits)
    assert found.zero_point == (1 << (bits - 1) if signed else 0)
    sums = torch.zeros(30, 1).index_add(0, graph.rows, found.codes - found.zero_point)
    expected = [graph.edge_weight, found.codes.to(torch.uint8), sums, found.scale]
    for got, want in zip(made, expected, strict=True):
        assert same(got, want)


def test_what_is_refused() -> None:
    edge_index = edges(30, 90, loops=False)
    case = Case()
    ptr, _idx, perm = csr(case, edge_index, 30)
    weight = torch.rand(90)
    given = case.input(weight, "edge_weight")
    ordered = case.step("in_order", given, perm)
    refs = case.step("edge_codes", ordered, ptr, 8, outs=3)
    plan = case.plan(*refs)

    def run(weight: Tensor) -> None:
        plan.run(case.values(case.given[0], edge_index, weight), 1)

    run(weight)
    bad = weight.clone()
    bad[3] = -0.5
    with pytest.raises(PlanRefused, match="negative"):
        run(bad)
    bad[3] = float("inf")
    with pytest.raises(NonFiniteError, match=r"edge_weight has 1 .* \(inf\) at \[3\]"):
        run(bad)
    with pytest.raises(ShapeError, match="90 edges"):
        run(weight[:89])

    case = Case()
    ptr, _idx, perm = csr(case, edge_index, 30)
    ordered = case.step("in_order", case.input(weight), perm)
    with pytest.raises(PlanRefused, match="no edge weight is negative"):
        case.run(*case.step("signed_edge_codes", ordered, ptr, 8, outs=3))

    case = Case()
    ptr, _idx, perm = csr(case, edge_index, 30)
    ordered = case.step("in_order", case.input(-weight), perm)
    case.step("deg_inv_sqrt", ptr, ordered)
    with pytest.raises(GraphError, match="weighted in-degree"):
        case.run(ptr)

    case = Case()
    ptr, _idx, perm = csr(case, edge_index, 30)
    case.step("check_degree", ptr, 2, outs=0)
    with pytest.raises(AccumulatorOverflowError, match="in-degree 2:"):
        case.run(ptr)

    case = Case()
    ptr, idx, perm = csr(case, edge_index, 30)
    case.step("self_loops", ptr, idx, perm, 31, outs=2)
    with pytest.raises(NodeIndexError, match="31 nodes"):
        case.run(ptr)
