"""Plans of calls by type of node and edge: which there are, for data of any size, to the bit."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv, HeteroConv, SAGEConv, global_mean_pool

import nodebits
from nodebits.core.errors import ConfigError, NodeIndexError, NonFiniteError, ShapeError
from nodebits.graph import as_graph
from nodebits.plan.typed import typed_example
from nodebits.runtime.traced import operator_plan
from typed_models import (
    FEATURES,
    KINDS,
    MODELS,
    ByRelation,
    OfHeteroData,
    arguments,
    compare,
    packed_of,
    plan_of,
    same,
    typed_data,
)

DATA, OTHER = typed_data(), typed_data(77, 31, 300, seed=1)
# What torch rounds in its own way.
LEAVES = {"HGT": ["gelu"] * 2}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    packed = packed_of(MODELS[name](), *arguments(name, DATA))
    plan = plan_of(packed, *arguments(name, DATA))
    assert plan.leaves == LEAVES.get(name, [])
    for data in (DATA, OTHER):
        compare(packed, *arguments(name, data))


def test_dictionaries_of_any_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ByRelation()

        def forward(self, nodes: Any, links: Any, edge_label_index: Any = None) -> Any:
            return self.inner(nodes, links)

    made = packed_of(Named(), *arguments("HeteroConv", DATA))
    assert plan_of(made, *arguments("HeteroConv", DATA)).leaves == []
    for data in (DATA, OTHER):
        compare(made, *arguments("HeteroConv", data))
    pairs = {KINDS[0]: DATA[KINDS[0]].edge_index[:, :4]}
    assert "edges by type" in made.plan(arguments("HeteroConv", DATA)[0], None, pairs)


@pytest.fixture(scope="module")
def packed() -> nodebits.PackedModel:
    made = packed_of(ByRelation(), *arguments("HeteroConv", DATA))
    plan_of(made, *arguments("HeteroConv", DATA))
    return made


def test_types_of_one_size_are_told_apart() -> None:
    alike = typed_data(30, 30, 60, seed=2)
    for kind in KINDS:
        alike[kind].edge_index = alike[kind].edge_index[:, :20]
    made = packed_of(ByRelation(), *arguments("HeteroConv", alike))
    plan_of(made, *arguments("HeteroConv", alike))
    for data in (alike, DATA, OTHER):
        compare(made, *arguments("HeteroConv", data))


def test_types_without_edges_or_nodes(packed: nodebits.PackedModel) -> None:
    x, edges = arguments("HeteroConv", DATA)
    compare(packed, x, {k: v[:, :0] if k == KINDS[1] else v for k, v in edges.items()})
    compare(packed, x, {k: v[:, :0] for k, v in edges.items()})
    nobody = {k: v[:, :0] if "author" in k else v for k, v in edges.items()}
    compare(packed, {**x, "author": x["author"][:0]}, nobody)


def test_an_example_with_no_edges_of_a_type_has_a_plan_for_others() -> None:
    x, edges = arguments("HeteroConv", DATA)
    none = {k: v[:, :0] if k == KINDS[2] else v for k, v in edges.items()}
    made = packed_of(ByRelation(), x, edges)
    plan_of(made, x, none)
    compare(made, x, edges)


def test_missing_types_are_calls_of_another_kind(packed: nodebits.PackedModel) -> None:
    x, edges = arguments("HeteroConv", DATA)
    some = {k: v for k, v in edges.items() if k != KINDS[1]}
    plan_of(packed, x, some)
    assert same(compare(packed, x, some), packed.predict(x, some))
    alone = {"paper": x["paper"]}, {KINDS[0]: edges[KINDS[0]]}
    plan_of(packed, *alone)
    assert list(compare(packed, *alone)) == ["paper"]


def test_prepared_edges(packed: nodebits.PackedModel) -> None:
    for data in (DATA, OTHER):
        x, edges = arguments("HeteroConv", data)
        graphs = {k: as_graph(v, len(x[k[0]]), len(x[k[2]])) for k, v in edges.items()}
        mixed = {k: graphs[k] if k == KINDS[1] else v for k, v in edges.items()}
        for given in (graphs, mixed):
            plan_of(packed, x, given)
            for _ in range(2):
                assert same(compare(packed, x, given), compare(packed, x, edges))
        # One of them is another graph: nothing that was kept with those before may be used.
        turned = {**graphs, KINDS[0]: as_graph(edges[KINDS[0]].flip(0), len(x["paper"]))}
        compare(packed, x, turned)
        compare(packed, x, graphs)


def test_matrices(packed: nodebits.PackedModel) -> None:
    def matrices(data: HeteroData) -> dict[Any, Tensor]:
        x, edges = arguments("HeteroConv", data)
        found = {}
        for k, v in edges.items():
            size = len(x[k[2]]), len(x[k[0]])
            coo = torch.sparse_coo_tensor(v.flip(0), torch.ones(v.size(1)), size).coalesce()
            ones = torch.ones_like(coo.values())
            found[k] = torch.sparse_coo_tensor(coo.indices(), ones, size).to_sparse_csr()
        return found

    plan_of(packed, DATA.x_dict, matrices(DATA))
    with torch.no_grad():
        expected = packed.module(OTHER.x_dict, matrices(OTHER))
    for _ in range(3):
        assert same(packed.predict(OTHER.x_dict, matrices(OTHER)), expected)


def test_by_name(packed: nodebits.PackedModel) -> None:
    x, edges = arguments("HeteroConv", DATA)
    plan_of(packed, x_dict=x, edge_index_dict=edges)
    compare(packed, x_dict=OTHER.x_dict, edge_index_dict=OTHER.edge_index_dict)


def test_errors_are_those_of_the_module(packed: nodebits.PackedModel) -> None:
    x, edges = arguments("HeteroConv", DATA)
    with pytest.raises(NodeIndexError, match="40 nodes"):
        packed.predict(x, {**edges, KINDS[0]: edges[KINDS[0]] + 40})
    with pytest.raises(ShapeError, match="5"):
        packed.predict({**x, "paper": x["paper"][:, :5]}, edges)
    bad = x["author"].clone()
    bad[3, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"\[3, 2\]"):
        packed.predict({**x, "author": bad}, edges)


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "min", "cat", None])
def test_how_relations_are_joined(aggr: str | None) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            wide = (FEATURES, FEATURES)
            self.conv = HeteroConv({k: SAGEConv(wide, 8) for k in KINDS}, aggr=aggr)

        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: Any) -> Any:
            return self.conv(x_dict, edge_index_dict)

    made = packed_of(One(), *arguments("HeteroConv", DATA))
    assert not plan_of(made, *arguments("HeteroConv", DATA)).leaves
    compare(made, *arguments("HeteroConv", OTHER))


def test_attributes_of_edges_and_graphs_of_nodes() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            wide = (FEATURES, FEATURES)
            self.conv = HeteroConv(
                {k: GATv2Conv(wide, 8, edge_dim=3, add_self_loops=False) for k in KINDS}
            )

        def forward(
            self, x_dict: Any, edge_index_dict: Any, edge_attr_dict: Any, batch: Any
        ) -> Any:
            h = self.conv(x_dict, edge_index_dict, edge_attr_dict=edge_attr_dict)
            return sum(global_mean_pool(h[k], batch[k]) for k in h)

    def given(data: HeteroData) -> tuple[Any, ...]:
        attributes = {k: torch.rand(v.size(1), 3) for k, v in data.edge_index_dict.items()}
        batch = {k: torch.arange(len(x)) * 4 // len(x) for k, x in data.x_dict.items()}
        return data.x_dict, data.edge_index_dict, attributes, batch

    made = packed_of(Pooled(), *given(DATA))
    plan_of(made, *given(DATA))
    assert compare(made, *given(OTHER)).shape == (4, 8)


def test_nodes_that_the_model_has_itself() -> None:
    class Embedded(nn.Module):
        def __init__(self, given: bool) -> None:
            super().__init__()
            self.authors, self.model, self.given = nn.Embedding(31, FEATURES), ByRelation(), given

        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: Any) -> Any:
            own = self.authors(x_dict["author"]) if self.given else self.authors.weight
            return self.model({"paper": x_dict["paper"], "author": own}, edge_index_dict)

    def call(data: HeteroData, given: bool) -> tuple[Any, Any]:
        ids = {"author": torch.arange(len(data["author"].x))} if given else {}
        return {"paper": data["paper"].x, **ids}, data.edge_index_dict

    for given in (True, False):
        made = packed_of(Embedded(given), *call(DATA, given))
        plan_of(made, *call(DATA, given))
        compare(made, *call(OTHER, given))


def sampled(seed: int) -> HeteroData:
    """A batch as a loader makes it, with what it says of the sample."""
    generator = torch.Generator().manual_seed(seed)
    some = {k: torch.randperm(len(x), generator=generator)[: 12 + 3 * seed] for k, x in
            OTHER.x_dict.items()}  # fmt: skip
    batch = OTHER.subgraph(some)
    for kind in batch.node_types:
        batch[kind].n_id, batch[kind].num_sampled_nodes = some[kind], [3, seed]
    batch["paper"].batch_size, batch["paper"].input_id = 3, torch.arange(3)
    return batch


def test_batches_of_loaders() -> None:
    by_data = packed_of(OfHeteroData(), DATA)
    by_type = packed_of(ByRelation(), *arguments("HeteroConv", DATA))
    plan_of(by_data, DATA)
    plan_of(by_type, *arguments("HeteroConv", DATA))
    for seed in range(4):
        batch = sampled(seed)
        compare(by_data, batch)
        compare(by_type, batch.x_dict, batch.edge_index_dict)


def test_what_a_forward_reads_of_data_tells_the_kinds_of_calls() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ByRelation()

        def forward(self, data: HeteroData) -> Tensor:
            h: Tensor = self.model(data.x_dict, data.edge_index_dict)["paper"]
            return h + 1 if "mark" in data["paper"] else h

    made = packed_of(Asking(), DATA)
    plan_of(made, DATA)
    marked = typed_data(50, seed=5)
    plain = compare(made, marked)
    marked["paper"].mark = torch.zeros(50)
    for _ in range(3):
        assert torch.equal(made.predict(marked), plain + 1)
    compare(made, typed_data(50, seed=5))


def test_who_asks_for_what_has_no_rows_has_no_plan() -> None:
    """A number in the data is in no example, where it would look as if it were not there."""

    class Flagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ByRelation()

        def forward(self, data: HeteroData) -> Tensor:
            h: Tensor = self.model(data.x_dict, data.edge_index_dict)["paper"]
            return h + 1 if "flag" in data["paper"] else h

    made = packed_of(Flagged(), DATA)
    plan_of(made, DATA)
    flagged = typed_data(50, seed=5)
    plain = made.predict(flagged)
    flagged["paper"].flag = 1
    for _ in range(4):
        assert torch.equal(made.predict(flagged), plain + 1)
    assert isinstance(made.plan(flagged), str)


def test_data_whose_sizes_are_read_have_no_plan() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ByRelation()

        def forward(self, data: HeteroData) -> Tensor:
            h: Tensor = self.model(data.x_dict, data.edge_index_dict)["paper"]
            return h[: data["paper"].batch_size]

    made = packed_of(Counting(), sampled(1))
    reason = made.plan(sampled(1))
    assert isinstance(reason, str) and "batch_size" in reason
    for seed in (0, 2, 2, 2):
        assert made.predict(sampled(seed)).shape == (3, 5)


def test_reasons() -> None:
    x, edges = arguments("HeteroConv", DATA)
    made = packed_of(ByRelation(), x, edges)
    for args, told in (
        (({**x, 3: x["paper"]}, edges), "the key 3"),
        ((x, {k: v for k, v in edges.items() if False}), "no edges"),
        ((x, edges, torch.zeros(4)), "'argument 2' is a Tensor"),
        (({**x, "paper": 40}, edges), "'x_dict[paper]' is a int"),
    ):
        reason = made.plan(*args)
        assert isinstance(reason, str) and told in reason


def test_sizes_of_an_example_are_all_different() -> None:
    x, edges = arguments("HeteroConv", typed_data(30, 30, 60))
    example = typed_example([(0, "x_dict", x), (1, "edge_index_dict", edges)])
    for count in (1, 3, -8, -9):
        made = example.repeated(count)
        sizes = [t.size(0 if t.is_floating_point() else 1) for t in made.values()]
        assert len(set(sizes)) == len(sizes)
        for argument in example.arguments:
            if argument.role == "edges":
                nodes = [example.nodes_of(argument.of[side], count) for side in (0, -1)]
                assert (made[argument.name].max(1).values < torch.tensor(nodes)).all()


def test_calls() -> None:
    """A few per type beside those of a call on one graph."""
    for name in ("HeteroConv", "HeteroData"):
        packed = packed_of(MODELS[name](), *arguments(name, DATA))
        args = arguments(name, DATA)
        plan_of(packed, *args)
        for _ in range(70):  # the first calls look at the use of codes
            packed.predict(*args)
        calls: list[str] = []

        def note(frame: FrameType, event: str, argument: Any, calls: list[str] = calls) -> None:
            if event == "call" and "nodebits" in frame.f_code.co_filename.split("/"):
                calls.append(frame.f_code.co_name)

        sys.setprofile(note)
        try:
            packed.predict(*args)
        finally:
            sys.setprofile(None)
        assert 0 < len(calls) <= 14, calls


def test_numbers_that_several_sizes_give() -> None:
    class Joined(nn.Module):
        """All types as one graph, whose nodes are numbered one type after another."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = SAGEConv(FEATURES, 8), nn.Linear(8, 3)

        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: Any) -> dict[str, Tensor]:
            first, count = {}, 0
            for kind, x in x_dict.items():
                first[kind] = count
                count += x.size(0)
            edges = torch.cat(
                [
                    torch.stack([ends[0] + first[kind[0]], ends[1] + first[kind[2]]])
                    for kind, ends in edge_index_dict.items()
                ],
                1,
            )
            h = self.head(self.conv(torch.cat(list(x_dict.values())), edges).relu())
            rest = h.new_zeros(2 * count + 1, 3)
            parts = {
                kind: h[i : i + x.size(0)]
                for (kind, x), i in zip(x_dict.items(), first.values(), strict=True)
            }
            return {**parts, "rest": rest}

    def given(data: HeteroData) -> tuple[Any, Any]:
        more = {"venue": data["paper"].x[:7] * 0.5}
        ends = torch.stack([torch.arange(7), torch.arange(7) * 2])
        return {**data.x_dict, **more}, {**data.edge_index_dict, ("venue", "of", "author"): ends}

    made = packed_of(Joined(), *given(DATA))
    plan = plan_of(made, *given(DATA))
    assert plan.is_portable and "number" in plan.steps
    for data in (DATA, OTHER):
        compare(made, *given(data))


