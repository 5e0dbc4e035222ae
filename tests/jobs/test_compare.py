"""Comparisons: rows that stay, failures that are told, machines that are kept apart."""

from __future__ import annotations

import json
import os
import signal

import pytest

from nodebits.core.errors import (
    BitwidthError,
    ConfigError,
    FileFormatError,
    NodebitsError,
    UnknownNameError,
)
from nodebits.jobs import compare
from nodebits.jobs.compare import CompareConfig, run_compare
from nodebits.jobs.compare_rows import read_rows, write_rows
from nodebits.jobs.experiment import Experiment
from nodebits.report.compare import front_of, leaderboard_csv, leaderboard_markdown, render_compare
from nodebits.train import loop

QUICK = {"epochs": 2, "float_epochs": 2, "hidden": 8, "latency_repeats": 1, "seeds": 1}


def config(folder, **changes):
    given = {"methods": ("uniform",), "bits": (8,), "threads": 1, **QUICK, **changes}
    return CompareConfig(out=folder, progress=False, float_distilled=False, **given)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    return folder, run_compare(config(folder), "nodebits compare")


def test_folder_holds_rows_and_leaderboards(done):
    folder, found = done
    assert not found["failed"] and not found["interrupted"]
    (row,) = read_rows(folder / "rows.jsonl")
    assert row["method"] == "uniform" and row["average_bits"] == 8.0
    assert row["packed"]["values"] and row["versions"]["torch"] and row["sites"]
    assert "GCN on digits" in (folder / "leaderboard.md").read_text()
    page = (folder / "report.html").read_text()
    assert "http" not in page and "src=" not in page and page.count('<svg class="chart"') == 2


def test_rows_that_are_there_are_not_run_again(done, monkeypatch):
    folder, _ = done
    run = []
    real = compare.run_job

    def counted(job, *rest, **named):
        run.append((job.method, job.bits))
        return real(job, *rest, **named)

    monkeypatch.setattr(compare, "run_job", counted)
    found = run_compare(config(folder, bits=(8, 2)))
    assert run == [("uniform", 2)] and len(found["rows"]) == 2
    # The float model was trained for the first row, and is shared.
    assert found["rows"][0]["float"] == found["rows"][1]["float"]
    assert len(list((folder / "float").iterdir())) == 1


def test_failure_is_a_row_and_the_rest_goes_on(tmp_path, done, monkeypatch):
    real = compare.run_job

    def failing(job, *rest, **named):
        if job.bits == 8:
            raise NodebitsError("no | such | luck")
        return real(job, *rest, **named)

    monkeypatch.setattr(compare, "run_job", failing)
    found = run_compare(config(tmp_path, bits=(8, 4)))
    assert len(found["failed"]) == 1 and [row["error"] is None for row in found["rows"]] == [
        False,
        True,
    ]
    assert "no \\| such \\| luck" in (tmp_path / "leaderboard.md").read_text()
    monkeypatch.setattr(compare, "run_job", real)
    assert not run_compare(config(tmp_path, bits=(8, 4)))["failed"]


def test_interruption_keeps_what_is_there(tmp_path, monkeypatch):
    real = compare.run_job

    def interrupted(job, *rest, **named):
        if job.bits == 4:
            raise KeyboardInterrupt
        return real(job, *rest, **named)

    monkeypatch.setattr(compare, "run_job", interrupted)
    found = run_compare(config(tmp_path, bits=(8, 4)))
    assert found["interrupted"] and len(read_rows(tmp_path / "rows.jsonl")) == 1
    assert (tmp_path / "report.html").exists()


def test_interrupted_comparison_goes_on_without_repeating(tmp_path, monkeypatch):
    real, run, stop = compare.run_job, [], [True]

    def once(job, *rest, **named):
        if job.bits == 4 and stop.pop():
            raise KeyboardInterrupt
        run.append(job.bits)
        return real(job, *rest, **named)

    monkeypatch.setattr(compare, "run_job", once)
    stop.insert(0, False)
    assert run_compare(config(tmp_path, bits=(8, 4)))["interrupted"]
    found = run_compare(config(tmp_path, bits=(8, 4)))
    assert run == [8, 4] and not found["interrupted"] and len(found["rows"]) == 2


