"""Plans for samples: the rows of the seeds, with the bits that they have among all rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GATv2Conv,
    GCNConv,
    GraphConv,
    JumpingKnowledge,
    LayerNorm,
    ResGatedGraphConv,
    SAGEConv,
    TransformerConv,
)

import nodebits
from nodebits import ops
from nodebits.graph import Sample, as_graph, sample_neighbors
from nodebits.plan.native import NativeRunner
from nodebits.plan.plan import Plan
from nodebits.plan.run import ReferenceRunner
from nodebits.plan.trim import Trimmed, trimmed
from nodebits.runtime import PackedModel
from packed_models import CLASSES, FEATURES, NODES, make_case, small_graph

IDS = [3, 0, 17]
pytestmark = [
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.DegenerateSiteWarning"),
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning"),
]


def plan_of(packed: PackedModel) -> Plan:
    x, edge_index = small_graph()
    plan = packed.plan(x, edge_index)
    assert isinstance(plan, Plan), plan
    return plan


def sampled(hops: int) -> Sample:
    return sample_neighbors(as_graph(small_graph()[1], NODES), IDS, [2] * hops, seed=hops)


def run(made: Trimmed, packed: PackedModel, x: Tensor, sample: Sample, native: bool) -> Tensor:
    about = made.plan.about
    values = {v: torch.tensor([sample.reached[hop]]) for hop, v in made.levels.items()}
    for one in about["inputs"]:
        if one["name"] == "x":
            values[one["value"]] = x
        if "graph" in one:
            graph = one["graph"]
            values[graph["indptr"]] = sample.graph.indptr
            values[graph["indices"]] = sample.graph.indices
            values[graph["perm"]] = torch.arange(sample.graph.num_edges)
    runner = (NativeRunner if native else ReferenceRunner)(made.plan, packed.module)
    result: Tensor = runner.run(values)
    return result


def check(packed: PackedModel, hops: int) -> Trimmed:
    """The trimmed plan, which gives the seeds' rows of the module on the whole sample."""
    made = trimmed(plan_of(packed), hops)
    assert made is not None
    sample = sampled(hops)
    x = small_graph()[0][sample.nodes]
    expected, _ = packed._run((x, sample.graph), {})
    for native in (False, True):
        found = run(made, packed, x, sample, native)
        assert found.size(0) == sample.reached[0] == len(IDS)
        assert torch.equal(found, expected[: len(IDS)])
    return made


def slices(made: Trimmed) -> int:
    return sum(step["op"] == "slice" and step["args"][1] == 0 for step in made.plan.about["steps"])


@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat", "appnp", "gcnii", "deepgcn"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_named_models(name: str, hops: int) -> None:
    assert slices(check(make_case(name).packed, hops)) > (name != "appnp")


@pytest.mark.parametrize("method", ["degree-quant", "mixq", "smp"])
def test_methods(method: str) -> None:
    check(make_case("gcn", method).packed, 2)


class Joined(nn.Module):
    """Residuals, jumping knowledge, a norm per row, edges without loops, a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, 8)
        self.second = SAGEConv(8, 8, aggr="mean")
        self.third = GraphConv(8, 8)
        self.norm = LayerNorm(8, mode="node")
        self.join = JumpingKnowledge("cat")
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        first = self.first(x, edge_index).relu()
        second = self.norm(self.second(first, edge_index)) + first
        third = self.third(second, edge_index).tanh() * 0.5
        out: Tensor = self.head(self.join([first, second, third])).log_softmax(-1)
        return out


class Mixed(nn.Module):
    """A norm over all nodes between two sums: what is before it is needed for every node."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = SAGEConv(FEATURES, 8), SAGEConv(8, CLASSES)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        x = self.first(x, edge_index)
        x = x - x.mean(0, keepdim=True)
        out: Tensor = self.second(x.relu(), edge_index)
        return out


class Pooled(nn.Module):
    """A value of the whole graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(FEATURES, CLASSES)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        out: Tensor = self.conv(x, edge_index)
        return out.mean(0, keepdim=True)


def packed_of(module: nn.Module) -> PackedModel:
    torch.manual_seed(0)
    prepared = nodebits.prepare(module.eval(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *small_graph())
    return nodebits.convert(prepared)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("module", [Joined, Mixed])
def test_modules_of_ones_own(module: Any, hops: int) -> None:
    check(packed_of(module()), hops)


def test_what_all_nodes_are_needed_for_is_not_trimmed() -> None:
    assert trimmed(plan_of(packed_of(Pooled())), 2) is None
    inner = check(packed_of(Mixed()), 2)
    plain = check(make_case("sage").packed, 2)
    assert 0 < slices(inner) < slices(plain)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    ("name", "features"), [("sage", FEATURES), ("gcn", FEATURES), ("gin", FEATURES), ("gcn", 300)]
)
def test_models_use_it_by_themselves(
    monkeypatch: pytest.MonkeyPatch, name: str, features: int, ahead: bool
) -> None:
    """Features, graph and ids as they come; what is looked at for the use of codes included."""
    case = make_case(name, features=features)
    packed, x, edge_index = case.packed, case.x, case.edge_index
    graph = packed.prepare_graph(edge_index, NODES)
    rows = []
    whole = NativeRunner.run

    def noted(self: Any, *args: Any) -> Any:
        result = whole(self, *args)
        rows.append(result.size(0))
        return result

    monkeypatch.setattr(NativeRunner, "run", noted)
    given = packed.pack_input(x) if ahead else x
    for seed in range(12):
        made = packed.predict_nodes(graph, given, [5, 5, 8], [3, 3], seed=seed)
        sample = sample_neighbors(graph, [5, 5, 8], [3, 3], seed=seed)
        expected, _ = packed._run((x[sample.nodes], sample.graph), {})
        assert torch.equal(made, expected[sample.seeds])
        with ops.force_isa("reference"):
            again = packed.predict_nodes(graph, given, [5, 5, 8], [3, 3], seed=seed)
        assert torch.equal(made, again)
    assert rows and set(rows) == {2}


class Pairs(nn.Module):
    """Sums over edges at which the codes of both ends meet."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GATv2Conv(FEATURES, 4, heads=2, add_self_loops=False)
        self.second = ResGatedGraphConv(8, 8)
        self.third = TransformerConv(8, CLASSES)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        x = self.second(self.first(x, edge_index).relu(), edge_index).relu()
        out: Tensor = self.third(x, edge_index)
        return out


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_pairs_take_targets_of_their_level_and_sources_of_the_next(hops: int) -> None:
    packed = packed_of(Pairs())
    steps = [step["op"] for step in plan_of(packed).about["steps"]]
    assert steps.count("attention_codes") == 2 and "gated_sum" in steps
    assert slices(check(packed, hops)) > 3
