"""Rows of every measurement on small graphs: their fields, ratios, skips. No assertion on time."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

import pytest
import torch

from nodebits.bench.speed import rows as rows_module
from nodebits.bench.speed.aggregate import Table, measure_aggregate
from nodebits.bench.speed.assembly import assemble
from nodebits.bench.speed.dense import measure_dense
from nodebits.bench.speed.forward import measure_forward
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.bench.speed.growth import edge_counts, measure_growth, slopes
from nodebits.bench.speed.memory import MIB, available_memory, peak_of
from nodebits.bench.speed.models import MODELS, Sizes, float_model
from nodebits.bench.speed.rows import Candidate, Protocol, Row, Skip, measure
from nodebits.bench.speed.run import SpeedReport, SpeedSettings, run_speed
from nodebits.bench.speed.steps import measure_steps
from nodebits.bench.speed.stream import Bandwidth, stream_bandwidth
from nodebits.bench.timing import sample_interleaved
from nodebits.core.errors import BitwidthError, ConfigError, UnknownNameError

QUICK = Protocol(repeats=1, warmup=0, bandwidth=Bandwidth(1e9, 2e9))
PROMISED = (
    "op graph impl bits threads median_s spread bytes ratio_best_float32 ratio_best_float peak_mib"
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A gibibyte takes seconds on a busy machine, and threads wait for each other."""
    monkeypatch.setattr("nodebits.bench.speed.stream._BYTES", 1 << 22)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> BenchGraph:
    return load_graph("random:300:4000", cache=tmp_path_factory.mktemp("cache"))


def by_impl(rows: list[Row]) -> dict[str, Row]:
    assert len({row.impl for row in rows}) == len(rows)
    return {row.impl: row for row in rows}


def check(rows: list[Row]) -> None:
    for row in rows:
        data = row.to_json()
        assert set(PROMISED.split()) <= set(data)
        json.dumps(data)
        assert row.threads == torch.get_num_threads()
        if row.median_s is None:
            assert row.note.startswith("skipped: ")
        else:
            assert row.repeats >= 1 and not row.note
            assert row.p25_s is not None and row.p75_s is not None
            assert row.p25_s <= row.median_s <= row.p75_s


def test_aggregate(bench: BenchGraph) -> None:
    rows = measure_aggregate("g", bench.graph, (8, 4, 3, 1), 20, QUICK)
    check(rows)
    plain = by_impl([row for row in rows if row.op == "aggregate"])
    heavy = by_impl([row for row in rows if row.op == "aggregate_weighted"])
    assert {"nodebits u8", "nodebits u3", "nodebits u1"} <= set(plain)
    assert "quantized embedding_bag 4" in plain and "quantized embedding_bag 3" not in plain
    assert len(plain) == len(heavy)
    assert {"embedding_bag bfloat16", "embedding_bag float16"} <= set(plain) & set(heavy)
    measured = [row for row in plain.values() if row.median_s is not None]
    best = min(row.median_s for row in measured if row.kind == "float32")
    for row in measured:
        assert row.ratio_best_float32 == pytest.approx(best / row.median_s)
        assert row.ratio_best_float <= row.ratio_best_float32
        assert row.stream_share == pytest.approx(row.bytes / row.median_s / 2e9)
    # 3 bytes of row and 4 of index per edge, row starts, int32 results.
    assert plain["nodebits u1"].bytes == 4000 * (3 + 4) + 301 * 8 + 300 * 20 * 4
    assert plain["embedding_bag float32"].bytes == 4000 * (80 + 4) + 301 * 8 + 300 * 20 * 4


@pytest.mark.parametrize("weighted", [False, True])
def test_peers_compute_the_same_sum(bench: BenchGraph, weighted: bool) -> None:
    table = Table(bench.graph, 24)
    weight = None
    if weighted:
        weight = torch.randint(0, 256, (bench.graph.num_edges, 1), dtype=torch.uint8)
    peers = [c for c in table.candidates((8,), weight) if c.kind in ("float32", "float")]
    exact = peers[1].build()()
    for peer in peers:
        tolerance = 2e-2 if peer.bits == 16 else 1e-5
        error = (peer.build()().float() - exact).abs().max() / exact.abs().max()
        assert error < tolerance, peer.impl
    low_bit = next(c for c in table.candidates((8,), weight) if c.kind == "integer")
    assert (low_bit.build()() - exact).abs().max() / exact.abs().max() < 0.02


