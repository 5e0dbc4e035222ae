"""Answers have the bits of the packed model on the same data."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GCNConv, GINEConv, global_mean_pool

from nodebits.methods import UniformConfig
from nodebits.models import PairModel
from nodebits.plan.plan import Plan
from nodebits.runtime import convert
from nodebits.serving.errors import RequestError
from nodebits.serving.questions import Graphs, KnownRows, NewNodes, OneGraph, Pairs, SampledRows
from nodebits.serving.requests import read_question
from nodebits.serving.served import Loaded, Served
from nodebits.serving.settings import Limits
from nodebits.tasks import find_task
from nodebits.train import PairProblem
from packed_models import CLASSES, FEATURES, NODES, UserModel, make_case, small_graph, two_steps

from .conftest import loaded_case, loaded_nodes, outputs_of


def same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def new_nodes(count: int, seed: int) -> NewNodes:
    """Edges among new and old nodes in both directions, a loop, a double edge; a node without."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=generator)
    ends = torch.randint(0, NODES + count, (2, 6 * count), generator=generator)
    ends[1, ::2] = NODES + ends[1, ::2] % count
    ends = torch.cat([ends, ends[:, :1], torch.tensor([[NODES], [NODES]])], 1)
    return NewNodes(x, ends[:, (ends != NODES + count - 1).all(0)], {})


def test_nodes_have_the_rows_of_the_whole_graph(served, case):
    ids = torch.tensor([3, 0, NODES - 1, 3])
    first, second = served.answer([KnownRows(ids, [3, 0, 39, 3]), KnownRows(ids[:0], [])])
    whole = case.packed.predict(case.x, case.edge_index)
    assert same(outputs_of(first), whole[ids])
    told = json.loads(first)
    assert told["rows"] == [3, 0, 39, 3] and told["predictions"] == whole[ids].argmax(1).tolist()
    assert told["model"] == "v1" and json.loads(second)["outputs"] == []


@pytest.mark.parametrize(
    ("name", "near"),
    [("gcn", True), ("gin", True), ("sage", True), ("gat", True), ("appnp", False)],
)
def test_new_nodes_have_the_rows_of_a_graph_with_them(name, near):
    case = make_case(name)
    served = Served(loaded_case(case), "v1")
    asked = [new_nodes(count, seed) for seed, count in enumerate((1, 3, 2))]
    answers = served.answer(asked)
    assert (served._depth() is not None) == near
    for question, answer in zip(asked, answers, strict=True):
        x = torch.cat([case.x, question.x])
        whole = case.packed.predict(x, torch.cat([case.edge_index, question.edges], 1))
        assert same(outputs_of(answer), whole[NODES:])
        assert json.loads(answer)["rows"] == list(range(NODES, x.size(0)))


def test_new_nodes_of_a_model_of_ones_own():
    x, edge_index = small_graph()
    prepared = two_steps(UserModel(), UniformConfig(bits=4), x, edge_index)
    packed = convert(prepared)
    served, question = Served(loaded_nodes(packed, x, edge_index), "v1"), new_nodes(3, 5)
    whole = packed.predict(torch.cat([x, question.x]), torch.cat([edge_index, question.edges], 1))
    assert same(outputs_of(served.answer([question])[0]), whole[NODES:])


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(FEATURES, 8), GCNConv(8, CLASSES)

    def forward(self, x, edge_index, edge_weight):
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)


def test_new_edges_bring_their_weights():
    x, edge_index = small_graph()
    weight = torch.rand(edge_index.size(1))
    prepared = two_steps(Weighted(), UniformConfig(bits=4), x, edge_index, edge_weight=weight)
    packed = convert(prepared)
    served = Served(loaded_nodes(packed, x, edge_index, edge_weight=weight), "v1")
    assert served.facts.of_edges == {"edge_weight": 0}
    plain = [new_nodes(2, 1), new_nodes(1, 2)]
    asked = [NewNodes(q.x, q.edges, {"edge_weight": torch.rand(q.edges.size(1))}) for q in plain]
    for question, answer in zip(asked, served.answer(asked), strict=True):
        whole = packed.predict(
            torch.cat([x, question.x]),
            torch.cat([edge_index, question.edges], 1),
            torch.cat([weight, question.of_edges["edge_weight"]]),
        )
        assert same(outputs_of(answer), whole[NODES:])


def test_samples_are_those_of_predict_nodes(served, case):
    ids = torch.tensor([5, 7])
    asked = SampledRows(ids, [5, 7], [2, 2], 11)
    expected = case.packed.predict_nodes(case.edge_index, case.x, ids, [2, 2], seed=11)
    assert same(outputs_of(served.answer([asked])[0]), expected)


