"""Where a forward may be recorded as a plan: what is one step of it, and what cannot be a step.

A recorder (:class:`nodebits.plan.record.Recorder`) sees torch's operators by itself. Functions
that are one step although they take several operators, or look at values, say so here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from nodebits.core.context import current

T = TypeVar("T")


def recorded(step: str, run: Callable[[], T], *args: Any) -> T:
    """What ``run`` returns, noted as one step where a forward is recorded.

    Args:
        step: Name of the step.
        run: Computes a tensor, a tuple of tensors, or nothing but a check.
        *args: What the step takes: tensors, numbers, texts, None, or lists of these.
    """
    recorder = current().recorder
    if recorder is None:
        return run()
    result: T = recorder.composite(step, run, args)
    return result


def no_step(reason: str) -> None:
    """Says that what follows cannot be repeated on other data: the module around it is a step.

    Args:
        reason: For ``nodebits info``, to follow "since".
    """
    recorder = current().recorder
    if recorder is not None:
        recorder.refuse(reason)


def unrecorded(run: Callable[[], T]) -> T:
    """What ``run`` returns, which is no step and no value: it must not enter the result."""
    recorder = current().recorder
    if recorder is None:
        return run()
    with recorder.hide():
        return run()


def is_recording() -> bool:
    """Whether what happens now is noted as steps; inside of a step it is computed as ever."""
    recorder = current().recorder
    return recorder is not None and not recorder.hidden
