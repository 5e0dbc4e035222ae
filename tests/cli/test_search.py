"""``nodebits search`` and the config file it hands to ``quantize``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from .conftest import QUICK, Command

SMALL = ["--strategy", "random", "--hidden", "16", "--float-epochs", "8", "--epochs", "3"]
SMALL += ["--budget", "5", "--batch", "4", "--threads", "1", "--no-progress", "--max-drop", "60"]
SMALL += ["--confirm-seeds", "2"]


@pytest.mark.slow
def test_what_it_finds_is_quantized(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    arguments = ["search", "--out", folder, *SMALL, "--granularity", "bucket", "--splits", "6,9"]
    arguments += ["--choices", "2,4,8", "--fine-tune", "1", "--latency-repeats", "1"]
    outcome = run(*arguments, "--json")
    assert outcome.code == 0
    report = outcome.json()
    assert report == json.loads((folder / "front.json").read_text())
    assert len(report["trials"]) == 5 and report["chosen"] in report["confirmed"]
    confirmed = report["chosen"]["confirmation"]
    assert confirmed["holds"] and confirmed["seeds"] == [0, 1] and report["nearest"] is None
    assert all(len(confirmed[n]) == 2 for n in ("val", "test", "float_val", "float_test"))
    page = (folder / "report.html").read_text()
    assert "Accuracy against bytes" in page and "Accuracy against time" in page
    table = tomllib.loads((folder / "config.toml").read_text())
    assert table["override"] == report["chosen"]["table"] and table["splits"] == [6, 9]
    assert (table["epochs"], table["float_epochs"]) == (3, 8)

    made = tmp_path / "quantized"
    outcome = run(
        "quantize", "--config", folder / "config.toml", "--hidden", "16", "--out", made, *QUICK
    )
    assert outcome.code == 0
    report = json.loads((made / "report.json").read_text())
    assert report["method"]["settings"]["overrides"] == table["override"]
    widths = table["override"]["convs.0.lin.weight"]
    (weight,) = (s for s in report["sites"] if (s["layer"], s["site"]) == ("convs.0.lin", "weight"))
    assert weight["bits"] == widths

    # The same command has nothing left to measure, a larger budget goes on.
    again = run(*arguments, "--json").json()
    assert again["trials"] == json.loads((folder / "front.json").read_text())["trials"]
    longer = run(*arguments, "--budget", "7", "--json").json()
    assert longer["trials"][:5] == again["trials"] and len(longer["trials"]) == 7


def test_latency_is_predicted_from_a_kept_table(run: Command, tmp_path: Path) -> None:
    arguments = ["search", "--out", tmp_path, *SMALL, "--objective", "latency"]
    arguments += ["--choices", "4,8", "--fine-tune", "0", "--latency-repeats", "1"]
    outcome = run(*arguments, "--json")
    assert outcome.code == 0
    first = (tmp_path / "kernel_costs.json").read_text()
    assert all(t["latency"] > 0 for t in outcome.json()["trials"])
    assert 'mode = "ptq"' in (tmp_path / "config.toml").read_text()
    assert run(*arguments, "--json").code == 0
    assert (tmp_path / "kernel_costs.json").read_text() == first
    assert run(*arguments).out.startswith("GCN on digits")


def test_a_promise_that_nothing_keeps_is_not_made(run: Command, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("left by an earlier search")
    arguments = ["search", "--out", tmp_path, *SMALL, "--choices", "1", "--max-drop", "0"]
    outcome = run(*arguments, "--fine-tune", "0", "--latency-repeats", "1", "--json", "--force")
    assert outcome.code == 1
    report = outcome.json()
    assert report["chosen"] is None and not (tmp_path / "config.toml").exists()
    nearest = report["nearest"]["confirmation"]
    assert not nearest["holds"] and nearest["drop"] + nearest["error"] > 0
    assert f"{nearest['drop']:.2f}" in outcome.err and "too many" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--confirm-seeds", "0"], ["--confirm-seeds", "0"]),
        (["--objective", "byte"], ["byte", "did you mean"]),
        (["--strategy", "annealing"], ["annealing", "random"]),
        (["--method", "sgqaunt"], ["sgqaunt", "sgquant"]),
        (["--method", "uniform", "--granularity", "bucket"], ["degree buckets", "sgquant"]),
        (["--choices", "9"], ["choices", "9"]),
        (["--choices", "a,b"], ["--choices", "a,b"]),
        (["--splits", "8,4", "--granularity", "bucket"], ["rise"]),
        (["--budget", "0"], ["budget", "0"]),
        (["--max-drop", "-1"], ["--max-drop", "-1"]),
    ],
)
def test_bad_usage(run: Command, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    outcome = run("search", "--out", tmp_path / "o", *SMALL, *arguments)
    assert outcome.code == 2 and outcome.out == ""
    assert all(word in outcome.err for word in words) and outcome.err.count("\n") == 1


def test_overrides_on_the_command_line(run: Command, tmp_path: Path) -> None:
    outcome = run(
        *("quantize", "--out", tmp_path, *QUICK, "--method", "sgquant", "--splits", "6"),
        *("--override", "convs.0.*=4", "--override", "convs.1.message=8,2", "--json"),
    )
    assert outcome.code == 0
    sites = {(s["layer"], s["site"]): s for s in outcome.json()["sites"]}
    assert sites["convs.0", "message"]["bits"] == 4
    assert sites["convs.1", "message"]["granularity"] == "degree bucket"
    for given in ("convs.0", "convs.0.*=four", "=4"):
        outcome = run("quantize", "--out", tmp_path, *QUICK, "--override", given)
        assert outcome.code == 2 and "--override" in outcome.err
