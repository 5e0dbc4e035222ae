"""Checkpoints: what goes in comes out, nothing is unpickled, and each field is checked."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fuzz.runs import FINGERPRINT, new_loop
from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.train.checkpoint import load_checkpoint, save_checkpoint
from nodebits.train.state_tree import from_tree, to_tree

State = dict[str, Any]


def test_a_state_is_the_same_afterwards(tmp_path: Path) -> None:
    state = {
        "numbers": [1, 0.1, -0.0, True, None, math.inf, -math.inf, "x", 10**30],
        "nan": math.nan,
        "nested": ({"a": (1, [2])}, [], (), {}),
        "by number": {0: torch.arange(3), 7: torch.tensor(1.5), "7": torch.zeros(0, 2)},
        "types": [torch.ones(2, dtype=t) for t in (torch.bool, torch.uint8, torch.float64)],
    }
    save_checkpoint(tmp_path / "c", "run", state)
    again = load_checkpoint(tmp_path / "c", "run")
    assert again is not None and math.isnan(again.pop("nan"))
    assert again["numbers"] == state["numbers"] and math.copysign(1, again["numbers"][2]) < 0
    assert again["nested"] == state["nested"] and type(again["nested"]) is tuple
    assert list(again["by number"]) == [0, 7, "7"]
    for key, value in state["by number"].items():
        assert torch.equal(again["by number"][key], value)
    for one, other in zip(again["types"], state["types"], strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", {(1, 2): 3}])
def test_what_no_checkpoint_holds_is_named(value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=type(value).__name__):
        save_checkpoint(tmp_path / "c", "run", {"x": [value]})
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "tree",
    [
        {},
        [1],
        {"tensor": "9"},
        {"tensor": 0},
        {"number": "1"},
        {"list": 3},
        {"dict": [[1]]},
        {"dict": [[None, 1]]},
        {"dict": [["a", 1], ["a", 2]]},
        {"list": [], "tuple": []},
        {"other": 1},
    ],
)
def test_trees_that_stand_for_nothing(tree: Any) -> None:
    with pytest.raises(FileFormatError, match="stands for nothing"):
        from_tree({"list": [tree]}, {"0": torch.zeros(1)})


def test_depth_is_bounded() -> None:
    tree = to_tree(1, {})
    for _ in range(500):
        tree = {"list": [tree]}
    with pytest.raises(FileFormatError, match="levels"):
        from_tree(tree, {})


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "c"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Attack())),
        lambda: torch.save({"version": 1, "fingerprint": "run", "state": Attack()}, path),
    ):
        write()
        with pytest.warns(UserWarning, match="starts anew"):
            assert load_checkpoint(path, "run") is None
    assert not (tmp_path / "ran").exists()


def trained(name: str) -> State:
    """The state of a run after an epoch, as its checkpoint gives it."""
    loop = new_loop(name)
    loop.train_epoch(lambda: False)
    loop.validate()
    return loop.state()


@pytest.mark.parametrize("name", ["plain", "cosine"])
def test_a_run_goes_on_as_if_it_had_not_stopped(name: str, tmp_path: Path) -> None:
    whole = new_loop(name)
    for _ in range(3):
        whole.train_epoch(lambda: False)
        whole.validate()
    save_checkpoint(tmp_path / "c", FINGERPRINT, trained(name))
    state = load_checkpoint(tmp_path / "c", FINGERPRINT)
    assert state is not None
    resumed = new_loop(name)
    resumed.restore(state)
    for _ in range(2):
        resumed.train_epoch(lambda: False)
        resumed.validate()
    assert resumed.history == whole.history
    for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def moments(state: State) -> State:
    found: State = state["optimizer"]["state"][0]
    return found


CHANGES: dict[str, Callable[[State], object]] = {
    "epoch": lambda s: s.update(epoch=-1),
    "history": lambda s: s.update(epoch=3),
    "history.loss": lambda s: s["history"].update(loss=[1.0, 2.0]),
    "best.epoch": lambda s: s["best"].update(epoch=9),
    "state.best": lambda s: s["best"].update(loss=math.nan),
    "best.state has keys": lambda s: s["best"].update(state={1: torch.zeros(1)}),
    "best": lambda s: s["best"].pop("loss"),
    "model has keys": lambda s: s.update(model={3: torch.zeros(1)}),
    "size mismatch": lambda s: s["model"].update({"linear.weight": torch.zeros(1)}),
    "Missing key": lambda s: s["model"].pop("linear.bias"),
    "param_groups": lambda s: s["optimizer"]["param_groups"].pop(),
    "betas": lambda s: s["optimizer"]["param_groups"][0].update(betas=3),
    "eps": lambda s: s["optimizer"]["param_groups"][0].update(eps=1.0),
    "lr": lambda s: s["optimizer"]["param_groups"][0].update(lr=math.inf),
    "there are 2 parameters": lambda s: s["optimizer"]["state"].update({7: {}}),
    "exp_avg must": lambda s: moments(s).update(exp_avg=torch.zeros(1)),
    "step is": lambda s: moments(s).update(step=torch.tensor(-1.0)),
    "must have": lambda s: moments(s).pop("step"),
    "schedule": lambda s: s.update(schedule=None),
    "schedule.T_max": lambda s: s["schedule"].update(T_max=0),
    "schedule must have": lambda s: s["schedule"].update(optimizer=1),
    "generator": lambda s: s.update(generator=3),
    "state: ": lambda s: s.update(generator=torch.zeros(3)),
    "unknown field": lambda s: s.update(more=1),
    "lacks the field": lambda s: s.pop("seconds"),
}


@pytest.mark.parametrize("words", CHANGES)
def test_states_of_another_form_are_refused(words: str) -> None:
    state = trained("cosine")
    CHANGES[words](state)
    with pytest.raises(FileFormatError, match=words):
        new_loop("cosine").restore(state)