def test_row_that_was_stopped_in_training_is_finished(tmp_path, monkeypatch):
    real = loop.Loop.validate

    def press(self):
        metrics = real(self)
        if self.epoch == 1 and self.method is not None:
            os.kill(os.getpid(), signal.SIGINT)
        return metrics

    monkeypatch.setattr(loop.Loop, "validate", press)
    assert run_compare(config(tmp_path))["interrupted"]
    (report,) = tmp_path.glob("runs/*/report.json")  # of the model until then
    assert json.loads(report.read_text())["interrupted"]
    monkeypatch.setattr(loop.Loop, "validate", real)
    found = run_compare(config(tmp_path))
    assert not found["interrupted"] and not found["rows"][0]["error"]
    assert json.loads(report.read_text())["runs"][0]["epochs"] == 2


def test_out_of_memory_is_a_row(tmp_path, monkeypatch):
    def failing(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(compare, "run_job", failing)
    (row,) = run_compare(config(tmp_path))["rows"]
    assert row["error"] == "MemoryError: no room"


def test_rows_of_an_older_schema_stay_as_they_are(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"schema": 0, "method": "uniform"}) + "\n")
    before = rows.read_bytes()
    with pytest.raises(FileFormatError, match=r"schema 0.*another folder"):
        run_compare(config(tmp_path))
    assert rows.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_prompts_have_rows_of_their_own(tmp_path):
    methods = ("uniform", "uniform+lorap")
    plain, prompted = run_compare(config(tmp_path, methods=methods))["rows"]
    assert prompted["method"] == "uniform+lorap" and prompted["settings"]["prompts"] > 0
    assert any(".prompt." in site for site in prompted["sites"])
    assert prompted["file_bytes"] > plain["file_bytes"]
    assert "uniform+lorap" in (tmp_path / "leaderboard.md").read_text()


def test_floats_trained_alike_are_shared(tmp_path, monkeypatch):
    trained = []
    real = Experiment.distill_float

    def counted(self, teacher, fit, warm_start, checkpoint=None):
        trained.append(checkpoint.exists())
        return real(self, teacher, fit, warm_start, checkpoint)

    monkeypatch.setattr(Experiment, "distill_float", counted)
    given = {**QUICK, "threads": 1, "progress": False, "methods": ("uniform",), "bits": (8, 4)}
    first, second = run_compare(CompareConfig(out=tmp_path, **given))["rows"]
    assert trained == [False, True]
    assert first["float_distilled"] == second["float_distilled"]


def test_machines_have_columns_of_their_own(done):
    (row,) = (r for r in read_rows(done[0] / "rows.jsonl") if r["bits"] == 8)
    other = {**row, "key": "other", "processor": "another", "method": "degree-quant"}
    text = leaderboard_markdown([row, other])
    assert "times faster (A)" in text and "times faster (B)" in text and "* B: another" in text
    assert leaderboard_csv([row, other]).count("\n") == 3
    assert "times faster (B)" in render_compare([row, other], "")


def test_papers_stand_beside(done):
    (row,) = (r for r in read_rows(done[0] / "rows.jsonl") if r["bits"] == 8)
    text = leaderboard_markdown([{**row, "dataset": "Cora"}])
    assert "epochs by test" in text and "80.90 ± 0.60" in text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"methods": ("nothing",)}, UnknownNameError),
        ({"methods": ("uniform+nothing",)}, UnknownNameError),
        ({"methods": ()}, ConfigError),
        ({"methods": ("uniform:odd",)}, ConfigError),
        ({"bits": (9,)}, BitwidthError),
        ({"dataset": "nowhere"}, NodebitsError),
        ({"render_only": True}, ConfigError),
    ],
)
def test_bad_settings(tmp_path, changes, error):
    with pytest.raises(error):
        run_compare(config(tmp_path, **changes))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "no JSON"),
        ("[1]", "schema None"),
        (json.dumps({"schema": 0}), "schema 0"),
        (json.dumps({"schema": 99}), "newer nodebits"),
        (json.dumps({"schema": 1, "key": "x"}), "lacks dataset"),
    ],
)
def test_bad_rows_name_the_line(tmp_path, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(FileFormatError, match=f"line 2.*{words}"):
        read_rows(path)


def test_rows_come_back(tmp_path):
    rows = [
        {
            "schema": 1,
            "key": str(i),
            "error": "x",
            **dict.fromkeys(("dataset", "model", "method", "preset", "bits", "command"), 1),
        }
        for i in range(3)
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert read_rows(tmp_path / "none.jsonl") == []


def test_front():
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (2.5, 0.8)]
    assert front_of(points, True) == [(1.0, 0.5), (2.5, 0.8), (3.0, 0.9)]
    assert front_of(points, False) == [(1.0, 0.5), (2.0, 0.4)]
