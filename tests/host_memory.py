"""How a device reads the host's memory, for tests without a card."""

from __future__ import annotations

import torch
from torch import Tensor


class HostMemory:
    """Keeps what is pinned.

    Args:
        why: Why the device cannot read the host's memory; None where it can.
    """

    def __init__(self, why: str | None = None) -> None:
        self.why = why
        self.pinned: dict[int, Tensor] = {}

    def problem(self) -> str | None:
        return self.why

    def readable(self, t: Tensor) -> bool:
        return t.data_ptr() in self.pinned

    def readable_copy(self, t: Tensor, device: torch.device) -> Tensor:
        made = t.clone()
        self.pinned[made.data_ptr()] = made
        return made
