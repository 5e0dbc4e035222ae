"""What a report suggests follows from its figures, and its commands can be run as they are."""

from __future__ import annotations

from typing import Any

import pytest

from nodebits.report.advice import next_steps

COMMAND = "nodebits quantize --dataset Cora --model gat --bits 4 --out 'runs/my cora'"


def report(packed: float = 0.8, bits: int = 4, **changed: Any) -> dict[str, Any]:
    figures = {"float": {"mean": 0.8, "std": 0.004}, "packed": {"mean": packed, "std": 0.004}}
    return {
        "metric": {
            "name": "accuracy",
            "title": "accuracy",
            "higher_is_better": True,
            "share": True,
        },
        "accuracy": figures,
        "method": {"bits": bits},
        "interrupted": False,
        "runs": [{}, {}],
        "plan": {"steps": ["gemm"], "python": [], "reason": ""},
        "float_layers": {},
        "speedup": 2.0,
        "speedup_prepared": 3.0,
        "command": COMMAND,
        **changed,
    }


def said(**changed: Any) -> dict[str, str]:
    return {one.text: one.command for one in next_steps(report(**changed))}


def command(found: dict[str, str], word: str) -> str:
    (text,) = (text for text in found if word in text)
    return found[text]


def test_a_model_as_good_as_float_may_have_fewer_bits() -> None:
    again = command(said(), "Fewer bits")
    assert again == (
        "nodebits quantize --dataset Cora --model gat --bits 2 --out 'runs/my cora-2bits'"
    )


def test_a_loss_asks_for_more_bits_and_a_search() -> None:
    found = said(packed=0.7)
    assert "10.0 behind float" in next(iter(found))
    assert "--bits 8" in command(found, "More bits")
    search = command(found, "search")
    assert search.startswith("nodebits search --dataset Cora --model gat --max-drop 0.5")
    assert not any("Fewer bits" in text for text in found)


def test_a_loss_within_the_spread_is_none() -> None:
    assert any("Fewer bits" in text for text in said(packed=0.797))


def test_less_is_better_turns_the_comparison() -> None:
    metric = {"name": "mae", "title": "MAE", "higher_is_better": False, "share": False}
    figures = {"float": {"mean": 0.5, "std": 0.0}, "packed": {"mean": 0.9, "std": 0.0}}
    assert any("behind float" in text for text in said(metric=metric, mae=figures))
    figures = {"float": {"mean": 0.9, "std": 0.0}, "packed": {"mean": 0.5, "std": 0.0}}
    assert any("Fewer bits" in text for text in said(metric=metric, mae=figures))


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"runs": [{}]}, "spread"),
        ({"interrupted": True}, "goes on"),
        ({"plan": {"steps": [], "python": [], "reason": "it has state"}}, "it has state"),
        ({"plan": {"steps": ["a", "elu"], "python": ["elu"], "reason": ""}}, "1 step"),
        ({"float_layers": {"head": "GRU"}}, "head (GRU)"),
        ({"speedup": 0.8}, "pack features"),
        ({"other_load": 1.5}, "1.5 cores busy"),
        ({"packed_ahead": False}, "no features were packed ahead"),
        ({"speedup": 0.8, "speedup_prepared": 0.9}, "not faster"),
    ],
)
def test_each_trouble_is_named(changed: dict[str, Any], word: str) -> None:
    assert not any(word in text for text in said())
    assert any(word in text for text in said(**changed))


def test_a_plan_without_python_runs_without_torch() -> None:
    assert any("without torch" in text for text in said())
    plan = {"steps": ["elu"], "python": ["elu"], "reason": ""}
    assert not any("without torch" in text for text in said(plan=plan))


def test_a_report_without_a_command_has_none_to_change() -> None:
    assert command(said(command=""), "Fewer bits") == ""
