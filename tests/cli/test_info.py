"""What ``nodebits info MODEL`` says about how the model runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nodebits import ops
from nodebits.cli import loading
from nodebits.report.running import describe_forward
from nodebits.train.problem import Inputs
from packed_models import make_case

# Columns from which on an input site takes its scales from the rows.
WORDS = 600
DIGITS = ("--dataset", "digits")


def test_without_data_it_says_how_to_see_a_forward(run: Any, finished: Path) -> None:
    model = finished / "model.safetensors"
    found = run("info", model, "--json").json()
    assert found["forward"] is None and found["float_layers"] == {}
    assert found["backend"]["isa"] == ops.current_isa()
    text = run("info", model).out
    assert "--dataset NAME" in text and "left in float: nothing" in text
    assert "results in a forward" not in text


def test_chains_of_a_forward(run: Any, finished: Path) -> None:
    model = finished / "model.safetensors"
    forward = run("info", model, *DIGITS, "--json").json()["forward"]
    assert forward["dataset"] == "digits"
    passed = [(c["layers"], c["activation"], c["readers"], c["fused"]) for c in forward["chains"]]
    assert passed == [
        (["convs.0.lin"], "", ["convs.0.message"], True),
        (["convs.0"], "relu", ["convs.1.lin.input"], True),
        (["convs.1.lin"], "", ["convs.1.message"], True),
        (["convs.1"], "", [], False),
    ]
    assert [c["float_bytes"] for c in forward["chains"]] == [0, 0, 0, 1797 * 10 * 4]
    (entry,) = forward["raw_inputs"]
    assert not entry["sparse"] and entry["dense_bytes"] == 1797 * 64 // 2
    text = run("info", model, *DIGITS).out
    assert "fused" in text and "convs.1.lin.input" in text and "(the model's result)" in text
    assert "--dataset NAME" not in text


def test_the_level_that_runs(run: Any, finished: Path) -> None:
    model = finished / "model.safetensors"
    with ops.force_isa("reference"):
        assert run("info", model, "--json").json()["backend"]["operators"] == "reference"
        assert "run by reference operators" in run("info", model).out


@pytest.mark.parametrize("full", (False, True))
def test_sparse_features(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """A bag of words comes as sparse rows; the same model reads dense features as dense rows."""
    case = make_case(features=WORDS, bits=4)
    x = case.x if not full else torch.ones_like(case.x)
    case.packed.save(tmp_path / "model.safetensors")

    class OneGraph:
        def example(self, split: str) -> Inputs:
            return Inputs(x, case.edge_index)

    def load(*arguments: Any) -> Any:
        return case.packed, OneGraph(), "words"

    monkeypatch.setattr(loading, "open_model_and_data", load)
    found = run("info", tmp_path / "model.safetensors", "--dataset", "digits", "--json").json()
    (entry,) = found["forward"]["raw_inputs"]
    share = float(x.count_nonzero()) / x.numel()
    assert entry["share_not_zero"] == share
    assert entry["sparse"] is not full
    site = next(s for s in case.packed.account(x, case.edge_index).sites if s.raw)
    assert entry["dense_bytes"] == x.size(0) * WORDS // 2
    assert entry["sparse_bytes"] == (None if full else site.bytes)
    assert site.sparse is not full and f"{100 * share:.1f}%" in entry["reason"]
    text = run("info", tmp_path / "model.safetensors", "--dataset", "digits").out
    assert ("sparse rows" if not full else "dense rows") in text and entry["reason"] in text


@pytest.mark.parametrize(("method", "whole"), [("uniform", False), ("a2q", True)])
def test_rows_that_samples_keep_are_said(
    run: Any, tmp_path: Path, method: str, whole: bool
) -> None:
    case = make_case("gcn", method)
    case.packed.plan(case.x, case.edge_index)
    case.packed.save(tmp_path / "model.safetensors")
    said = "predict_nodes computes all rows of a sample, for quantize_pack_bucketed"
    assert (said in " ".join(run("info", tmp_path / "model.safetensors").out.split())) is whole
    found = run("info", tmp_path / "model.safetensors", "--json").json()["plan"]["of_all"]
    assert ("fused_gemm_bucketed" in found) is whole


def test_several_sites_read_the_features() -> None:
    case = make_case("sage", features=WORDS, bits=4)
    raw = describe_forward(case.packed, Inputs(case.x, case.edge_index))["raw_inputs"]
    reasons = {f"{entry['layer']}.{entry['site']}": entry["reason"] for entry in raw}
    assert list(reasons) == ["convs.0.message", "convs.0.lin_r.input"]
    assert "neighbour sum" in reasons["convs.0.message"]
    assert "read the features before" in reasons["convs.0.lin_r.input"]
    assert not any(entry["sparse"] for entry in raw)


def test_features_below_zero_are_dense_rows() -> None:
    case = make_case("gcn", features=WORDS, bits=4)
    x = case.x.clone()
    x[0, 0] = -1.0
    (entry,) = describe_forward(case.packed, Inputs(x, case.edge_index))["raw_inputs"]
    assert not entry["sparse"] and entry["reason"] == "the features hold values below zero"


def test_what_is_left_in_float(run: Any, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    make_case("gin", norm="batch_norm", task="graph").packed.save(model)
    found = run("info", model, "--json").json()
    assert found["float_layers"] == {}
    held = sum(value["bytes"] for value in found["float_weights"] if value["layer"] == "norm")
    assert held == 4 * 2 * 32  # scale and shift
    assert found["weight_bytes"] - found["quantized_weight_bytes"] >= held
    assert "left in float: nothing" in run("info", model).out
    make_case("gcn", overrides={"convs.1.message": 32}).packed.save(model)
    assert "left in float: convs.1.message\n" in run("info", model).out