def test_a_wrong_sum_is_not_timed(bench: BenchGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    from nodebits.bench.speed import aggregate

    right = aggregate.ops.spmm
    monkeypatch.setattr(aggregate.ops, "spmm", lambda *a: right(*a) + 1)
    with pytest.raises(RuntimeError, match="wrong"):
        measure_aggregate("g", bench.graph, (8,), 8, QUICK, weighted=False)


def test_reordered_rows(bench: BenchGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodebits.graph.reorder._GROUP", 32)
    ours = Protocol(repeats=1, warmup=0, only=("nodebits",))
    rows = measure_aggregate("g", bench.graph, (4,), 20, ours, reorder=True)
    rows += measure_forward(bench, ("gcn",), (4,), Sizes(16), ours, reorder=True)
    check(rows)
    assert [row.impl for row in rows if "reordered" in row.impl] == [
        "nodebits u4, reordered",
        "nodebits u4, u8 weights, reordered",
        "nodebits u4, packed input, reordered",
    ]


def test_dense() -> None:
    rows = measure_dense((40, 30, 20), (8, 4, 1), QUICK)
    check(rows)
    found = by_impl(rows)
    assert {"torch linear float32", "nodebits u8 x s8", "nodebits u1 x s2"} <= set(found)
    assert found["nodebits u4 x s4"].bytes == 40 * (15 + 80) + 20 * 15
    assert found["nodebits u4 x s4, packed result"].bytes == 40 * (15 + 10) + 20 * 15
    with pytest.raises(ConfigError, match="0x3x4"):
        measure_dense((0, 3, 4), (8,), QUICK)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("hidden", [16, 200])
def test_assemblies_are_the_model(bench: BenchGraph, name: str, hidden: int) -> None:
    model = float_model(name, bench.num_features, 7, Sizes(hidden=hidden))
    edge_index = torch.stack([bench.graph.indices.long(), bench.graph.rows])
    with torch.no_grad():
        expected = model(bench.features(), edge_index)
        for sparse in (False, True):
            found = assemble(name, model, bench.graph, torch.float32, sparse)(bench.features())
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        for dtype in (torch.bfloat16, torch.float16):
            half = assemble(name, model, bench.graph, dtype)(bench.features().to(dtype)).float()
            assert (half - expected).abs().max() < 0.1 * expected.abs().max()


def test_forward_rows(bench: BenchGraph) -> None:
    rows = measure_forward(bench, ("gcn", "gat"), (8, 2), Sizes(16, 4), QUICK)
    check(rows)
    gcn = by_impl([row for row in rows if row.op == "gcn 128-16-40"])
    for impl in (
        "PyG, edge_index",
        "PyG, torch.sparse CSR",
        "assembly, torch.sparse CSR",
        "assembly, embedding_bag float32",
        "assembly, embedding_bag bfloat16",
        "assembly, embedding_bag float16",
        "nodebits u8, float input",
        "nodebits u2, packed input",
    ):
        assert gcn[impl].median_s is not None
    assert gcn["nodebits u2, packed input"].bytes < gcn["nodebits u2, float input"].bytes
    assert gcn["nodebits u2, float input"].bytes < gcn["PyG, torch.sparse CSR"].bytes


def test_sparse_features_are_offered_to_the_peers(bench: BenchGraph) -> None:
    words = (torch.rand(300, 128) < 0.02).float()
    sparse = BenchGraph("words", bench.graph, 128, 5, words)
    rows = measure_forward(sparse, ("gcn",), (4,), Sizes(16), QUICK)
    check(rows)
    assert by_impl(rows)["assembly, embedding_bag float32, sparse input"].median_s is not None


def test_training_steps(bench: BenchGraph) -> None:
    rows = measure_steps(bench, ("gcn",), (4,), Sizes(16), QUICK)
    check(rows)
    assert list(by_impl(rows)) == ["PyG float", "nodebits QAT 4", "nodebits Degree-Quant 4"]
    assert rows[0].ratio_best_float32 == 1.0


def test_growth(tmp_path) -> None:  # type: ignore[no-untyped-def]
    counts = edge_counts(1_000, 10_000, 1)
    assert counts == [1_000, 10_000]
    rows = measure_growth(counts, (4,), 16, QUICK, tmp_path)
    check(rows)
    assert set(slopes(rows)) == {"embedding_bag float32", "nodebits u4", "nodebits GCN u4"}
    with pytest.raises(ConfigError, match="1000"):
        edge_counts(10, 100)


def test_slope_of_known_seconds() -> None:
    rows = [
        Row("growth", f"random:1:{e}", "x", "nodebits", 4, 1, median_s=3e-9 * e**1.25)
        for e in (10**3, 10**5, 10**6)
    ]
    assert slopes(rows)["x"] == pytest.approx(1.25)


def test_what_does_not_fit_is_skipped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> rows_module.Call:
        raise AssertionError("built")

    def reason() -> rows_module.Call:
        raise Skip("no such thing")

    def broken() -> rows_module.Call:
        raise RuntimeError("broken\nhere")

    candidates = [
        Candidate("large", "float32", fail, 32, needs=1 << 60),
        Candidate("absent", "float32", reason, 32),
        Candidate("peer", "integer", broken, 8),
        Candidate("ours", "nodebits", lambda: lambda: None, 8),
    ]
    rows = by_impl(measure("op", "g", candidates, QUICK))
    check(list(rows.values()))
    assert "needs about 1,099,511,627,776 MiB" in rows["large"].note
    assert rows["absent"].note == "skipped: no such thing"
    assert rows["peer"].note == "skipped: RuntimeError: broken"
    assert rows["ours"].ratio_best_float32 is None
    with pytest.raises(RuntimeError, match="broken"):
        measure("op", "g", [Candidate("ours", "nodebits", broken, 8)], QUICK)


def test_only_some() -> None:
    candidates = [Candidate(n, "float32", lambda: lambda: None, 32) for n in ("ab", "bc", "cd")]
    rows = measure("op", "g", candidates, Protocol(repeats=1, only=("a", "d")))
    assert [row.impl for row in rows] == ["ab", "cd"]


def test_a_slow_one_sits_out_after_three_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**12, 10**9))
    monkeypatch.setattr("nodebits.bench.timing.time.perf_counter_ns", lambda: next(clock))
    taken = sample_interleaved({"a": lambda: None}, repeats=9, warmup=1, budget=2.5)
    assert taken == {"a": [1.0, 1.0, 1.0]}


