"""Plans of calls with sparse matrices and prepared graphs exist, and give the module's bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from nodebits import lite
from nodebits.core.errors import ConfigError, GraphError, NodeIndexError
from nodebits.graph import Graph, as_graph
from nodebits.plan.plan import Plan
from nodebits.runtime.traced import operator_plan


class RowsOnly:
    """What is used of ``torch_sparse.SparseTensor``, for machines without it."""

    def __init__(self, matrix: Tensor, valued: bool) -> None:
        self.matrix, self.valued = matrix, valued

    def csr(self) -> tuple[Tensor, Tensor, Tensor | None]:
        values = self.matrix.values() if self.valued else None
        return self.matrix.crow_indices(), self.matrix.col_indices(), values

    def sparse_sizes(self) -> tuple[int, int]:
        return self.matrix.size(0), self.matrix.size(1)


def data_of(nodes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges sorted by target without duplicates, of which some are loops, and weights."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, 12, generator=generator)
    key = torch.randint(0, nodes * nodes, (5 * nodes,), generator=generator)
    key = torch.cat([key, torch.arange(0, nodes, 3) * (nodes + 1)]).unique()
    edges = torch.stack([key % nodes, key // nodes])
    return x, edges, torch.rand(key.numel(), generator=generator) + 0.25


def csr_of(nodes: int, edges: Tensor, weight: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(edges.flip(0), weight, (nodes, nodes)).coalesce().to_sparse_csr()


Make = Callable[[int, Tensor, Tensor], Any]
MATRICES: dict[str, Make] = {
    "coo": lambda n, e, w: csr_of(n, e, w).to_sparse_coo(),
    "csr": csr_of,
    "csc": lambda n, e, w: csr_of(n, e, w).to_sparse_csc(),
    "SparseTensor": lambda n, e, w: RowsOnly(csr_of(n, e, w), not bool((w == 1).all())),
    "prepared csr": lambda n, e, w: as_graph(csr_of(n, e, w), n),
    "prepared SparseTensor": lambda n, e, w: as_graph(RowsOnly(csr_of(n, e, w), True), n),
}
FORMS: dict[str, Make] = {
    **MATRICES,
    "prepared edges": lambda n, e, w: as_graph(e.flip(1), n, n, w.flip(0)),
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "gcn": lambda: pyg.GCN(12, 8, 2, 3),
    "improved": lambda: pyg.GCN(12, 8, 2, 3, improved=True),
    "gat": lambda: pyg.GAT(12, 8, 2, 3, heads=2),
    "gin": lambda: pyg.GIN(12, 8, 2, 3),
    "sage": lambda: pyg.GraphSAGE(12, 8, 2, 3),
}
CASES = [(name, form) for name in MODELS for form in FORMS if "prepared" not in form]
CASES += [("gcn", form) for form in FORMS if "prepared" in form]


def packed_of(model: nn.Module, *args: Any) -> nodebits.PackedModel:
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *args)
    return nodebits.convert(prepared)


def both(packed: nodebits.PackedModel, *args: Any) -> tuple[Any, Any]:
    """What the plan of a call gives, and what the module does."""
    plan = packed.plan(*args)
    assert isinstance(plan, Plan), plan
    assert plan.is_portable
    planned = packed._plans.result(args, {})
    assert isinstance(planned, Tensor)
    packed.use_plans = False
    expected = packed.predict(*args)
    packed.use_plans = True
    return planned, expected


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_plans_give_the_bits_of_the_module(name: str, form: str, weighted: bool) -> None:
    torch.manual_seed(0)
    graphs = []
    for nodes, seed in ((40, 1), (57, 2)):
        x, edges, weight = data_of(nodes, seed)
        weight = weight if weighted else torch.ones_like(weight)
        graphs.append((x, FORMS[form](nodes, edges, weight)))
    packed = packed_of(MODELS[name](), *graphs[0])
    for args in graphs:
        planned, expected = both(packed, *args)
        assert torch.equal(planned, expected)
        assert torch.equal(packed.predict(*args), expected)


def test_a_plan_is_made_by_itself_and_is_of_one_form() -> None:
    x, edges, weight = data_of(40, 1)
    packed = packed_of(MODELS["gcn"](), x, csr_of(40, edges, weight))
    adjacencies = [csr_of(40, edges, weight), csr_of(40, edges, torch.ones_like(weight))]
    adjacencies += [FORMS["SparseTensor"](40, edges, weight), edges]
    results: list[Tensor] = []
    for args in ((x, adjacency) for adjacency in adjacencies):
        expected = packed.predict(*args)
        packed.predict(*args)
        found = packed._plans.result(args, {})
        assert torch.equal(found, expected)
        results.append(found)
    for i, one in enumerate(results):
        assert all(not torch.equal(one, other) for other in results[:i])


def test_changed_values_are_seen() -> None:
    x, edges, weight = data_of(40, 1)
    matrix = csr_of(40, edges, weight)
    packed = packed_of(MODELS["gcn"](), x, matrix)
    both(packed, x, matrix)
    matrix.values().mul_(2.0).add_(0.5)
    planned, expected = both(packed, x, matrix)
    assert torch.equal(planned, expected)


def test_entries_that_stand_twice_go_to_the_module() -> None:
    """GAT drops the values of a matrix, and then counts such an entry once."""
    x, edges, _ = data_of(40, 1)
    packed = packed_of(MODELS["gat"](), x, csr_of(40, edges, torch.ones(edges.size(1))))
    twice = torch.cat([edges, edges[:, :9]], 1)
    order = (twice[1] * 40 + twice[0]).argsort(stable=True)
    pointer = torch.cat([torch.zeros(1).long(), torch.bincount(twice[1], minlength=40).cumsum(0)])
    matrix = torch.sparse_csr_tensor(pointer, twice[0, order], torch.ones(twice.size(1)), (40, 40))
    packed.use_plans = False
    expected = packed.predict(x, matrix)
    packed.use_plans = True
    for _ in range(3):
        assert torch.equal(packed.predict(x, matrix), expected)


def test_what_is_wrong_with_a_matrix_the_module_says() -> None:
    x, edges, weight = data_of(40, 1)
    matrix = csr_of(40, edges, weight)
    packed = packed_of(MODELS["gcn"](), x, matrix)
    both(packed, x, matrix)
    with pytest.raises(GraphError, match="40 x 40, but there are 39 targets"):
        packed.predict(x[:39], matrix)
    with pytest.raises(GraphError, match=r"is 40 x 41|are 40 targets"):
        wide = torch.sparse_coo_tensor(edges.flip(0), weight, (40, 41)).coalesce()
        packed.predict(x, wide)
    with torch.sparse.check_sparse_tensor_invariants(False), pytest.raises(NodeIndexError):
        packed.predict(
            x, torch.sparse_coo_tensor(torch.tensor([[1], [40]]), torch.ones(1), (40, 40))
        )
    negative = csr_of(40, edges, -weight)
    with pytest.raises(GraphError, match="weighted in-degree"):
        packed.predict(x, negative)


class _Looks(nn.Module):
    """A forward that asks what kind of adjacency it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(12, 3)

    def forward(self, x: Tensor, adjacency: Any) -> Tensor:
        out: Tensor = self.conv(x, adjacency)
        return -out if isinstance(adjacency, Tensor) and adjacency.is_sparse_csr else out