def test_parts_whose_sizes_are_those_of_types() -> None:
    class Parted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.conv = nn.Linear(FEATURES, 8), SAGEConv(8, 4)

        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: Any) -> dict[str, Tensor]:
            sizes = [x.size(0) for x in x_dict.values()]
            parts = self.lin(torch.cat(list(x_dict.values()))).split(sizes)
            made = dict(zip(x_dict, parts, strict=True))
            return {**made, "cited": self.conv(made["paper"], edge_index_dict[KINDS[0]])}

    def given(data: HeteroData, venues: int) -> tuple[Any, Any]:
        more = {"venue": data["paper"].x[:venues] * 0.5}
        return {**data.x_dict, **more}, {KINDS[0]: data[KINDS[0]].edge_index}

    made = packed_of(Parted(), *given(DATA, 7))
    plan = plan_of(made, *given(DATA, 7))
    assert plan.is_portable and not plan.leaves and "number" in plan.steps
    for one in (given(DATA, 7), given(OTHER, 3), given(OTHER, 0)):
        compare(made, *one)


def test_torch_compile_says_that_it_takes_tensors(packed: nodebits.PackedModel) -> None:
    with pytest.raises(ConfigError, match=r"'x_dict\[paper\]' is held by another argument"):
        operator_plan(plan_of(packed, *arguments("HeteroConv", DATA)), -1)


def test_a_call_is_answered_where_no_example_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = packed_of(ByRelation(), *arguments("HeteroConv", DATA))
    made._plans.forget()

    def fail(*_: Any) -> Any:
        raise IndexError("of no use")

    monkeypatch.setattr("nodebits.runtime.plans.example_of", fail)
    expected = made.predict(*arguments("HeteroConv", DATA))
    for _ in range(3):
        assert same(made.predict(*arguments("HeteroConv", DATA)), expected)
    reason = made.plan(*arguments("HeteroConv", DATA))
    assert isinstance(reason, str) and "IndexError: of no use" in reason
