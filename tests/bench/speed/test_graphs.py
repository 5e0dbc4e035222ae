"""Generated graphs have the sizes and the shape they promise, and are the same every time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodebits.bench.speed import graphs, memory
from nodebits.bench.speed.graphs import GraphSpec, find_spec, generate, load_graph
from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    OutOfMemoryError,
    UnknownNameError,
)

ARXIV = graphs.SPECS["arxiv-like"]


@given(
    nodes=st.integers(1, 300),
    mean=st.integers(1, 20),
    communities=st.integers(0, 5),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_counts_and_ranges(nodes: int, mean: int, communities: int, seed: int) -> None:
    spec = GraphSpec("small", nodes, nodes * mean, 2 * mean)
    indptr, indices = generate(spec, seed, min(communities, nodes))
    assert indptr.dtype == torch.int64 and indices.dtype == torch.int32
    assert indptr.shape == (nodes + 1,) and indices.shape == (nodes * mean,)
    degree = indptr.diff()
    assert int(indptr[0]) == 0 and int(indptr[-1]) == nodes * mean
    assert int(degree.min()) >= 0 and int(degree.max()) <= 2 * mean
    assert int(indices.min()) >= 0 and int(indices.max()) < nodes


def test_published_sizes() -> None:
    sizes = {name: (spec.num_nodes, spec.num_edges) for name, spec in graphs.SPECS.items()}
    assert sizes["reddit-like"] == (232_965, 114_615_892)
    assert sizes["products-like"] == (2_449_029, 2 * 61_859_140)
    assert sizes["arxiv-like"] == (169_343, 2 * 1_166_243)


def test_degrees_are_heavy_tailed_on_both_sides() -> None:
    indptr, indices = generate(ARXIV)
    incoming = indptr.diff().sort().values.double()
    outgoing = torch.bincount(indices, minlength=ARXIV.num_nodes).sort().values.double()
    for degree in (incoming, outgoing):
        assert degree[-1] > 100 * degree.mean()
        assert degree[len(degree) // 2] < 0.6 * degree.mean()
        top = degree[-len(degree) // 100 :].sum() / degree.sum()
        assert 0.1 < top < 0.4  # one node in a hundred has this share of the edges


def test_the_seed_is_the_graph() -> None:
    spec = find_spec("random:500:9000")
    assert spec is not None
    for communities in (0, 7):
        first, again = generate(spec, 3, communities), generate(spec, 3, communities)
        other = generate(spec, 4, communities)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
        assert not torch.equal(first[1], other[1])


def test_a_graph_is_the_same_on_every_machine() -> None:
    spec = find_spec("random:50:400")
    assert spec is not None
    indptr, indices = generate(spec, 0, 0)
    assert indptr.diff()[:6].tolist() == [5, 1, 0, 0, 9, 16]
    assert indices[:6].tolist() == [33, 16, 38, 5, 26, 9]


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("random:300:5000")
    assert spec is not None
    whole = [generate(spec, 1, communities)[1] for communities in (0, 4)]
    monkeypatch.setattr(graphs, "_CHUNK", 97)
    parts = [generate(spec, 1, communities)[1] for communities in (0, 4)]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def singular_values(indptr: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Of the normalised adjacency: as many are large as there are communities."""
    nodes = indptr.numel() - 1
    rows = torch.repeat_interleave(torch.arange(nodes), indptr.diff())
    at = (rows, indices.long())
    adjacency = torch.zeros(nodes, nodes).index_put(at, torch.ones(len(rows)), accumulate=True)
    left, right = adjacency.sum(1).clamp_min(1).rsqrt(), adjacency.sum(0).clamp_min(1).rsqrt()
    return torch.linalg.svdvals(left[:, None] * adjacency * right)


def test_communities_keep_edges_and_hide_in_the_numbers() -> None:
    spec = find_spec("random:400:20000")
    assert spec is not None
    indptr, indices = generate(spec, 0, 8)
    values, without = singular_values(indptr, indices), singular_values(*generate(spec, 0, 0))
    assert values[7] > 0.6 > 0.5 > values[8]
    assert without[1] < 0.5
    rows = torch.repeat_interleave(torch.arange(400), indptr.diff())
    near = (rows - indices.long()).abs() < 20
    assert near.float().mean() < 0.2  # numbers say nothing about the community


def test_the_cache_is_read(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    first = load_graph("random:100:900", cache=tmp_path)
    monkeypatch.setattr(graphs, "generate", lambda *a: pytest.fail("generated again"))
    again = load_graph("random:100:900", cache=tmp_path)
    assert torch.equal(first.graph.indices, again.graph.indices)
    assert [p.name for p in (tmp_path / "bench").iterdir()] == ["random-100-900-s0-c0-v1"]


def test_a_damaged_cache_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    load_graph("random:100:900", cache=tmp_path)
    file = next(tmp_path.rglob("graph.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FileFormatError, match="delete its folder"):
        load_graph("random:100:900", cache=tmp_path)


def test_a_failed_generation_leaves_nothing(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 20)
    with pytest.raises(OutOfMemoryError, match=r"reddit-like needs about .* MiB"):
        load_graph("reddit-like", cache=tmp_path)
    assert not list((tmp_path / "bench").iterdir())


@pytest.mark.parametrize(
    ("name", "communities", "error", "words"),
    [
        ("redit-like", 0, UnknownNameError, "reddit-like"),
        ("random:0:5", 0, ConfigError, "at least one node"),
        ("random:5:0", 0, ConfigError, "one edge"),
        ("random:10:5000000000", 0, ConfigError, "more than 10 nodes"),
        ("random:10:50", 11, ConfigError, "communities=11"),
        ("digits", 3, ConfigError, "communities=3"),
        ("digits-graphs", 0, ConfigError, "node-level"),
    ],
)
def test_bad_names(tmp_path, name, communities, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        load_graph(name, communities=communities, cache=tmp_path)


def test_a_data_set_brings_its_features(tmp_path) -> None:  # type: ignore[no-untyped-def]
    bench = load_graph("digits", cache=tmp_path)
    assert bench.name == "digits" and bench.num_classes == 10
    assert bench.features() is bench.x and bench.edge_index is not None
    drawn = load_graph("random:20:60", cache=tmp_path)
    assert torch.equal(drawn.features(), drawn.features())
    assert drawn.features().shape == (20, drawn.num_features)
