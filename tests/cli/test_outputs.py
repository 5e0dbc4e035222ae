"""What commands write: no file is replaced unasked, formats by suffix, data sets by the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from nodebits.cli.app import app
from nodebits.core.errors import OutputBusyError, OutputExistsError
from nodebits.core.files import writing
from nodebits.jobs.compare import CompareConfig, run_compare
from nodebits.jobs.folder import job_folder
from nodebits.jobs.quantize import run_job
from nodebits.jobs.quantize_config import JobConfig
from nodebits.jobs.search import run_search
from nodebits.jobs.search_config import SearchConfig
from nodebits.ops.backends.triton import choice
from nodebits.runtime import load

from .conftest import QUICK


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """A model file, alone in a folder."""
    return Path(shutil.copy(finished / "model.safetensors", tmp_path / "model.safetensors"))


def commands_with(option: str) -> set[str]:
    def walk(command: Any, path: str) -> Iterator[str]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}")
        if any(option in parameter.opts for parameter in command.params):
            yield path.strip()

    return set(walk(typer.main.get_command(app), ""))


# What each command that replaces with --force alone needs, before the place that it writes to.
WRITERS: dict[str, tuple[str, ...]] = {
    "predict": ("MODEL", "--out"),
    "pack": ("MODEL", "--out"),
    "init": ("--data", "DATA", "--out"),
    "quantize": (*QUICK, "--out"),
    "search": ("--budget", "1", "--out"),
    "compare": ("--methods", "uniform", "--bits", "8", "--seeds", "1", *QUICK, "--out"),
    **{path: ("--json",) for path in sorted(commands_with("--json")) if path.startswith("bench ")},
}
JOBS = ("quantize", "search", "compare")
# What makes a folder of its own: tests/cli/test_partition.py.
FOLDERS = {"partition"}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that commands find where there is none: they look for it before their outputs."""
    monkeypatch.setattr(choice, "device_problem", lambda: None)
    monkeypatch.setattr(choice, "triton_problem", lambda: None)


def own_data(folder: Path) -> Path:
    ring = np.arange(12)
    edges = np.stack([ring, np.roll(ring, 1)])
    path = folder / "graph.npz"
    np.savez(path, x=np.eye(12, dtype=np.float32), y=ring % 2, edge_index=edges)
    return path


def call(run: Any, command: str, model: Path, out: Path, *more: str) -> Any:
    known = {"MODEL": model, "DATA": own_data(model.parent)}
    given = [known.get(part, part) for part in WRITERS[command]]
    return run(*command.split(), *given, out, *more)


def place(command: str, folder: Path) -> tuple[Path, Path]:
    """What a command is told to write to, and a file that this makes."""
    out = folder / ("job" if command in JOBS else "out.npy")
    return out, out / "report.html" if command in JOBS else out


def test_every_command_that_writes_has_force() -> None:
    timed = {path for path in WRITERS if path.startswith("bench ")}
    assert "bench aggregate" in timed
    assert commands_with("--out") | timed == commands_with("--force") == {*WRITERS, *FOLDERS}


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("command", WRITERS)
def test_what_exists_is_left_alone(run: Any, model: Path, command: str) -> None:
    out, file = place(command, model.parent)
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    refused = call(run, command, model, out)
    assert refused.code == 1 and f"{file.name} exists" in refused.err and "--force" in refused.err
    assert file.read_text() == "mine" and os.listdir(file.parent).count(file.name) == 1
    assert not [name for name in os.listdir(file.parent) if name.endswith((".lock", ".tmp"))]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("command", WRITERS)
def test_two_commands_into_one_place_do_not_meet(run: Any, model: Path, command: str) -> None:
    """Whichever is first, and whether the second may replace results."""
    out, file = place(command, model.parent)
    for more in ((), ("--force",)):
        with writing(file):
            second = call(run, command, model, out, *more)
        assert second.code == 1 and "another command is writing" in second.err
        assert not file.exists()


