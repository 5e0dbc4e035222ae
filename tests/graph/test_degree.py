"""Protection probabilities: the inclusive empirical distribution of the degree, per graph."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodebits.core.errors import ConfigError
from nodebits.graph import protection_probability

DEGREES = [1, 1, 1, 2, 2, 3, 5, 5, 9, 20]
EXPECTED = [0.13, 0.13, 0.13, 0.15, 0.15, 0.16, 0.18, 0.18, 0.19, 0.20]


def test_worked_example() -> None:
    result = protection_probability(torch.tensor(DEGREES).float(), 0.1, 0.2)
    torch.testing.assert_close(result, torch.tensor(EXPECTED))


@pytest.mark.parametrize("shuffled", [False, True])
def test_each_graph_of_a_batch_on_its_own(shuffled: bool) -> None:
    other = [4, 0, 4, 7]
    degree = torch.tensor(DEGREES + other).float()
    batch = torch.tensor([0] * 10 + [2] * 4)  # graph 1 has no nodes
    expected = torch.tensor([*EXPECTED, 0.175, 0.125, 0.175, 0.2])
    order = torch.randperm(14) if shuffled else torch.arange(14)
    result = protection_probability(degree[order], 0.1, 0.2, batch[order])
    torch.testing.assert_close(result, expected[order])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=40))
def test_definition(nodes: list[tuple[int, int]]) -> None:
    degree = torch.tensor([float(d) for d, _ in nodes])
    batch = torch.tensor([b for _, b in nodes])
    for where, among in ((None, lambda a, b: True), (batch, lambda a, b: a[1] == b[1])):
        expected = []
        for node in nodes:
            peers = [other for other in nodes if among(node, other)]
            share = sum(other[0] <= node[0] for other in peers) / len(peers)
            expected.append(0.05 + 0.3 * share)
        result = protection_probability(degree, 0.05, 0.35, where)
        torch.testing.assert_close(result, torch.tensor(expected))


def test_no_nodes() -> None:
    assert protection_probability(torch.zeros(0), 0.1, 0.2).shape == (0,)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.2), (0.3, 0.2), (0.1, 1.1)])
def test_bad_ends(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match=r"need 0 <= p_min <= p_max <= 1"):
        protection_probability(torch.ones(3), low, high)
