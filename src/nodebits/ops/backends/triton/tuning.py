"""The tuner: tries the tiles of every kernel that a call starts, and keeps the fastest.

Each candidate must give the bits of the rule's tiles; one that does not is a fault of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.ops.backends.triton.launch import chosen, listening
from nodebits.ops.backends.triton.tiles import Key, Sizes, candidates
from nodebits.ops.backends.triton.tuned import Choice

Call = Callable[[], Any]
#: Milliseconds of a call.
Timer = Callable[[Call], float]
# Others than the rule's are chosen where they take less than this share of its time.
_WORTH = 0.97


class Tuned(NamedTuple):
    """What a kernel got for one shape.

    Attributes:
        name: Of the call.
        choice: The fastest, which may be the rule's.
        tried: Candidates that were timed.
        refused: Candidates that do not fit the card, and why.
    """

    name: str
    choice: Choice
    tried: int
    refused: list[str]


def tune(
    calls: Mapping[str, Call],
    timer: Timer,
    refusals: tuple[type[Exception], ...] = (),
    progress: Callable[[str], None] | None = None,
) -> list[Tuned]:
    """Finds the fastest tiles of every kernel and shape that the calls start.

    A shape that several calls have is measured in the first of them.

    Args:
        calls: By name; each returns tensors.
        timer: Of a call on the device.
        refusals: What the compiler raises for tiles that do not fit the card.
        progress: Told what is tried.

    Raises:
        RuntimeError: If tiles change the bits of a result; names kernel, shape and tiles.
    """
    best: dict[Key, Sizes] = {}
    found: list[Tuned] = []
    for name, call in calls.items():
        with chosen({}), listening() as keys:
            expected = _tensors(call())
        for key in keys:
            if key in best:
                continue
            if progress is not None:
                progress(f"{name}: {key.kernel} {list(key.shape)}")
            made = _tuned(name, call, key, _Run(best, timer, refusals, expected))
            best[key] = made.choice.sizes
            found.append(made)
    return found


class _Run(NamedTuple):
    """What all candidates of a call are tried with."""

    best: dict[Key, Sizes]
    timer: Timer
    refusals: tuple[type[Exception], ...]
    expected: list[Tensor]


def _tuned(name: str, call: Call, key: Key, run: _Run) -> Tuned:
    rule, *others = candidates(key)
    times: list[tuple[float, Sizes]] = []
    refused: list[str] = []
    for sizes in (rule, *others):
        with chosen({**run.best, key: sizes}):
            try:
                _compare(call(), run.expected, key, sizes)
                times.append((run.timer(call), sizes))
            except run.refusals as error:
                refused.append(f"{sizes}: {str(error).splitlines()[0][:200]}")
    if not times or times[0][1] is not rule:
        why = refused[0] if refused else "it was not timed"
        raise RuntimeError(f"{key.kernel} {list(key.shape)} does not run by its rule: {why}")
    rule_ms = times[0][0]
    ms, sizes = min(times, key=lambda one: one[0])
    if ms > _WORTH * rule_ms:
        ms, sizes = rule_ms, rule
    return Tuned(name, Choice(key, sizes, ms, rule_ms), len(times), refused)


def _compare(made: Any, expected: Sequence[Tensor], key: Key, sizes: Sizes) -> None:
    found = _tensors(made)
    same = len(found) == len(expected) and all(
        torch.equal(_bits(a), _bits(b)) for a, b in zip(found, expected, strict=True)
    )
    if not same:
        raise RuntimeError(
            f"{key.kernel} {list(key.shape)} gives other bits with tiles {sizes}: a fault of the "
            "kernel; report it, with the card and the version of triton"
        )


def _bits(t: Tensor) -> Tensor:
    """Floats as the integers of their bytes, so that NaN equals itself."""
    return t.view(torch.int32) if t.dtype == torch.float32 else t


def _tensors(made: Any) -> list[Tensor]:
    return list(_found(made))


def _found(made: Any) -> Iterator[Tensor]:
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, list | tuple):
        for part in made:
            yield from _found(part)
    elif isinstance(made, dict):
        yield from _found(list(made.values()))
