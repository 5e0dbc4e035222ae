"""What computes a step of a plan, in words."""

from __future__ import annotations

from typing import Any

import torch

from nodebits.ops.backends.triton import choice
from nodebits.ops.operator import OPERATORS
from nodebits.plan.plan import PYTHON


def backend_of(step: dict[str, Any], device: torch.device) -> str:
    """``kernel``, ``definition in torch``, ``torch``, or ``module``.

    Args:
        step: Of the plan.
        device: Where it runs.
    """
    op = step["op"]
    if op == "module":
        return "module"
    if device.type == "cpu":
        return "torch" if op in PYTHON or step.get("approx") else "kernel"
    if op not in OPERATORS:
        return "torch"
    has_kernel = device.type == "cuda" and op in choice.names()
    return "kernel" if has_kernel else "definition in torch"