@pytest.mark.parametrize("name", ["gin", "gcn"])
def test_graphs_of_several_requests_are_answered_as_if_alone(name):
    case = make_case(name, task="graph")
    served = Served(loaded_case(case), "v1")
    graphs = []
    for seed, nodes in enumerate((6, 1, 9, 4)):
        x, edges = small_graph(max(nodes, 2), seed=seed)
        x, edges = x[:nodes], edges[:, (edges < nodes).all(0)]
        graphs.append(OneGraph(x, edges, {}))
    answers = served.answer([Graphs(graphs[:3]), Graphs(graphs[3:])])
    found = torch.cat([outputs_of(answer) for answer in answers])
    for graph, row in zip(graphs, found, strict=True):
        batch = torch.zeros(graph.x.size(0), dtype=torch.int64)
        assert same(row, case.packed.predict(graph.x, graph.edges, batch=batch)[0])


class Bonds(nn.Module):
    """A model of molecules, with bonds that have features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GINEConv(nn.Linear(FEATURES, 8), edge_dim=5)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x, edge_index, edge_attr, batch):
        return self.last(global_mean_pool(self.conv(x, edge_index, edge_attr).relu(), batch))


def test_a_molecule_without_bonds():
    x, edges = small_graph()
    bonds, batch = torch.rand(edges.size(1), 5), torch.zeros(NODES, dtype=torch.int64)
    given = {"edge_attr": bonds, "batch": batch}
    packed = convert(two_steps(Bonds(), UniformConfig(bits=4), x, edges, **given))
    assert isinstance(packed.plan(x, edges, **given), Plan)
    served = Served(Loaded(packed, find_task("graph"), "molecules"), "v1")
    atom = {"x": x[:1].tolist(), "edges": []}
    expected = packed.predict(
        x[:1], edges[:, :0], edge_attr=bonds[:0], batch=torch.zeros(1, dtype=torch.int64)
    )
    for graph in (atom, {**atom, "edge_attr": []}):
        body = json.dumps({"graphs": [graph]}).encode()
        answer = served.answer([read_question(body, served.facts, Limits())])[0]
        assert same(outputs_of(answer), expected)


def test_a_sample_around_a_node_without_edges(served, case):
    alone = NODES - 1
    assert not bool((case.edge_index == alone).any())
    ids = torch.tensor([alone])
    (answer,) = served.answer([SampledRows(ids, [alone], [2, 2], 3)])
    assert same(outputs_of(answer), case.packed.predict(case.x, case.edge_index)[ids])


def test_pairs():
    x, edge_index = small_graph()
    labels = torch.randint(0, NODES, (2, 20))
    prepared = two_steps(
        PairModel(GCN(FEATURES, 16, 1, 16), 16, CLASSES, "mlp"),
        UniformConfig(bits=4), x, edge_index, labels,
    )  # fmt: skip
    packed = convert(prepared)
    parts = [
        Data(
            x=x,
            edge_index=edge_index,
            edge_label_index=labels[:, at : at + 6],
            edge_label=torch.arange(6) % CLASSES,
        )
        for at in (0, 6, 12)
    ]
    problem = PairProblem(*parts, task="edge")
    served = Served(Loaded(packed, problem.task, "small", problem), "v1")
    asked = [Pairs(labels[:, :3]), Pairs(labels[:, 3:4])]
    answers = served.answer(asked)
    found = torch.cat([outputs_of(answer) for answer in answers])
    assert same(found, packed.predict(x, edge_index, labels[:, :4]))
    assert json.loads(answers[1])["rows"] == labels[:, 3:4].t().tolist()
    assert served.facts.kinds["nodes"] and not served.facts.kinds["pairs"]


def test_of_a_batch_the_one_at_fault_is_refused(served, case):
    good, bad = new_nodes(1, 0), new_nodes(1, 1)
    wrong = NewNodes(torch.randn(1, FEATURES + 1), bad.edges, {})
    first, second, third = served.answer([good, wrong, new_nodes(1, 2)])
    assert isinstance(first, bytes) and isinstance(third, bytes)
    assert isinstance(second, RequestError) and second.status == 422


def test_a_model_with_parameters_of_nodes_says_so():
    case = make_case("gcn", "a2q")
    served = Served(loaded_case(case), "v1")
    assert "parameters for every node" in served.facts.kinds["new_nodes"]
    row = torch.tensor([1])
    expected = case.packed.predict(case.x, case.edge_index)[1:2]
    assert same(outputs_of(served.answer([KnownRows(row, [1])])[0]), expected)


def test_what_does_not_fit_the_task_is_told():
    kinds = Served(loaded_case(make_case("gin", task="graph")), "v1").facts.kinds
    assert kinds["nodes"] == kinds["new_nodes"] == "the model predicts graphs"
    assert find_task("graph").level.many_graphs and not kinds["graphs"]