def test_short_calls_follow_some_that_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of the candidate before may still be spinning."""
    clock = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr("nodebits.bench.timing.time.perf_counter_ns", lambda: next(clock))
    made: list[str] = []
    calls = {name: functools.partial(made.append, name) for name in "ab"}
    taken = sample_interleaved(calls, repeats=2, warmup=1)
    assert taken == {"a": [0.001] * 2, "b": [0.001] * 2} and "".join(made) == "ababaabb"


def test_peak_of_a_call() -> None:
    peak = peak_of(lambda: torch.ones(16 * MIB))
    if peak is None:
        pytest.skip("this system does not tell")
    assert 60 < peak < 80
    assert available_memory() > 64 * MIB


def test_bandwidth() -> None:
    found = stream_bandwidth(1 << 22)
    assert found.best >= found.read > 0 and found.triad > 0


def test_run_and_its_document(tmp_path) -> None:  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    settings = SpeedSettings(
        "aggregate",
        graph="random:100:900",
        bits=(4,),
        threads=(1,),
        repeats=1,
        columns=8,
        only=("float32", "u4"),
        cache=tmp_path,
    )
    said: list[str] = []
    report = run_speed(settings, said.append)
    assert torch.get_num_threads() == before
    check_document(report)
    assert any("u4" in text for text in said)


def check_document(report: SpeedReport) -> None:
    document = json.loads(json.dumps(report.to_json("the command")))
    assert document["command"] == "the command"
    assert {"versions", "processor", "isa", "cores"} <= set(document["environment"])
    assert document["bandwidth"]["1"]["read"] > 0
    assert [row["impl"] for row in document["rows"]] == [
        "embedding_bag float32",
        "nodebits u4",
        "embedding_bag float32",
        "nodebits u4, u8 weights",
    ]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"bits": (9,)}, BitwidthError, "9"),
        ({"bits": ()}, ConfigError, "bits"),
        ({"threads": (0,)}, ConfigError, "threads"),
        ({"columns": 0}, ConfigError, "columns"),
        ({"models": ("gcm",)}, UnknownNameError, "gcn"),
        ({"what": "growth", "edges": (5, 9)}, ConfigError, "edges"),
        ({"shape": (1, 2, 0)}, ConfigError, "shape"),
    ],
)
def test_bad_settings(change, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        SpeedSettings(**{"what": "aggregate", **change})
