"""Training and evaluation mode of a model's modules, each its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts ``model`` in evaluation mode while it is open.

    Every module gets its own mode back: one that is kept in evaluation while the rest trains, such
    as a frozen norm, stays there.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