def test_jobs_from_python_do_not_meet_either(tmp_path: Path) -> None:
    """One lock per folder, of jobs of either kind; and results are replaced only if asked for."""
    jobs: tuple[tuple[Any, Any], ...] = (
        (run_job, JobConfig(out=tmp_path, dataset="digits")),
        (run_search, SearchConfig(out=tmp_path, dataset="digits")),
        (run_compare, CompareConfig(out=tmp_path, dataset="digits")),
    )
    for run_it, config in jobs:
        with job_folder(tmp_path), pytest.raises(OutputBusyError, match="another command"):
            run_it(config)
        (tmp_path / "report.html").write_text("mine")
        with pytest.raises(OutputExistsError, match=r"report\.html exists"):
            run_it(config)
        (tmp_path / "report.html").unlink()


@pytest.mark.parametrize("other", ["one.svg", "./one.svg", "link/one.svg"])
def test_two_results_are_not_written_to_one_file(run: Any, tmp_path: Path, other: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    os.chdir(tmp_path)
    refused = run("bench", "growth", "--json", "one.svg", "--plot", other)
    assert refused.code == 2 and "--json and --plot are one file" in refused.err
    assert os.listdir(tmp_path) == ["link"]


def test_settings_that_are_read_are_not_replaced(run: Any, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("budget = 1\n")
    search = run("search", "--config", config, "--out", tmp_path, "--force")
    config.write_text("repeats = 1\n")
    bench = run("bench", "aggregate", "--config", config, "--json", config, "--force")
    for refused in (search, bench):
        assert refused.code == 1 and "config.toml is what this command reads" in refused.err
    assert config.read_text() == "repeats = 1\n"


def test_predictions_do_not_replace_their_features(run: Any, model: Path) -> None:
    features, out = model.parent / "x.safetensors", model.parent / "x.npy"
    assert run("pack", model, "--out", features).code == 0
    out.symlink_to(features)
    refused = run("predict", model, "--features", features, "--out", out, "--force")
    assert refused.code == 1 and "is what this command reads" in refused.err


def test_features_do_not_replace_their_model(run: Any, model: Path) -> None:
    before = model.read_bytes()
    refused = run("pack", model, "--out", model, "--force")
    assert refused.code == 1 and "is what this command reads" in refused.err
    assert model.read_bytes() == before


@pytest.mark.parametrize("command", ["predict", "pack"])
def test_a_file_is_replaced_with_force_only(run: Any, model: Path, command: str) -> None:
    out = model.parent / "out.npy"
    out.write_text("mine")
    refused = run(command, model, "--out", out)
    assert refused.code == 1 and "out.npy exists" in refused.err and "--force" in refused.err
    assert out.read_text() == "mine"
    assert run(command, model, "--out", out, "--force").code == 0
    assert out.stat().st_size > 10 and sorted(os.listdir(model.parent)) == [
        "model.safetensors",
        "out.npy",
    ]


def test_a_finished_job_is_replaced_with_force_only(run: Any, finished: Path) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    refused = run("quantize", "--out", finished, *QUICK)
    assert refused.code == 1 and "exists" in refused.err and "--force" in refused.err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_unfinished_work_of_another_job_is_not_thrown_away(run: Any, tmp_path: Path) -> None:
    work = tmp_path / ".unfinished"
    work.mkdir()
    (work / "seed0-float.checkpoint").write_text("days of work")
    refused = run("quantize", "--out", tmp_path, *QUICK)
    assert refused.code == 1 and "unfinished work" in refused.err
    assert (work / "seed0-float.checkpoint").exists()


def test_a_job_that_fails_at_once_leaves_the_folder_free(run: Any, tmp_path: Path) -> None:
    failing = run("quantize", "--out", tmp_path, *QUICK, "--folds", "2")
    assert failing.code == 2 and os.listdir(tmp_path) == []


def test_predictions_as_text(run: Any, model: Path) -> None:
    out, npy = model.parent / "out.csv", model.parent / "out.npy"
    assert run("predict", model, "--out", out).code == 0
    assert run("predict", model, "--out", npy).code == 0
    head, *lines = out.read_text().splitlines()
    assert head == "node,class," + ",".join(f"logit_{c}" for c in range(10))
    rows = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    assert rows[:, 0].tolist() == list(range(1797))
    assert rows[:, 1].tolist() == np.load(npy).tolist()
    from nodebits import load_dataset

    data = load_dataset("digits").data
    logits = load(model).predict(data.x, data.edge_index)
    assert torch.equal(torch.from_numpy(rows[:, 2:].astype(np.float32)), logits)


@pytest.mark.parametrize("name", ["out", "out.txt", "out.npz", "out.CSV", "csv"])
def test_other_suffixes(run: Any, model: Path, name: str) -> None:
    refused = run("predict", model, "--out", model.parent / name)
    assert refused.code == 2 and ".npy, .csv or .parquet" in refused.err and name in refused.err
    assert os.listdir(model.parent) == ["model.safetensors"]


def resave(model: Path, **changes: Any) -> Path:
    packed = load(model)
    packed.save(model, {**packed.metadata, **changes})
    return model


def test_the_data_set_is_the_one_that_the_file_names(run: Any, model: Path) -> None:
    found = run("evaluate", model, "--json").json()
    assert found["dataset"] == found["trained_on"] == "digits"
    resave(model, dataset=None)
    refused = run("evaluate", model)
    assert refused.code == 2 and "--dataset" in refused.err
    resave(model, dataset="Coraa")
    assert "Coraa" in run("evaluate", model).err


def test_another_data_set_is_named_beside_the_own(run: Any, model: Path) -> None:
    resave(model, dataset="Cora")
    text = run("evaluate", model, "--dataset", "digits")
    assert "digits (the model was trained on Cora)" in " ".join(text.out.split())
    found = run("evaluate", model, "--dataset", "digits", "--json").json()
    assert (found["dataset"], found["trained_on"]) == ("digits", "Cora")
    written = run("predict", model, "--dataset", "digits", "--out", model.parent / "p.csv")
    assert "digits (the model was trained on Cora)" in written.out
    resave(model, dataset="digits")
    refused = run("evaluate", model, "--dataset", "digits-graphs")
    assert refused.code == 2
    assert "digits (node level task)" in refused.err and "digits-graphs" in refused.err


def test_the_split_of_training_is_the_split_of_evaluation(run: Any, model: Path) -> None:
    usual = run("evaluate", model, "--json").json()
    resave(model, split=7)
    other = run("evaluate", model, "--json").json()
    assert other["train"] != usual["train"]
    assert run("evaluate", model, "--split", "0", "--json").json() == usual


def test_a_job_on_another_split_says_so_in_its_file(run: Any, tmp_path: Path) -> None:
    given = ["--split", "5", "--mode", "ptq", "--method", "uniform", "--float-epochs", "1"]
    report = run("quantize", "--out", tmp_path, *QUICK, *given, "--json").json()
    assert "seed 5" in report["dataset"]["notes"]
    metadata = load(tmp_path / "model.safetensors").metadata
    assert (metadata["dataset"], metadata["split"]) == ("digits", 5)
    assert json.loads((tmp_path / "report.json").read_text())["float_layers"] == {}


PLACES = ["none.safetensors", ".", "file/x", "a" * 300, "", "nu\0ll"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["info", "evaluate", "predict", "pack"])
def test_models_that_are_not_there(run: Any, tmp_path: Path, command: str, place: str) -> None:
    (tmp_path / "file").touch()
    os.chdir(tmp_path)
    more = ["--out", "out.npy"] if command in ("predict", "pack") else []
    refused = run(command, place, *more)
    assert refused.code in (1, 2)
    assert refused.err.startswith("nodebits: ") and "--debug" not in refused.err
    assert len(refused.err.strip().splitlines()) == 1 and os.listdir(tmp_path) == ["file"]


def test_folders_that_are_files(run: Any, model: Path) -> None:
    file = model.parent / "file"
    file.touch()
    for option in ("--data-root", "--cache"):
        refused = run("evaluate", model, "--dataset", "digits", option, file)
        assert refused.code in (0, 1, 2) and "--debug" not in refused.err
    refused = run("predict", model, "--out", file / "p.csv")
    assert refused.code == 1 and "cannot write" in refused.err
