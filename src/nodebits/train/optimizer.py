"""Adam, its parameter groups and its schedule; the check that every parameter is trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from nodebits.methods import QuantConfig
from nodebits.models.fit_config import FitConfig
from nodebits.nn.quantizers import Quantizer
from nodebits.train.errors import UntrainedParameterError, UntrainedParameterWarning

_STEPS = 4  # rates of a ``step`` schedule that names no epochs


def make_optimizer(model: nn.Module, config: FitConfig, method: QuantConfig | None) -> Adam:
    """Returns Adam over the method's groups, or over those that every method shares.

    Raises:
        UntrainedParameterError: The groups leave out a trainable parameter.
    """
    groups = (method or QuantConfig()).parameter_groups(
        model, config.lr, config.weight_decay, config.quantizer_lr
    )
    # All parameters in one call: the same bits as one by one, in less time between them.
    optimizer = Adam([group for group in groups if group["params"]], lr=config.lr, foreach=True)
    known = {id(parameter) for parameter in parameters_of(optimizer)}
    missing = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in known
    ]
    if missing:
        raise UntrainedParameterError(
            f"no optimizer group holds {', '.join(missing)}; they would never be trained"
        )
    return optimizer


def make_schedule(optimizer: Optimizer, config: FitConfig) -> LRScheduler | None:
    """Returns the learning-rate schedule; it scales all groups alike."""
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=config.epochs)
    if config.schedule == "step":
        size = config.step_size or max(config.epochs // _STEPS, 1)
        return StepLR(optimizer, size, config.step_gamma)
    return None


def parameters_of(optimizer: Optimizer) -> Iterable[torch.nn.Parameter]:
    """Yields every parameter of every group."""
    for group in optimizer.param_groups:
        yield from group["params"]


def warn_untrained(model: nn.Module) -> None:
    """Names the trainable parameters that got no gradient; call it after a first backward pass."""
    idle = {id(p) for m in model.modules() if isinstance(m, Quantizer) for p in m.idle}
    missed = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None and id(parameter) not in idle
    ]
    if missed:
        warnings.warn(
            f"no gradient reaches {', '.join(missed)}; they keep their initial values",
            UntrainedParameterWarning,
            stacklevel=3,
        )
