"""Checks of values that nobody waits for: what they find is noted, and read once at the end.

Who looks at a value on a device waits until all that was started before is done. A plan on a device
notes instead whether something was wrong (:mod:`nodebits.plan.device`), and reads one flag.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nodebits.core.context import current


class Outcomes:
    """What the checks of one run found.

    Args:
        fixed: Whether sizes may not follow from values either: what is recorded for a CUDA graph
            has the same sizes in every run.
        real: int64 ``[1]``, how many nodes are no padding; None where all are none.
    """

    def __init__(self, fixed: bool = False, real: Tensor | None = None) -> None:
        self.fixed, self.real = fixed, real
        self._found: list[Tensor] = []

    def note(self, bad: Tensor) -> None:
        """Takes one outcome, bool of one value."""
        self._found.append(bad.reshape(1))

    def any(self, device: torch.device) -> Tensor:
        """Whether something was wrong, bool ``[1]`` on ``device``."""
        if not self._found:
            return torch.zeros(1, dtype=torch.bool, device=device)
        return torch.cat(self._found).any().view(1)


def noted(bad: Callable[[], Tensor]) -> bool:
    """Whether the outcome of a check is noted; where it is not, the caller looks at once.

    Args:
        bad: Computes whether something is wrong, bool of one value.
    """
    outcomes = current().outcomes
    if outcomes is None:
        return False
    outcomes.note(bad())
    return True


def is_fixed() -> bool:
    """Whether no size may follow from values in what runs now."""
    outcomes = current().outcomes
    return outcomes is not None and bool(outcomes.fixed)