def test_a_forward_that_looks_at_the_matrix_itself_has_no_plan() -> None:
    x, edges, weight = data_of(40, 1)
    matrix = csr_of(40, edges, weight)
    packed = packed_of(_Looks(), x, matrix)
    reason = packed.plan(x, matrix)
    assert isinstance(reason, str) and "another result" in reason
    expected = packed.predict(x, matrix)
    for _ in range(3):
        assert torch.equal(packed.predict(x, matrix), expected)


def test_reasons_name_the_argument() -> None:
    x, edges, _ = data_of(40, 1)
    packed = packed_of(MODELS["gcn"](), x, edges)
    graph = packed.prepare_graph(edges, 40, reorder=True)
    for args, reason in (
        ((x, graph), "reordered"),
        (({"a": x}, edges), "no edges by type"),
    ):
        found = packed.plan(*args)
        assert isinstance(found, str) and reason in found


def test_torch_compile_says_that_it_takes_tensors() -> None:
    x, edges, weight = data_of(40, 1)
    packed = packed_of(MODELS["gcn"](), x, edges)
    rows = packed.pack_input(x)
    for args in ((x, csr_of(40, edges, weight)), (rows, edges)):
        plan = packed.plan(*args)
        assert isinstance(plan, Plan)
        with pytest.raises(ConfigError, match="a float matrix and an edge_index"):
            operator_plan(plan, -1)


@pytest.mark.parametrize("weighted", [False, True])
def test_lite_takes_edges_and_weights_in_place_of_a_matrix(tmp_path: Path, weighted: bool) -> None:
    x, edges, weight = data_of(40, 1)
    weight = weight if weighted else torch.ones_like(weight)
    packed = packed_of(MODELS["gcn"](), x, csr_of(40, edges, weight))
    packed.save(tmp_path / "model.safetensors")
    model = lite.load(tmp_path / "model.safetensors")
    arrays = [x.numpy(), edges.numpy(), *([weight.numpy()] if weighted else [])]
    expected = packed.predict(x, csr_of(40, edges, weight))
    assert torch.equal(torch.from_numpy(model.predict(*arrays)), expected)
    model.set_graph(edges.numpy(), 40)
    more = {"edge_index/weight": weight.numpy()} if weighted else {}
    found = model.predict(x.numpy(), **more)
    assert torch.equal(torch.from_numpy(found), expected)


def test_models_with_such_an_example_are_copied() -> None:
    x, edges, weight = data_of(40, 1)
    packed = packed_of(MODELS["gcn"](), x, csr_of(40, edges, weight))
    twin = copy.deepcopy(packed)
    matrix = csr_of(40, edges, weight)
    assert torch.equal(twin.predict(x, matrix), packed.predict(x, matrix))
    assert isinstance(twin.plan(), Plan)
    assert not isinstance(matrix, Graph)


@pytest.mark.parametrize("name", ["gcn", "gat", "sage"])
@pytest.mark.parametrize("form", ["csr", "SparseTensor"])
@pytest.mark.parametrize("weighted", [False, True])
def test_samples_of_matrices(name: str, form: str, weighted: bool) -> None:
    x, edges, weight = data_of(40, 1)
    adjacency = FORMS[form](40, edges, weight if weighted else torch.ones_like(weight))
    packed = packed_of(MODELS[name](), x, adjacency)
    graph, ids = packed.prepare_graph(adjacency, 40), torch.tensor([3, 17, 3])

    def sample() -> Tensor:
        return packed.predict_nodes(graph, x, ids, [2, 2], seed=5)

    results = [sample() for _ in range(3)]
    assert any(type(one) is not str for one in packed._plans._planned.values())
    packed.use_plans = False
    expected = sample()
    assert all(torch.equal(one, expected) for one in results)
