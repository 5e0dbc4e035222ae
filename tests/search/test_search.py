"""Spaces, costs, evaluation, strategies and studies."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import nodebits
from nodebits.core.errors import (
    BitwidthError,
    ConfigError,
    FileFormatError,
    MissingExtraError,
    UnknownNameError,
)
from nodebits.jobs.search_confirm import drop_and_error
from nodebits.methods import DegreeQuantConfig, SGQuantConfig, UniformConfig
from nodebits.search import (
    CostModel,
    Evaluator,
    Slot,
    Space,
    Study,
    StudySettings,
    Trial,
    make_strategy,
    pareto_front,
    run_study,
    strategy_names,
)
from nodebits.search.latency import LatencyTable, measure_table
from nodebits.search.strategies import Observation, require
from nodebits.tasks import find_task


def space_of(evaluator: Evaluator) -> Space:
    assert evaluator.space is not None
    return evaluator.space


def some_points(space: Space, count: int = 6) -> list[tuple[int, ...]]:
    rng = random.Random(1)
    return [space.uniform(8), space.uniform(1), *(space.random(rng) for _ in range(count))]


def test_slots_are_the_sites_that_are_used(evaluator: Evaluator, bucketed: Evaluator) -> None:
    names = [slot.name for slot in space_of(evaluator).slots]
    assert names == [
        "convs.0.lin.input",
        "convs.0.message",
        "convs.1.lin.input",
        "convs.1.message",
        "convs.0.lin.weight",
        "convs.1.lin.weight",
    ]
    assert space_of(evaluator).size == 4**6
    assert "convs.1.message[2]" in [slot.name for slot in space_of(bucketed).slots]
    assert len(space_of(bucketed).slots) == 4 * 3 + 2


def test_layers_or_the_model_share_a_width(evaluator: Evaluator) -> None:
    account = evaluator.account(SGQuantConfig(bits=8, mode="ptq"))
    layers = Space.of(account, "sgquant", choices=(2, 8), granularity="layer", mode="ptq")
    assert [slot.name for slot in layers.slots] == ["convs.0.*", "convs.1.*"]
    assert layers.table((2, 8)) == {
        "convs.0.lin.input": 2,
        "convs.0.message": 2,
        "convs.0.lin.weight": 2,
        "convs.1.lin.input": 8,
        "convs.1.message": 8,
        "convs.1.lin.weight": 8,
    }
    whole = Space.of(account, "sgquant", choices=(2, 8), granularity="uniform", mode="ptq")
    assert set(whole.table((2,)).values()) == {2} and whole.size == 2
    for space in (layers, whole):
        packed = evaluator.account(space.config(space.uniform(2)))
        costs = CostModel(evaluator, space)
        expected = packed.activation_bytes + packed.weight_bytes
        assert costs.bytes(space.uniform(2)) == expected
    with pytest.raises(UnknownNameError, match="component"):
        Space.of(account, "sgquant", granularity="components")


def test_a_table_is_the_methods_config(bucketed: Evaluator) -> None:
    space = space_of(bucketed)
    point = (*(8, 4, 2), *(4, 4, 4), *(1, 2, 4), *(2, 2, 8), 4, 2)
    config = space.config(space.check(point))
    assert isinstance(config, SGQuantConfig) and config.mode == "ptq"
    assert config.overrides["convs.0.lin.input"] == [8, 4, 2]
    # One width for all buckets is no bucketed site.
    assert config.overrides["convs.0.message"] == 4
    with pytest.raises(ConfigError, match="13 widths"):
        space.check(point[1:])
    with pytest.raises(ConfigError, match="choices"):
        space.check((3, *point[1:]))


def test_bytes_and_bits_are_those_of_the_packed_model(
    evaluator: Evaluator, bucketed: Evaluator
) -> None:
    for one in (evaluator, bucketed):
        space = space_of(one)
        costs = CostModel(one, space)
        for point in some_points(space):
            account = one.account(space.config(point))
            assert costs.bytes(point) == account.activation_bytes + account.weight_bytes
            assert costs.bits(point) == pytest.approx(account.average_bits)
    with pytest.raises(ConfigError, match="table"):
        costs.of(point, "latency")
    with pytest.raises(UnknownNameError, match="bits"):
        costs.of(point, "bit")


def test_evaluation_is_that_of_the_packed_model(evaluator: Evaluator, bucketed: Evaluator) -> None:
    for one in (evaluator, bucketed):
        space = space_of(one)
        rows = one.problem.indices["val"]
        for point in some_points(space, 3):
            accuracy = one.point_metrics(point).accuracy
            packed = one.packed(space.config(point))
            inputs = one.example()
            guess = packed.predict(inputs.x, inputs.edge_index)[rows].argmax(1)
            assert accuracy == pytest.approx(
                float((guess == one.problem.split_labels("val")).float().mean())
            )
            # Asked again, it is the same number.
            assert one.point_metrics(point).accuracy == accuracy


def test_float_sites_are_the_float_model(evaluator: Evaluator, teacher: Any) -> None:
    config = UniformConfig(bits=32, attention_bits=32)
    assert evaluator.metrics(config).accuracy == teacher.val.accuracy
    assert evaluator.metrics(config, "test").accuracy == teacher.test.accuracy


def test_any_methods_table_is_searched(evaluator: Evaluator) -> None:
    for method, config in (("uniform", UniformConfig()), ("degree-quant", DegreeQuantConfig())):
        space = Space.of(evaluator.account(config), method, choices=(2, 8))
        assert 0 < evaluator.metrics(space.config(space.uniform(2))).accuracy <= 1
        with pytest.raises(ConfigError, match="degree buckets"):
            Space.of(evaluator.account(config), method, granularity="bucket")
    with pytest.raises(BitwidthError):
        Space.of(evaluator.account(config), "uniform", choices=(9,))


@pytest.mark.parametrize("name", strategy_names())
def test_strategies_ask_new_points(name: str, evaluator: Evaluator) -> None:
    if name in ("tpe", "nsga2"):
        pytest.importorskip("optuna")
    if name == "tree":
        pytest.importorskip("sklearn")
    space = space_of(evaluator)
    strategy = make_strategy(name, space, lambda p: float(sum(p)), 0.5)
    seen: list[Observation] = []
    for _ in range(4):
        points = strategy.ask(seen, 6)
        assert len(points) == len(set(points)) == 6
        assert not {o.point for o in seen} & set(points)
        seen += [Observation(space.check(p), min(p) / 8, float(sum(p))) for p in points]


def test_a_small_space_is_used_up() -> None:
    slots = tuple(Slot((f"{i}.input",), f"{i}.input", None, (1, 8)) for i in range(2))
    space = Space(slots, "uniform", 8, {})
    for name in ("random", "tree"):
        strategy = make_strategy(name, space, lambda p: float(sum(p)), 0.5)
        seen = [Observation(p, 0.9, float(sum(p))) for p in ((1, 1), (1, 8), (8, 1))]
        assert strategy.ask(seen, 5) == [(8, 8)]


def test_the_tree_beats_random_where_few_slots_matter() -> None:
    """Accuracy falls only with the first three slots; cheap points keep those wide."""
    pytest.importorskip("sklearn")
    slots = tuple(Slot((f"{i}.input",), f"{i}.input", None, (1, 2, 3, 4, 6, 8)) for i in range(10))
    space = Space(slots, "uniform", 8, {})

    def accuracy(point: tuple[int, ...]) -> float:
        return 0.8 - 0.02 * sum(max(4 - width, 0) for width in point[:3])

    def best(name: str, seed: int) -> float:
        strategy = make_strategy(name, space, lambda p: float(sum(p)), 0.79, seed)
        seen = [Observation(space.uniform(8), 0.8, 80.0)]
        while len(seen) < 80:
            points = strategy.ask(seen, 10)
            seen += [Observation(p, accuracy(p), float(sum(p))) for p in points]
        return min(o.cost for o in seen if o.score >= 0.79)

    tree, plain = (sum(best(name, seed) for seed in range(3)) for name in ("tree", "random"))
    assert tree < 0.8 * plain


def settings(**changes: Any) -> StudySettings:
    values = {"objective": "bytes", "strategy": "random", "target": 0.5, "budget": 12, "batch": 5}
    return StudySettings(**{**values, **changes})


def new_study(evaluator: Evaluator, path: Path | None = None, **changes: Any) -> Study:
    slots = [slot.name for slot in space_of(evaluator).slots]
    return Study(settings(**changes), slots, {"model": "gcn"}, [], path)


def test_a_study_finds_the_cheapest_feasible_point(evaluator: Evaluator) -> None:
    costs = CostModel(evaluator, space_of(evaluator))
    study = run_study(new_study(evaluator), evaluator, costs, progress=False)
    assert len(study.trials) == 12
    assert study.trials[0].point == space_of(evaluator).uniform(8)
    best = study.best()
    assert best is not None and best.bytes == min(t.bytes for t in study.feasible())
    front = study.front()
    assert [t.bytes for t in front] == sorted(t.bytes for t in front)
    assert new_study(evaluator, target=1.1).best() is None


def test_a_study_goes_on_where_it_was(evaluator: Evaluator, tmp_path: Path) -> None:
    costs = CostModel(evaluator, space_of(evaluator))
    path = tmp_path / "study.json"
    asked: list[int] = []
    first = run_study(
        new_study(evaluator, path),
        evaluator,
        costs,
        progress=False,
        stop=lambda: asked.append(1) is None and len(asked) > 2,
    )
    assert len(first.trials) == 6
    second = new_study(evaluator, path, budget=20)
    assert second.resume() == 6 and second.trials == first.trials
    run_study(second, evaluator, costs, progress=False)
    assert len({t.point for t in second.trials}) == 20
    for changes in ({"target": 0.6}, {"strategy": "tree"}):
        with pytest.raises(ConfigError, match="another search"):
            new_study(evaluator, path, **changes).resume()
    content = json.loads(path.read_text())
    trial = content["trials"][0]
    for changes, words in (
        ({"version": 99}, "study version 99"),
        ({"version": True}, "study version True"),
        ({"trials": {}}, r"study\.trials"),
        ({"trials": [{**trial, "score": "2"}]}, r"trials\[0\]\.score"),
        ({"trials": [{**trial, "point": [4]}]}, "1 widths for"),
        ({"trials": [{**trial, "point": [9] * len(trial["point"])}]}, r"\.point"),
        ({"trials": [{**trial, "more": 1}]}, "unknown field"),
    ):
        path.write_text(json.dumps({**content, **changes}))
        with pytest.raises(FileFormatError, match=words):
            new_study(evaluator, path).resume()


@pytest.mark.slow
def test_workers_outlive_an_interrupt(evaluator: Evaluator) -> None:
    assert evaluator.space is not None
    costs = CostModel(evaluator, evaluator.space)
    hit: list[int] = []

    def interrupt() -> bool:
        # After the first point, one worker has started and waits for the next.
        for process in [] if hit else multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
            hit.append(process.pid)
        return False

    study = new_study(evaluator)
    run_study(study, evaluator, costs, workers=2, progress=False, stop=interrupt)
    assert hit and len(study.trials) == study.settings.budget


@pytest.mark.slow
def test_workers_measure_the_same(evaluator: Evaluator) -> None:
    costs = CostModel(evaluator, space_of(evaluator))
    alone = run_study(new_study(evaluator), evaluator, costs, progress=False)
    shared = run_study(new_study(evaluator), evaluator, costs, workers=2, progress=False)
    assert alone.trials == shared.trials


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="budget"):
        settings(budget=0)
    with pytest.raises(UnknownNameError, match="tree"):
        make_strategy("tre", Space((), "uniform", 8, {}), lambda p: 0.0, 0.5)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*nodebits\[search\]"):
        require("sklearn.ensemble")


def test_pareto_front() -> None:
    items = [(3, 0.7), (1, 0.5), (2, 0.4), (2, 0.6), (4, 0.7), (1, 0.45)]
    assert pareto_front(items, lambda i: i[0], lambda i: i[1]) == [(1, 0.5), (2, 0.6), (3, 0.7)]


def test_equal_accuracies_are_told_apart_by_loss() -> None:
    study = Study(StudySettings("bytes", "random", 0.5), ["a"])
    study.trials = [
        Trial((8,), 0.8, 40, 8.0, loss=0.5),
        Trial((4,), 0.8, 20, 4.0, loss=0.6),
        Trial((3,), 0.8, 20, 4.0, loss=0.55),
        Trial((2,), 0.8, 30, 4.0, loss=0.7),
    ]
    assert [t.point for t in study.front()] == [(3,), (8,)]
    assert study.best() is study.trials[2]


@pytest.mark.parametrize("version", [1, 2])
def test_a_study_of_a_former_version_is_read(
    evaluator: Evaluator, tmp_path: Path, version: int
) -> None:
    path = tmp_path / "study.json"
    study = new_study(evaluator, path)
    study.trials = [Trial(space_of(evaluator).uniform(8), 0.8, 40, 8.0)]
    study.save()
    content = json.loads(path.read_text())
    content["version"] = version
    for trial in content["trials"]:
        trial["accuracy"] = trial.pop("score")
        if version == 1:
            del trial["loss"]
    path.write_text(json.dumps(content))
    again = new_study(evaluator, path)
    assert again.resume() == 1 and again.trials == study.trials


def test_the_error_of_a_drop_counts_rows_that_differ_and_seeds() -> None:
    accuracy, same = find_task("node").metric, torch.ones(3, 100)
    assert drop_and_error(same, same, accuracy) == (0.0, 0.0)
    lost = same.clone()
    lost[:, :4] = 0.0  # the same rows with every seed: seeds agree, rows do not
    drop, error = drop_and_error(same, lost, accuracy)
    assert drop == pytest.approx(4.0) and error == pytest.approx(100 * (0.04 * 0.96 / 99) ** 0.5)
    lost = same.clone()
    lost[0, :30] = 0.0  # one seed fails
    drop, error = drop_and_error(same, lost, accuracy)
    assert drop == pytest.approx(10.0) and error == pytest.approx(10.0)


def test_latencies_add_up(bucketed: Evaluator, tmp_path: Path) -> None:
    space = space_of(bucketed)
    costs = {"convs.0.lin.input": {8: 0.0, 4: -1.0, 2: -2.0}, "convs.1.message": {8: 0.0, 1: -4.0}}
    table = LatencyTable(
        10.0, costs, {"convs.0.lin.input": 0.5}, {"convs.0.lin.input": [0.5, 0.25, 0.25]}
    )
    base = space.uniform(8)
    assert table.predict(space, base) == 10.0
    narrow = (*(4, 4, 4), *base[3:])
    assert table.predict(space, narrow) == 9.0
    mixed = (*(8, 4, 2), *base[3:])
    assert table.predict(space, mixed) == pytest.approx(10.0 + 0.5 - 0.25 - 0.5)
    assert table.predict(space, space.uniform(1)) >= 1.0
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(table.to_json()))
    assert LatencyTable.read(path) == table
    for change, words in (
        ({"version": 0}, "version"),
        ({"reference": None}, "reference"),
        ({"costs": {"a": {"9": 1.0}}}, "widths, 1 to 8"),
        ({"shares": {"a": [1e999]}}, "no JSON"),
        ({"more": 1}, "unknown field"),
    ):
        path.write_text(json.dumps({**table.to_json(), **change}))
        with pytest.raises(FileFormatError, match=words):
            LatencyTable.read(path)


def test_the_table_is_measured_on_packed_models(bucketed: Evaluator) -> None:
    space = space_of(bucketed)
    asked: list[tuple[int, ...]] = []

    def packed(point: tuple[int, ...]) -> nodebits.PackedModel:
        asked.append(point)
        return bucketed.packed(space.config(point))

    table = measure_table(space, packed, bucketed.example(), repeats=1)
    assert table.reference > 0 and set(table.costs) == set(space.table(space.uniform(8)))
    assert set(table.costs["convs.0.message"]) == {1, 2, 4, 8}
    assert set(table.mixed) == {s.label for s in space.slots if s.bucket is not None}
    base = space.uniform(8)
    for point in asked:  # one site at a time
        differing = {s.label for s, a, b in zip(space.slots, point, base, strict=True) if a != b}
        assert len(differing) <= 1
    costs = CostModel(bucketed, space, table)
    assert costs.of(base, "latency") == table.reference
    assert torch.isfinite(torch.tensor(costs.of(space.uniform(1), "latency")))
