"""Samples of neighbourhoods: their form, their draws, and the same ones on every backend."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from operator_inputs import generator
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import ConfigError, GraphError, NodeIndexError
from nodebits.ops import coo_to_csr
from nodebits.ops.sampling import Neighborhood, sample_neighbors

COMPILED = next(name for name in reversed(ops.available_isas()))
NODES = 300
PINNED_NODES = [1, 0, 9, 6, 13, 4, 15, 5, 18, 21, 22, 7, 12, 14]
PINNED_EDGES = [15, 18, 19, 4, 9, 11, 30, 27, 34, 25, 36, 26]


def graph(nodes: int = NODES, edges: int = 6_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of very different lengths, some of them empty, with parallel edges and loops."""
    g = generator(seed)
    row = (torch.rand(edges, generator=g) ** 4 * nodes).long()
    col = torch.randint(nodes, (edges,), generator=g)
    indptr, indices, _ = coo_to_csr(row, col, nodes)
    return indptr, indices


def same(one: Neighborhood, other: Neighborhood) -> bool:
    return one.reached == other.reached and all(
        torch.equal(a, b) for a, b in zip(one[:-1], other[:-1], strict=True)
    )


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("fanouts", [[3], [2, 0, 4], [-1, 2], [100, 60], [-1, -1, -1], []])
def test_every_backend_and_thread_count_draws_the_same(fanouts: list[int], replace: bool) -> None:
    indptr, indices = graph()
    seeds = torch.tensor([7, 0, 7, 299, 1])
    before = torch.get_num_threads()
    for seed in (0, 12345, 2**64 - 1):
        with ops.force_isa("reference"):
            expected = sample_neighbors(indptr, indices, seeds, fanouts, seed, replace)
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            with ops.force_isa(COMPILED):
                made = sample_neighbors(indptr, indices, seeds, fanouts, seed, replace)
            assert same(made, expected)
    torch.set_num_threads(before)


def test_many_seeds_in_parallel() -> None:
    indptr, indices = graph(5_000, 200_000)
    seeds = torch.randperm(5_000, generator=generator(1))[:3_000]
    with ops.force_isa("reference"):
        expected = sample_neighbors(indptr, indices, seeds, [6, 5], 3)
    before = torch.get_num_threads()
    for threads in (1, 4):
        torch.set_num_threads(threads)
        assert same(sample_neighbors(indptr, indices, seeds, [6, 5], 3), expected)
    torch.set_num_threads(before)


@pytest.mark.parametrize("level", ["reference", COMPILED])
def test_a_seed_draws_the_same_for_good(level: str) -> None:
    """The numbers of another machine, or of a later version, are these."""
    indptr = torch.tensor([0, 12, 24, 24, *range(25, 46)])
    indices = (torch.arange(45) * 7 % 24).int()
    with ops.force_isa(level):
        made = sample_neighbors(indptr, indices, torch.tensor([1, 0]), [3, 2], 2026)
    assert made.nodes.tolist() == PINNED_NODES
    assert made.edges.tolist() == PINNED_EDGES


@pytest.mark.parametrize("replace", [False, True])
def test_rows_are_edges_of_the_graph(replace: bool) -> None:
    indptr, indices = graph()
    fanouts = [5, 3, 70]
    made = sample_neighbors(indptr, indices, torch.tensor([4, 250, 4]), fanouts, 9, replace)
    assert made.nodes[:2].tolist() == [4, 250] and made.seeds.tolist() == [0, 1, 0]
    assert made.nodes.unique().numel() == made.nodes.numel() == made.reached[-1]
    # Every edge leads where it leads in the graph, and nodes appear in the order of the edges.
    assert torch.equal(made.nodes[made.indices.long()].int(), indices[made.edges])
    appearing = torch.cat([torch.tensor([0, 1]), made.indices.long()])
    seen = list(dict.fromkeys(appearing.tolist()))
    assert seen == list(range(made.nodes.numel()))
    hop = 0
    for place, node in enumerate(made.nodes.tolist()):
        while hop < 3 and place >= made.reached[hop]:
            hop += 1
        drawn = made.edges[made.indptr[place] : made.indptr[place + 1]].tolist()
        start, end = int(indptr[node]), int(indptr[node + 1])
        assert all(start <= edge < end for edge in drawn)
        if hop == 3:  # the last hop's nodes are followed no further
            assert not drawn
        elif replace:
            assert len(drawn) == (fanouts[hop] if end > start else 0)
        else:
            assert len(drawn) == len(set(drawn)) == min(fanouts[hop], end - start)


def chi_square(counts: Counter[int], places: int, expected: float) -> float:
    return sum((counts[i] - expected) ** 2 / expected for i in range(places))


