"""Plans of many models: they exist, name no Python they do not need, and give the module's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import NodeIndexError
from nodebits.plan.plan import Plan
from nodebits.plan.run import ReferenceRunner
from packed_models import Case, UserModel, make_case, small_graph

X, EDGES = small_graph()
OTHER_X, OTHER_EDGES = small_graph(57, seed=3)


def packed_of(model: nn.Module, *args: Any, **keywords: Any) -> nodebits.PackedModel:
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *args, **keywords)
    return nodebits.convert(prepared)


def plan_of(packed: nodebits.PackedModel, *args: Any, **keywords: Any) -> Plan:
    plan = packed.plan(*args, **keywords)
    assert isinstance(plan, Plan), plan
    return plan


def run(plan: Plan, packed: nodebits.PackedModel, **tensors: Tensor) -> Any:
    inputs = {one["value"]: tensors[one["name"]] for one in plan.about["inputs"]}
    return ReferenceRunner(plan, packed.module).run(inputs)


@pytest.mark.parametrize("method", ["uniform", "degree-quant", "sgquant"])
@pytest.mark.parametrize("name", ["gcn", "gat", "gin", "sage", "appnp", "deepgcn", "gcnii"])
def test_named_models(name: str, method: str) -> None:
    case = make_case(name, method)
    plan = plan_of(case.packed, case.x, case.edge_index)
    assert plan.is_portable
    assert torch.equal(run(plan, case.packed, x=case.x, edge_index=case.edge_index), case.simulated)
    found = run(plan, case.packed, x=OTHER_X, edge_index=OTHER_EDGES)
    assert torch.equal(found, case.packed.predict(OTHER_X, OTHER_EDGES))


@pytest.mark.parametrize("name", ["gcn", "gin"])
def test_graph_level(name: str) -> None:
    case: Case = make_case(name, task="graph")
    plan = plan_of(case.packed, case.x, case.edge_index, **case.extra)
    assert plan.is_portable and not plan.leaves
    found = run(plan, case.packed, x=case.x, edge_index=case.edge_index, **case.extra)
    assert torch.equal(found, case.simulated)


class _Other(nn.Module):
    """A model of a user's own, with something in it that a plan must not get wrong."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.head = pyg.GCNConv(12, 8), nn.Linear(8, 3)
        self.last: Tensor | None = None
        self.rule = forward

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.rule(self, x, edge_index)


