"""Figures over runs."""

from __future__ import annotations

import torch


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """Returns mean and sample standard deviation; the latter is 0 for a single value."""
    column = torch.tensor(values, dtype=torch.float64, device="cpu")
    spread = column.std(correction=1).item() if len(values) > 1 else 0.0
    return column.mean().item(), spread
