"""The embedded sets: shapes, splits, and that a small model learns them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch_geometric.nn import GCNConv
from torch_geometric.utils import contains_self_loops, is_undirected

from nodebits.core.errors import ConfigError
from nodebits.data import Dataset, folds, load_dataset
from nodebits.data.digits import nearest_neighbours, pixel_graph


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def digits_graphs() -> Dataset:
    return load_dataset("Digits_Graphs")


def test_digits_is_one_symmetric_graph(digits: Dataset) -> None:
    data = digits.data
    assert (digits.name, digits.task, len(digits)) == ("digits", "node", 1)
    assert data.x.shape == (1797, 64)
    assert data.x.dtype == torch.float32
    assert (float(data.x.min()), float(data.x.max())) == (0.0, 1.0)
    assert data.edge_index.shape == (2, 19858)
    assert is_undirected(data.edge_index)
    assert not contains_self_loops(data.edge_index)
    assert data.is_coalesced()


def test_one_graph_has_no_graphs_and_many_have_no_data(
    digits: Dataset, digits_graphs: Dataset
) -> None:
    assert digits_graphs.many_graphs and not digits.many_graphs
    with pytest.raises(ConfigError, match=r"'digits' is one graph.*use its data"):
        _ = digits.graphs
    with pytest.raises(ConfigError, match=r"'digits-graphs' has 1797 graphs.*use its graphs"):
        _ = digits_graphs.data


def test_digits_split_is_stratified_and_fixed(digits: Dataset) -> None:
    data = digits.data
    assert torch.equal(
        data.train_mask.int() + data.val_mask.int() + data.test_mask.int(),
        torch.ones(1797, dtype=torch.int),
    )
    assert torch.bincount(data.y[data.train_mask]).tolist() == [20] * 10
    assert torch.bincount(data.y[data.val_mask]).tolist() == [30] * 10
    assert torch.equal(data.train_mask.nonzero().flatten(), digits.train_idx)
    again = load_dataset("digits")
    assert torch.equal(again.train_idx, digits.train_idx)
    assert torch.equal(again.data.edge_index, data.edge_index)
    assert not torch.equal(load_dataset("digits", split=1).train_idx, digits.train_idx)


def test_loading_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    load_dataset("digits")
    assert torch.equal(before, torch.get_rng_state())


def test_a_two_layer_gcn_learns_digits(digits: Dataset) -> None:
    data = digits.data
    first, second = GCNConv(64, 64), GCNConv(64, 10)
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.01)
    for _ in range(60):
        hidden = functional.dropout(first(data.x, data.edge_index).relu(), 0.5)
        loss = functional.cross_entropy(
            second(hidden, data.edge_index)[data.train_mask], data.y[data.train_mask]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        predicted = second(first(data.x, data.edge_index).relu(), data.edge_index).argmax(1)
    assert float((predicted == data.y)[data.test_mask].float().mean()) >= 0.95


def test_ties_between_neighbours_go_to_the_lower_index() -> None:
    points = torch.tensor([[0], [2], [-2], [9]])
    edges = nearest_neighbours(points, 1).T.tolist()
    # 0 is as far from 1 as from 2, and takes 1; 2 takes 0, so that edge is there as well.
    assert edges == [[0, 1], [0, 2], [1, 0], [1, 3], [2, 0], [3, 1]]


def test_pixel_graph_joins_eight_neighbours() -> None:
    image = torch.zeros(8, 8, dtype=torch.long)
    image[0, 0], image[1, 1], image[1, 3], image[7, 7] = 16, 8, 4, 2
    graph = pixel_graph(image)
    assert graph.x.tolist()[0] == [1.0, 0.0, 0.0]
    assert graph.x.tolist()[3] == [0.125, 1.0, 1.0]
    assert graph.edge_index.tolist() == [[0, 1], [1, 0]]


def test_digits_graphs(digits_graphs: Dataset) -> None:
    assert (digits_graphs.name, digits_graphs.task) == ("digits-graphs", "graph")
    assert (len(digits_graphs), digits_graphs.num_features, digits_graphs.num_classes) == (
        1797,
        3,
        10,
    )
    parts = (digits_graphs.train_idx, digits_graphs.val_idx, digits_graphs.test_idx)
    assert [len(part) for part in parts] == [1000, 300, 497]
    assert torch.cat(parts).unique().numel() == 1797
    graph = digits_graphs.graphs[0]
    assert is_undirected(graph.edge_index)
    assert not contains_self_loops(graph.edge_index)
    assert graph.y.shape == (1,)


def test_folds_partition_and_rotate(digits_graphs: Dataset) -> None:
    parts = folds(digits_graphs)
    assert len(parts) == 10
    assert torch.cat([test for _, _, test in parts]).unique().numel() == 1797
    for number, (train, val, test) in enumerate(parts):
        assert torch.equal(val, parts[number - 1][2])
        assert torch.cat([train, val, test]).unique().numel() == 1797
    assert torch.equal(folds(digits_graphs)[3][2], parts[3][2])


def test_a_node_level_set_has_no_folds(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="node-level"):
        folds(digits)


@pytest.mark.parametrize("split", [-1, "public"])
def test_a_split_that_is_no_seed_is_refused(split: int | str) -> None:
    with pytest.raises(ConfigError, match="seed"):
        load_dataset("digits", split=split)
