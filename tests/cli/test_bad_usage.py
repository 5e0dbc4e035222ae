from __future__ import annotations

import os

import pytest

from .conftest import QUICK


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bits", "9"], ["bits", "9", "1 to 8"]),
        (["--bits", "four"], ["--bits", "four"]),
        (["--dataset", "Coraa"], ["Coraa", "did you mean", "Cora"]),
        (["--model", "gcm"], ["gcm", "gcn"]),
        (["--method", "degree-qaunt"], ["degree-qaunt", "degree-quant"]),
        (["--mode", "ptq"], ["mode"]),
        (["--message-bits", "11"], ["--message-bits", "11", "1 to 8"]),
        (["--dropout", "1.5"], ["dropout", "1.5"]),
        (["--folds", "2"], ["folds", "digits"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["--lr", "-1"], ["lr", "-1"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["--threads", "0"], ["--threads"]),
        (["--preset", "publish"], ["publish"]),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(run, tmp_path, arguments, words):
    out = tmp_path / "out"
    result = run("quantize", "--out", out, *QUICK, *arguments)
    assert result.code == 2, result.err
    lines = result.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("nodebits: ")
    for word in words:
        assert word in lines[0]
    assert not out.exists() or not [name for name in os.listdir(out) if name[0] != "."]


def test_missing_option_and_unknown_command(run):
    assert run("quantize").code == 2
    assert run("quantise").code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bitz = 4\n", ["bitz", "bits"]),
        ("bits = [4, 8]\n", ["bits", "[4, 8]", "whole number"]),
        ("bits = 4.5\n", ["bits", "4.5", "whole number"]),
        ("bits = true\n", ["bits", "True", "whole number"]),
        ("bits = '4'\n", ["bits", "'4'", "whole number"]),
        ("bits = 9\n", ["bits", "9", "1 to 8"]),
        ("lr = true\n", ["lr", "True", "finite number"]),
        ("lr = nan\n", ["lr", "nan"]),
        ("lr = -1.0\n", ["lr", "-1.0"]),
        ("dropout = inf\n", ["dropout", "inf"]),
        ("seeds = 2.0\n", ["seeds", "2.0"]),
        ("seeds = -2\n", ["seeds", "-2"]),
        ("warm-start = 1\n", ["warm-start", "1", "True or False"]),
        ("warm-start = 'yes'\n", ["warm-start", "yes"]),
        ("dataset = 4\n", ["dataset", "4", "string"]),
        ("warm-start = true\nwarm_start = false\n", ["warm_start", "twice"]),
        ("[quantize]\nbits = 4\n", ["unknown key", "did you mean", "quantizer-lr"]),
        ("[override]\n'convs.0.*' = true\n", ["override", "True"]),
        ("[override]\n'convs.0.*' = '4'\n", ["override", "'4'"]),
        ("[override]\n'convs.0.*' = [4, true]\n", ["override", "True"]),
        ("[override.convs]\nmessage = 4\n", ["override", "convs"]),
        ("override = 4\n", ["override", "4"]),
        ("splits = [4, true]\n", ["splits", "True"]),
        ("split = true\n", ["split", "True", "string"]),
        ("split = 3\nbits = 9\n", ["--bits", "9"]),  # a number is a split
        ("methods = 'uniform'\n", ["methods", "did you mean 'method'"]),
        ("bits = \n", ["not TOML"]),
        ("config = 'other.toml'\n", ["config"]),
    ],
)
def test_bad_toml_names_the_key(run, tmp_path, text, words):
    job = tmp_path / "job.toml"
    job.write_text(text)
    result = run("quantize", "--config", job, "--out", tmp_path / "out")
    assert result.code == 2
    assert all(word in result.err for word in words), result.err


def test_missing_toml(run, tmp_path):
    result = run("quantize", "--config", tmp_path / "none.toml", "--out", tmp_path)
    assert result.code == 2 and "none.toml" in result.err


def test_out_that_cannot_be_written_is_noticed_before_training(run, tmp_path, monkeypatch):
    from nodebits.jobs import quantize as job

    monkeypatch.setattr(job, "load_data", lambda *a, **k: pytest.fail("read data"))
    file = tmp_path / "file"
    file.write_text("kept")
    result = run("quantize", "--out", file)
    assert result.code == 1 and "cannot write to output folder" in result.err
    assert file.read_text() == "kept"
    if os.geteuid() != 0:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
        assert run("quantize", "--out", folder).code == 1


def test_missing_data_folder(run, tmp_path):
    arguments = ["--dataset", "Cora", "--data-root", tmp_path / "nowhere"]
    result = run("quantize", *arguments, "--out", tmp_path / "out")
    assert result.code == 2 and "nowhere" in result.err and "does not exist" in result.err


@pytest.mark.parametrize("command", ["evaluate", "predict", "info"])
def test_bad_model_files(run, finished, tmp_path, command):
    more = ["--out", tmp_path / "pred.npy"] if command == "predict" else []
    missing = run(command, tmp_path / "none.safetensors", *more)
    assert missing.code in (1, 2) and "none.safetensors" in missing.err
    content = bytearray((finished / "model.safetensors").read_bytes())
    content[-5] ^= 4
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    result = run(command, damaged, *more)
    assert result.code == 1 and "damaged" in result.err
    assert len(result.err.strip().splitlines()) == 1
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_text("not a model at all")
    assert run(command, foreign, *more).code == 1
    assert not (tmp_path / "pred.npy").exists()


def test_model_of_another_width(run, finished, tmp_path):
    model = finished / "model.safetensors"
    result = run("evaluate", model, "--dataset", "digits-graphs")
    assert result.code in (1, 2)
    assert len(result.err.strip().splitlines()) == 1


def test_debug_shows_the_traceback(run, tmp_path):
    result = run("quantize", "--dataset", "nope", "--out", tmp_path, "--debug")
    assert result.code == 2 and "Traceback" in result.err
    assert "Traceback" not in run("quantize", "--dataset", "nope", "--out", tmp_path).err


def test_no_arguments_shows_help(run):
    result = run()
    assert result.code == 0 and "quantize" in result.out
    assert run("--version").out.strip()


def test_compare_names_an_unknown_method_before_it_trains(run, tmp_path):
    out = tmp_path / "out"
    result = run("compare", "--methods", "uniform,degre-quant", "--out", out)
    assert result.code == 2 and "did you mean degree-quant" in result.err.replace("'", "")
    assert run("quantize", "--method", "uniform+lorapp", "--out", out, *QUICK).code == 2
    assert not out.exists()


def test_compare_says_by_its_exit_code_that_a_row_failed(run, tmp_path, monkeypatch):
    from nodebits.jobs import compare

    real = compare.run_job

    def failing(job, *rest, **named):
        if job.bits == 8:
            raise ValueError("no such luck")
        return real(job, *rest, **named)

    monkeypatch.setattr(compare, "run_job", failing)
    given = ["--methods", "uniform", "--bits", "8,4", "--seeds", "1", *QUICK]
    result = run("compare", "--out", tmp_path, "--no-float-distilled", *given)
    assert result.code == 1 and "1 of 2 rows failed" in result.err
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert ["ValueError: no such luck" in row for row in rows] == [True, False]
    monkeypatch.setattr(compare, "run_job", real)
    assert run("compare", "--out", tmp_path, "--no-float-distilled", *given).code == 0
