"""Parts of examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GATConv, HeteroConv, NNConv, SAGEConv

from nodebits.runtime.sample import Example

N, E = 200, 900


def rows(num_nodes: int = N) -> Tensor:
    """Rows that say which node they are of."""
    return torch.arange(num_nodes, dtype=torch.float32).view(-1, 1).repeat(1, 3)


def assert_edges_are_kept(part: Example, whole: Tensor, names: Tensor, made: Tensor) -> None:
    """Those among the nodes named, and no others, with the nodes' new numbers."""
    pairs = {tuple(pair) for pair in names[made].t().tolist()}
    inside = torch.isin(whole, names).all(0)
    assert pairs == {tuple(pair) for pair in whole[:, inside].t().tolist()} and pairs


def test_rows_of_nodes_and_edges_go_with_them() -> None:
    steps = torch.tensor([-2, -1, 1, 2]).repeat_interleave(N)  # a ring
    edges = torch.stack([(torch.arange(N).repeat(4) + steps) % N, torch.arange(N).repeat(4)])
    attributes = (edges[0] * N + edges[1]).view(-1, 1).float()
    batch = torch.arange(N) // 50
    whole = Example.of((rows(), edges), {"edge_attr": attributes, "batch": batch, "eps": 0.5})
    assert whole is not None and (whole.num_nodes, whole.size) == (N, 5 * N)
    part = whole.part(40)
    x, made = part.args
    names = x[:, 0].long()
    assert x.size(0) == part.num_nodes == 40 and part.size == 40 + made.size(1)
    assert_edges_are_kept(part, edges, names, made)
    ends = names[made]
    assert torch.equal(part.keywords["edge_attr"].view(-1), (ends[0] * N + ends[1]).float())
    assert torch.equal(part.keywords["batch"], batch[names])
    assert part.keywords["eps"] == 0.5
    with torch.no_grad():
        conv = NNConv(3, 4, torch.nn.Linear(1, 12))
        assert conv(x, made, part.keywords["edge_attr"]).shape == (40, 4)
    assert made.size(1) > 2 * edges.size(1) * (40 / N) ** 2, "neighbours, not nodes from all over"


def test_nodes_without_edges_and_more_nodes_than_there_are() -> None:
    whole = Example.of((rows(30), torch.tensor([[0], [1]])), {})
    assert whole is not None
    assert whole.part(20).num_nodes == 20
    assert whole.part(99).num_nodes == 30


@pytest.mark.parametrize("as_data", [False, True])
def test_types(as_data: bool) -> None:
    torch.manual_seed(0)
    edges = {
        ("a", "to", "b"): torch.stack([torch.randint(N, (E,)), torch.randint(80, (E,))]),
        ("b", "to", "a"): torch.stack([torch.randint(80, (E,)), torch.randint(N, (E,))]),
    }
    x = {"a": rows(), "b": rows(80)}
    if as_data:
        data = HeteroData()
        for name, value in x.items():
            data[name].x = value
        for kind, ends in edges.items():
            data[kind].edge_index = ends
    whole = Example.of((data,) if as_data else (x, edges), {})
    assert whole is not None and whole.num_nodes == N + 80
    part = whole.part(60)
    made = part.args[0].x_dict if as_data else part.args[0]
    ends = part.args[0].edge_index_dict if as_data else part.args[1]
    assert part.num_nodes == made["a"].size(0) + made["b"].size(0) == 60
    for (source, _, target), index in ends.items():
        assert index[0].max() < made[source].size(0) and index[1].max() < made[target].size(0)
        assert index.size(1) > 0
    kinds = {kind: SAGEConv((3, 3), 4) for kind in edges}
    kinds[("a", "to", "b")] = GATConv((3, 3), 4, add_self_loops=False)
    assert set(HeteroConv(kinds)(made, ends)) == {"a", "b"}


def test_data() -> None:
    edges = torch.randint(N, (2, E))
    whole = Example.of((Data(x=rows(), edge_index=edges, y=torch.arange(N)),), {})
    assert whole is not None
    (data,) = whole.part(50).args
    assert data.num_nodes == 50 and torch.equal(data.y, data.x[:, 0].long())


@pytest.mark.parametrize(
    "values",
    [
        (rows(), torch.eye(N).to_sparse()),
        ((rows(), rows(80)), torch.randint(80, (2, E))),
        (rows(), torch.randint(N, (2, E)), torch.randint(N, (2, 5))),
        (rows(), torch.randint(N, (2, N))),
        (rows(), torch.full((2, E), N)),
        (torch.arange(N), torch.randint(N, (2, E))),
        (rows(),),
    ],
    ids=["sparse", "pair", "two adjacencies", "as many edges", "beyond", "numbers", "no edges"],
)
def test_what_is_not_known_stays_whole(values: tuple[Any, ...]) -> None:
    assert Example.of(values, {}) is None
