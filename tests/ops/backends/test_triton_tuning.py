"""Tiles: results do not depend on them, and the tuner keeps the fastest; a timer is made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from on_triton import DEVICE, assert_equal, moved, needs_triton, on_definition, on_kernels
from operator_calls import calls

from nodebits.core.errors import FileFormatError
from nodebits.ops.backends.triton import launch, tuned, tuning
from nodebits.ops.backends.triton.tiles import FAMILIES, Key, Sizes, candidates, key_of
from nodebits.ops.operator import Operator

KEY = Key("multiply", (4, 4, 1024, 128, 128))
# Candidates per kernel and call that are tried; a card has to compile each.
SOME = 3 if DEVICE.type == "cpu" else 8


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    launch.forget()
    yield
    launch.forget()


def sample_of(kernel: str) -> Key:
    family = FAMILIES[kernel]
    exact = {"bits": 4, "w_bits": 4, "unit": 4}
    return key_of(kernel, tuple(exact.get(name, 100) for name in family.shape))


@pytest.mark.parametrize("kernel", FAMILIES)
def test_candidates_are_powers_of_two_and_the_rule_comes_first(kernel: str) -> None:
    key = sample_of(kernel)
    found = candidates(key)
    assert len(found) > 1 and all(found.count(one) == 1 for one in found)
    assert all(size > 0 and size & (size - 1) == 0 for one in found for size in one.values())
    assert all(found[0].keys() <= one.keys() for one in found)
    assert launch.sizes_of(kernel, *key.shape) == found[0]


@pytest.mark.parametrize("bits", (1, 2, 4, 8))
def test_lanes_of_a_word_do_not_overflow(bits: int) -> None:
    """A word adds up as many edges as fit eight bits of its lanes."""
    largest = (1 << bits) - 1
    lanes = 255 if bits < 8 else 65535
    for one in candidates(key_of("sum_rows", (bits, 4, 128, 100))):
        assert one["EDGES"] * largest <= lanes


def by_operator() -> dict[str, tuple[Operator[..., Any], tuple[Any, ...]]]:
    return {op.name: (op, args) for op, args in calls()}


@needs_triton
@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
@pytest.mark.parametrize("name", by_operator())
def test_results_do_not_depend_on_tiles(name: str) -> None:
    op, args = by_operator()[name]
    flat = op.flat(args)
    expected, there = on_definition(op, *flat), moved(flat)
    with launch.chosen({}), launch.listening() as keys:
        on_kernels(op, *there)
    for key in keys:
        others = candidates(key)[1:]
        for sizes in others[:: max(len(others) // SOME, 1)]:
            with launch.chosen({key: sizes}):
                assert_equal(op, on_kernels(op, *there), expected)


class Kernels:
    """Stands for a call that starts one kernel, and for a card that times it."""

    def __init__(self, ms: Callable[[Sizes], float]) -> None:
        self.ms, self.last = ms, {}

    def call(self) -> list[torch.Tensor]:
        self.last = launch.sizes_of("multiply", *KEY.shape)
        return [torch.tensor([1.0, float("nan")])]

    def timer(self, call: Any) -> float:
        call()
        return self.ms(self.last)


def test_the_fastest_is_kept() -> None:
    card = Kernels(lambda sizes: float(sizes["ROWS"] + sizes["COLS"] + sizes["DEPTH"]))
    (made,) = tuning.tune({"a": card.call, "b": card.call}, card.timer)
    assert made.name == "a" and made.choice.key == KEY and not made.refused
    assert (made.choice.sizes["ROWS"], made.choice.sizes["COLS"]) == (16, 16)
    assert made.choice.ms < made.choice.rule_ms and made.tried == len(candidates(KEY))
    assert launch.sizes_of("multiply", *KEY.shape) == candidates(KEY)[0]  # nothing stays behind


def test_the_rule_stays_where_others_are_hardly_faster() -> None:
    card = Kernels(lambda sizes: 1.0 if sizes == candidates(KEY)[0] else 0.99)
    (made,) = tuning.tune({"a": card.call}, card.timer)
    assert made.choice.sizes == candidates(KEY)[0] and made.choice.ms == 1.0


class TooLarge(Exception):
    pass


def test_what_does_not_fit_the_card_is_left_out() -> None:
    def ms(sizes: Sizes) -> float:
        if sizes["ROWS"] == 128:
            raise TooLarge("out of resource: shared memory")
        return 100.0 - sizes["ROWS"]

    card = Kernels(ms)
    (made,) = tuning.tune({"a": card.call}, card.timer, (TooLarge,))
    assert made.choice.sizes["ROWS"] == 64 and "out of resource" in made.refused[0]
    with pytest.raises(RuntimeError, match=r"does not run by its rule: .*too slow"):
        tuning.tune({"a": card.call}, failing, (TooLarge,))


def failing(call: Any) -> float:
    raise TooLarge("too slow")


def test_other_bits_are_a_fault() -> None:
    def call() -> torch.Tensor:
        sizes = launch.sizes_of("multiply", *KEY.shape)
        return torch.tensor([float(sizes["ROWS"])])

    with pytest.raises(RuntimeError, match=r"multiply .* gives other bits with tiles"):
        tuning.tune({"a": call}, lambda call: 1.0)


CARD = "Some Card, capability 9.0, triton 3.7.1"
CHOICE = tuned.Choice(KEY, candidates(KEY)[1], 0.5, 1.0)


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "tiles.json"
    tuned.write(path, CARD, [CHOICE])
    softmax = key_of("softmax", (4,))
    other = CHOICE._replace(key=softmax, sizes=candidates(softmax)[2])
    tuned.write(path, CARD, [other])
    tuned.write(path, "Another", [CHOICE])
    better = CHOICE._replace(sizes=candidates(KEY)[2])
    tuned.write(path, CARD, [better])
    assert tuned.read(path) == {CARD: [better, other], "Another": [CHOICE]}
    path.write_text("{")
    tuned.write(path, CARD, [CHOICE])  # a damaged one is replaced
    assert tuned.read(path) == {CARD: [CHOICE]}


def spoiled(path: Path, **changes: Any) -> None:
    tuned.write(path, CARD, [CHOICE])
    document = json.loads(path.read_text())
    document["cards"][CARD][0].update(changes)
    path.write_text(json.dumps(document))


FAULTS: dict[str, dict[str, Any]] = {
    "sizes are none": {"sizes": {"ROWS": 3}},
    "of no kernel": {"kernel": "magic"},
    "shape": {"shape": [9, 4, 1024, 128, 128]},
    "of no kernel of this version": {"shape": [4]},
    "no shape that choices": {"shape": [4, 4, 1000, 128, 128]},
    "unknown field": {"more": 1},
    "ms": {"ms": "fast"},
}


@pytest.mark.parametrize("words", FAULTS)
def test_damaged_files_name_the_place(words: str, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    spoiled(path, **FAULTS[words])
    with pytest.raises(FileFormatError, match=words) as found:
        tuned.read(path)
    assert str(path) in str(found.value)


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card of this process, and the file that it looks for."""
    monkeypatch.setenv("NODEBITS_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tuned, "card", lambda: CARD)
    return tuned.tiles_file()


def test_launches_look_the_choice_up_once(serving: Path) -> None:
    tuned.write(serving, CARD, [CHOICE])
    assert launch.sizes_of("multiply", 4, 4, 999, 128, 100) == CHOICE.sizes
    serving.unlink()
    assert launch.sizes_of("multiply", 4, 4, 999, 128, 100) == CHOICE.sizes
    small = key_of("multiply", (4, 4, 9, 128, 100))
    assert launch.sizes_of("multiply", *small.shape) == candidates(small)[0]


@pytest.mark.filterwarnings("error")
def test_without_a_file_the_rules_serve_and_nothing_is_said(serving: Path) -> None:
    assert launch.sizes_of("multiply", *KEY.shape) == candidates(KEY)[0]


def test_a_file_of_no_use_is_named_once(serving: Path, recwarn: pytest.WarningsRecorder) -> None:
    for damage, words in (
        (lambda: tuned.write(serving, "Another", [CHOICE]), "is of Another, and not of Some Card"),
        (lambda: serving.write_text("nonsense"), "delete it"),
        (lambda: serving.write_text('{"nodebits tiles": 9, "cards": {}}'), "this version reads 1"),
    ):
        serving.unlink(missing_ok=True)
        damage()
        launch.forget()
        for _ in range(2):
            assert launch.sizes_of("multiply", *KEY.shape) == candidates(KEY)[0]
        (said,) = [str(one.message) for one in recwarn.list]
        assert words in said and str(serving) in said and tuned.COMMAND in said
        recwarn.clear()