@pytest.mark.parametrize(
    ("degree", "take", "replace"),
    [(7, 3, False), (20, 1, False), (9, 8, False), (120, 60, False), (6, 4, True)],
)
def test_every_neighbour_is_equally_likely(degree: int, take: int, replace: bool) -> None:
    """A chi-square test on the edges of many nodes, and on those of one for many seeds."""
    nodes = 4_000
    indptr = torch.arange(nodes + 1) * degree
    indices = torch.zeros(nodes * degree, dtype=torch.int32)
    many = sample_neighbors(indptr, indices, torch.arange(nodes), [take], 11, replace)
    of_nodes = Counter((many.edges % degree).tolist())
    of_seeds: Counter[int] = Counter()
    for seed in range(nodes):
        one = sample_neighbors(
            indptr[:2], indices[:degree], torch.tensor([0]), [take], seed, replace
        )
        of_seeds.update(one.edges.tolist())
    for counts in (of_nodes, of_seeds):
        assert counts.total() == nodes * take
        # Draws without replacement vary less than the test expects, by this factor.
        factor = 1.0 if replace else (degree - take) / (degree - 1)
        statistic = chi_square(counts, degree, nodes * take / degree) / factor
        # 0.999 quantile of chi-square by Wilson and Hilferty, at fixed seeds.
        free = degree - 1
        bound = free * (1 - 2 / (9 * free) + 3.09 * (2 / (9 * free)) ** 0.5) ** 3
        assert statistic < bound


def test_every_pair_is_equally_likely() -> None:
    """Not only single edges: sets of them."""
    nodes, degree = 6_000, 5
    indptr = torch.arange(nodes + 1) * degree
    indices = torch.zeros(nodes * degree, dtype=torch.int32)
    made = sample_neighbors(indptr, indices, torch.arange(nodes), [2], 5)
    pairs = (made.edges % degree).view(-1, 2).sort(1).values
    counts = Counter((pairs[:, 0] * degree + pairs[:, 1]).tolist())
    assert len(counts) == 10
    assert sum((n - nodes / 10) ** 2 / (nodes / 10) for n in counts.values()) < 27.9  # 9 free


def test_hops_and_nodes_draw_apart() -> None:
    """Nodes of one length do not draw the same places, nor does a node in another hop."""
    indptr = torch.arange(101) * 50
    indices = torch.zeros(5_000, dtype=torch.int32)
    one = sample_neighbors(indptr, indices, torch.arange(100), [4], 0).edges % 50
    assert one.view(100, 4).unique(dim=0).size(0) == 100
    first = sample_neighbors(indptr, indices, torch.tensor([0]), [4], 0).edges
    later = sample_neighbors(indptr, indices, torch.tensor([1]), [1, 4], 0)  # 1, then 0
    assert later.nodes.tolist() == [1, 0]
    assert later.edges[1:].sort().values.tolist() != first.sort().values.tolist()


@pytest.mark.parametrize("level", ["reference", COMPILED])
def test_what_is_refused(level: str) -> None:
    indptr, indices = graph()
    one = torch.tensor([0])
    with ops.force_isa(level):
        with pytest.raises(NodeIndexError, match=r"node_ids\[1\] is 300, outside \[0, 300\)"):
            sample_neighbors(indptr, indices, torch.tensor([0, 300]), [1], 0)
        with pytest.raises(NodeIndexError, match=r"node_ids\[0\] is -1"):
            sample_neighbors(indptr, indices, torch.tensor([-1]), [1], 0)
        with pytest.raises(ConfigError, match=r"fanouts\[1\] is -2"):
            sample_neighbors(indptr, indices, one, [1, -2], 0)
        with pytest.raises(ConfigError, match="seed of a sample is -1"):
            sample_neighbors(indptr, indices, one, [1], -1)
        with pytest.raises(NodeIndexError, match=r"indices\[0\] is 301"):
            sample_neighbors(indptr, torch.full_like(indices, 301), one, [1], 0)
        with pytest.raises(GraphError, match="indptr"):
            sample_neighbors(indptr.flip(0), indices, one, [1], 0)


@pytest.mark.parametrize("level", ["reference", COMPILED])
def test_nothing_to_sample(level: str) -> None:
    none = torch.empty(0, dtype=torch.int64)
    with ops.force_isa(level):
        made = sample_neighbors(*graph(), none, [3, 3], 0)
        assert made.indptr.tolist() == [0] and made.reached == [0, 0, 0]
        indptr, indices = torch.zeros(3, dtype=torch.int64), torch.empty(0, dtype=torch.int32)
        alone = sample_neighbors(indptr, indices, torch.tensor([1]), [3, -1], 0, True)
    assert alone.nodes.tolist() == [1] and alone.indptr.tolist() == [0, 0]
    assert alone.reached == [1, 1, 1] and not alone.edges.numel()