def _by_values(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    h = self.conv(x, edge_index)
    return self.head(h if float(h.sum()) > 0 else -h)


def _through_numpy(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    h = self.conv(x, edge_index)
    return self.head(h + float(h.mean()) * 0 + torch.from_numpy(x.numpy()[:, :8].copy()))


def _through_numpy_alone(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    return self.head(self.conv(x, edge_index) * float(abs(x.numpy()).max()))


def _keeps(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    self.last = self.conv(x, edge_index)
    return self.head(self.last.relu())


def _random(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    return self.head(self.conv(x, edge_index) + torch.rand(8))


@pytest.mark.parametrize(
    "rule", [_by_values, _through_numpy, _through_numpy_alone, _keeps, _random]
)
def test_what_cannot_be_repeated_has_no_plan(rule: Callable[..., Tensor]) -> None:
    packed = packed_of(_Other(rule), X, EDGES)
    reason = packed.plan(X, EDGES)
    assert isinstance(reason, str) and reason
    for _ in range(3):
        packed.predict(X, EDGES)
    assert packed.predict(X, EDGES).shape == (40, 3)


def _sized(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    h = self.conv(x, edge_index).relu()
    rest = h.new_zeros(x.size(0), 8)
    h = torch.cat([h, rest], -1).view(x.size(0), 2, 8)[:, 0]
    return self.head(h * edge_index.size(1))


def _norms(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    h = nn.functional.elu(self.conv(x, edge_index))
    h = nn.functional.layer_norm(h, (8,)) + h.softmax(-1)
    return torch.log_softmax(self.head(h), -1)


def _in_place(self: _Other, x: Tensor, edge_index: Tensor) -> Tensor:
    h = self.conv(x, edge_index).clone()
    h += 1.0
    h.relu_().mul_(0.5)
    return self.head(h)


@pytest.mark.parametrize("rule", [_norms, _in_place])
def test_own_forwards(rule: Callable[..., Tensor]) -> None:
    packed = packed_of(_Other(rule), X, EDGES)
    plan = plan_of(packed, X, EDGES)
    for x, edges in ((X, EDGES), (OTHER_X, OTHER_EDGES)):
        expected = packed.predict(x, edges)
        assert torch.equal(run(plan, packed, x=x, edge_index=edges), expected)
        for _ in range(3):
            assert torch.equal(packed.predict(x, edges), expected)


class _OfGraphs(nn.Module):
    """Takes what belongs to graphs, and a number, beside rows of nodes."""

    def __init__(self, with_rows: bool) -> None:
        super().__init__()
        self.conv, self.head = pyg.GCNConv(12, 8), nn.Linear(8, 3)
        self.wide = nn.Linear(4, 8) if with_rows else nn.Identity()

    def forward(
        self, x: Tensor, edge_index: Tensor, batch: Tensor, factor: Tensor, u: Any = None
    ) -> Tensor:
        h = self.conv(x, edge_index) * factor
        h = h if u is None else h + self.wide(u)[batch]
        out: Tensor = self.head(pyg.global_add_pool(h.relu(), batch))
        return out


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("with_rows", [True, False])
def test_numbers_and_rows_of_graphs(with_rows: bool, shape: tuple[int, ...]) -> None:
    def arguments(x: Tensor, edges: Tensor, of_each: int, number: float) -> dict[str, Tensor]:
        batch = torch.arange(len(x)) // of_each
        inside = batch[edges[0]] == batch[edges[1]]
        u = torch.randn(int(batch[-1]) + 1, 4, generator=torch.Generator().manual_seed(of_each))
        given = {"x": x, "edge_index": edges[:, inside], "batch": batch}
        given["factor"] = torch.full(shape, number)
        return {**given, "u": u} if with_rows else given

    first = arguments(X, EDGES, 20, 0.7)
    packed = packed_of(_OfGraphs(with_rows), *first.values())
    plan = plan_of(packed, **first)
    assert not plan.leaves
    for given in (first, arguments(X, EDGES, 8, 1.5), arguments(OTHER_X, OTHER_EDGES, 40, -2.0)):
        with torch.no_grad():
            expected = packed.module(**given)
        assert torch.equal(run(plan, packed, **given), expected)
        for _ in range(3):
            assert torch.equal(packed.predict(**given), expected)
    other = {**first, "factor": torch.tensor([0.5, 2.0]).repeat(20).view(-1, 1)}
    with torch.no_grad():
        assert torch.equal(packed.predict(**other), packed.module(**other))


def test_a_number_that_follows_from_a_size_is_refused_or_right() -> None:
    packed = packed_of(_Other(_sized), X, EDGES)
    expected = packed.predict(OTHER_X, OTHER_EDGES)
    packed.plan(X, EDGES)
    for _ in range(3):
        packed.predict(X, EDGES)
    assert torch.equal(packed.predict(OTHER_X, OTHER_EDGES), expected)


def test_layers_on_tiles_are_steps_that_the_module_runs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = pyg.GCNConv(12, 8), pyg.FeaStConv(8, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.two(self.one(x, edge_index).relu(), edge_index)

    packed = packed_of(Two(), X, EDGES)
    plan = plan_of(packed, X, EDGES)
    assert plan.leaves == ["module: two"] and not plan.is_portable
    expected = packed.predict(OTHER_X, OTHER_EDGES)
    for _ in range(3):
        assert torch.equal(packed.predict(OTHER_X, OTHER_EDGES), expected)


def test_a_changed_model_is_planned_anew() -> None:
    packed = packed_of(UserModel(), X, EDGES)
    for _ in range(4):
        before = packed.predict(X, EDGES)
    with torch.no_grad():
        packed.module.head.bias.add_(1.0)  # type: ignore[union-attr]
    torch.testing.assert_close(packed.predict(X, EDGES), before + 1.0)
    seen: list[Any] = []
    handle = packed.module.head.register_forward_hook(lambda *a: seen.append(a))  # type: ignore[union-attr]
    packed.predict(X, EDGES)
    handle.remove()
    assert seen
    packed.module.head = nn.Identity()
    assert packed.predict(X, EDGES).shape == (40, 16)


def test_a_plan_of_a_changed_model_is_not_revived_by_another_kind_of_call() -> None:
    packed = packed_of(pyg.GAT(12, 8, 2, 3, heads=2), X, EDGES)
    graph = packed.prepare_graph(EDGES, X.size(0))
    for _ in range(9):
        before = packed.predict(X, EDGES)
    for conv in packed.module.convs:  # type: ignore[union-attr]
        conv.negative_slope = 0.9  # type: ignore[union-attr]
    packed.plan(X.double(), EDGES)  # a plan of another kind is made of what the model is now
    packed.use_plans = False
    expected = packed.predict(X, EDGES)
    packed.use_plans = True
    assert not torch.equal(expected, before)
    assert torch.equal(packed.predict(X, EDGES), expected)
    assert torch.equal(packed.predict(X, graph), expected)


def test_calls_without_edges_do_not_keep_others_from_a_plan() -> None:
    packed = packed_of(pyg.GCN(12, 8, 2, 3), X, EDGES)
    packed._plans.forget()
    for _ in range(3):
        packed.predict(X, EDGES[:, :0])
    packed.predict(X, EDGES)
    assert isinstance(packed._plans.result((X, EDGES), {}), Tensor)
    packed._plans.forget()
    assert "no edges" in str(packed.plan(X, EDGES[:, :0]))
    assert isinstance(packed.plan(X, EDGES), Plan)


@pytest.mark.parametrize(
    "rule",
    [
        lambda h: h[::2].sum(),
        lambda h: h.mean(1, keepdim=True).expand(-1, 7).sum(0),
        lambda h: h.view(-1, 2, 8).permute(1, 0, 2).sum(1),
        lambda h: h[:, ::2].sum(1),
        lambda h: torch.nn.functional.layer_norm(h.t(), (h.size(0),)),
        lambda h: h.t().softmax(1),
        lambda h: h[:, ::2].exp(),
    ],
)
def test_what_torch_rounds_by_its_strides_has_them(rule: Callable[[Tensor], Tensor]) -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = pyg.GCNConv(12, 16)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return rule(self.conv(x, edge_index))

    packed = packed_of(Strided(), X, EDGES)
    args = small_graph(4000, seed=1)
    packed.plan(*args)
    found = packed.predict(*args)
    packed.use_plans = False
    assert torch.equal(found, packed.predict(*args))


def test_a_relation_that_does_not_exist_is_refused_by_a_plan_as_by_the_module() -> None:
    kinds = torch.arange(EDGES.size(1)) % 3
    packed = packed_of(pyg.RGCNConv(12, 8, 3), X, EDGES, kinds)
    assert isinstance(packed.plan(X, EDGES, kinds), Plan)
    assert torch.equal(packed.predict(X, EDGES, kinds), packed.predict(X, EDGES, edge_type=kinds))
    with pytest.raises(NodeIndexError, match=r"edge_type\[2\] is 3: it must be in \[0, 2\]"):
        packed.predict(X, EDGES, kinds + 1)


def test_several_heads_of_a_layer_on_tiles_are_one_step() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = pyg.FeaStConv(12, 16, heads=2), pyg.FeaStConv(16, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            result: Tensor = self.two(self.one(x, edge_index).relu(), edge_index)
            return result

    packed = packed_of(Two(), X, EDGES)
    plan = packed.plan(X, EDGES)
    assert isinstance(plan, Plan), plan
    assert any("one" in name for name in plan.leaves)
    args = small_graph(300, seed=1)
    found = packed.predict(*args)
    packed.use_plans = False
    assert torch.equal(found, packed.predict(*args))


class _Jumping(nn.Module):
    """Layers whose results are looked at together: attention over them, or an LSTM."""

    def __init__(self, lstm: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(pyg.GCNConv(n, 8) for n in (12, 8, 8))
        self.jump = pyg.JumpingKnowledge("lstm", 8, 2) if lstm else None
        self.score, self.head = None if lstm else nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        seen = []
        for conv in self.convs:
            x = conv(x, edge_index).relu()
            seen.append(x)
        if self.score is None:
            rows = self.jump(seen)
        else:
            stacked = torch.stack(seen, 1)
            rows = (stacked * self.score(stacked).sigmoid()).amax(1)
        result: Tensor = self.head(pyg.global_add_pool(rows, batch))
        return result


@pytest.mark.parametrize("lstm", [False, True])
def test_rows_of_several_layers_are_viewed_as_rows(lstm: bool) -> None:
    """A linear map takes ``[N, 3, C]`` as ``3 N`` rows, which no axis of another value has."""
    batch = torch.arange(len(X)) // 3
    packed = packed_of(_Jumping(lstm), X, EDGES, batch)
    plan_of(packed, X, EDGES, batch)
    x, edge_index = OTHER_X, OTHER_EDGES
    for nodes in (57, 1, 0):  # of none torch's LSTM is another operator
        edges = edge_index[:, (edge_index < nodes).all(0)]
        given = x[:nodes], edges, torch.arange(nodes) // 2
        packed.use_plans = False
        expected = packed.predict(*given)
        packed.use_plans = True
        assert torch.equal(packed.predict(*given), expected), nodes


class _OneGraph(nn.Module):
    """Makes ``batch`` by itself, as many models do for a single graph."""

    def __init__(self, like_edges: bool) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(X.size(1), 5)
        self.like_edges = like_edges

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.like_edges:
            batch = edge_index.new_zeros(x.size(0))
        else:
            batch = torch.zeros(x.size(0), dtype=torch.long)
        result: Tensor = pyg.global_mean_pool(self.conv(x, edge_index), batch)
        return result


@pytest.mark.parametrize("like_edges", [False, True])
def test_integers_that_a_forward_makes_are_a_step(like_edges: bool) -> None:
    packed = packed_of(_OneGraph(like_edges), X, EDGES)
    plan = plan_of(packed, X, EDGES)
    assert plan.is_portable and "full" in plan.steps
    found = packed.predict(OTHER_X, OTHER_EDGES)
    assert torch.equal(run(plan, packed, x=OTHER_X, edge_index=OTHER_EDGES), found)
    packed.use_plans = False
    assert torch.equal(packed.predict(OTHER_X, OTHER_EDGES), found)


_OWN_NODES: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "LightGCN": (lambda: pyg.LightGCN(60, 8, 2), ()),
    "RGCN": (lambda: pyg.RGCNConv(60, 8, 3, num_bases=2), (None,)),
}


@pytest.mark.parametrize("name", _OWN_NODES)
def test_models_with_nodes_of_their_own_are_given_edges_alone(name: str) -> None:
    def given(edges: Tensor) -> tuple[Any, ...]:
        kinds = (torch.arange(edges.size(1)) % 3,) if name == "RGCN" else ()
        return (*before, edges, *kinds)

    make, before = _OWN_NODES[name]
    packed = packed_of(make(), *given(EDGES))
    plan_of(packed, *given(EDGES))
    for edges in (EDGES, OTHER_EDGES, OTHER_EDGES[:, :1], EDGES[:, :0]):
        found = packed.predict(*given(edges))
        packed.use_plans = False
        assert torch.equal(packed.predict(*given(edges)), found)
        packed.use_plans = True
    wrong = EDGES.clone()
    wrong[0, 2] = 60
    with pytest.raises(NodeIndexError, match=r"edge_index\[0, 2\] is 60"):
        packed.predict(*given(wrong))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_ids_of_any_name_have_a_row_for_every_node(shape: tuple[int, ...]) -> None:
    class Atoms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.conv = nn.Embedding(9, 8), pyg.RGCNConv(8, 4, 3)

        def forward(self, z: Tensor, edge_index: Tensor, bond: Tensor) -> Tensor:
            rows = self.table(z)
            return self.conv(rows if z.dim() == 1 else rows.sum(1), edge_index, bond)

    def given(nodes: int, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.randint(9, (nodes, *shape)), edges, torch.arange(edges.size(1)) % 3

    packed = packed_of(Atoms(), *given(X.size(0), EDGES))
    plan = plan_of(packed, *given(X.size(0), EDGES))
    assert "module" not in plan.steps
    for call in (given(X.size(0), EDGES), given(OTHER_X.size(0), OTHER_EDGES)):
        found = packed.predict(*call)
        packed.use_plans = False
        assert torch.equal(packed.predict(*call), found)
        packed.use_plans = True


def test_nodes_that_follow_from_edges_are_no_constant() -> None:
    class Ones(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = pyg.SAGEConv(4, 5)

        def forward(self, edge_index: Tensor) -> Tensor:
            count = int(edge_index.max()) + 1
            made: Tensor = self.conv(torch.ones(count, 4), edge_index)
            return made

    packed = packed_of(Ones(), EDGES)
    assert isinstance(packed.plan(EDGES), str)
    assert len(packed.predict(OTHER_EDGES)) == int(OTHER_EDGES.max()) + 1


_WEIGHED: dict[str, Callable[[int, int], nn.Module]] = {
    "GCN": lambda wide, out: pyg.GCNConv(wide, out, normalize=False),
    "GraphConv": pyg.GraphConv,
    "mean": lambda wide, out: pyg.GraphConv(wide, out, aggr="mean"),
    "LE": pyg.LEConv,
}


@pytest.mark.parametrize("name", _WEIGHED)
def test_edge_weights_of_both_signs_are_steps(name: str) -> None:
    layers = _WEIGHED[name](X.size(1), 8), _WEIGHED[name](8, 5)
    call = "x, edge_index, edge_weight -> x"
    # The rows of the second layer have scales of their own, and some of them are zeros.
    model = pyg.Sequential(
        "x, edge_index, edge_weight", [(layers[0], call), nn.ReLU(), (layers[1], call)]
    )
    weight, other = torch.randn(EDGES.size(1)), torch.randn(OTHER_EDGES.size(1))
    packed = packed_of(model, X, EDGES, weight)
    plan = plan_of(packed, X, EDGES, weight)
    assert plan.is_portable and "signed_edge_codes" in plan.steps
    # Weights of one sign have other codes: the module has them.
    for given in (other, other.abs(), -other.abs(), torch.zeros_like(other)):
        found = packed.predict(OTHER_X, OTHER_EDGES, given)
        packed.use_plans = False
        assert torch.equal(packed.predict(OTHER_X, OTHER_EDGES, given), found)
        packed.use_plans = True
