"""Ranges of a forward that is run again inside the backward: gradient checkpointing.

``torch.utils.checkpoint`` and reversible layers throw a forward's intermediate results away and
compute them again for the gradients. Ranges may have moved in between: by later calls of the same
step, or by the second run itself. The second run therefore observes nothing, and finds every range
as the first run had it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nodebits.ops.content import digest

_KEPT = 64  # calls whose ranges are kept, more than checkpoints of one step in any model we know


def recomputing() -> bool:
    """Whether this forward runs inside a backward, for its gradients."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _may_be_run_again() -> bool:
    """Whether torch was asked to keep less than this forward's gradients need."""
    if not torch.is_grad_enabled():  # the reentrant form, and reversible layers
        return True
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


class Replay:
    """What a module's parameters and buffers were in the training calls that may be run again.

    Calls are known by the content of their argument, which is the same in both runs.
    """

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Tensor]] = {}
        self._used = False

    def __deepcopy__(self, memo: object) -> Replay:
        return Replay()

    def __reduce__(self) -> tuple[type[Replay], tuple[()]]:
        return Replay, ()  # a copy has no backward to come

    def keep(self, module: nn.Module, x: Tensor) -> None:
        """Keeps the state with which ``module`` just computed on ``x``."""
        if self._used:  # the step that needed them is over
            self._calls.clear()
            self._used = False
        if torch.compiler.is_compiling() or not _may_be_run_again():
            return
        self._keep(module, x)

    @torch.no_grad()  # not around the question, which is whether the caller asks for gradients
    def _keep(self, module: nn.Module, x: Tensor) -> None:
        last = next(reversed(self._calls.values()), None)
        now = _state(module)
        same = last is not None and all(_equal(last.get(name), t) for name, t in now.items())
        if not same or last is None:
            last = {name: t.clone() for name, t in now.items()}
        while len(self._calls) >= _KEPT:
            del self._calls[next(iter(self._calls))]
        self._calls[digest(x)] = last

    @contextmanager
    def then(self, module: nn.Module, x: Tensor) -> Iterator[None]:
        """While it is open, ``module`` is as it was when it computed on ``x``, if that is known."""
        self._used = True
        known = self._calls.get(digest(x)) if self._calls else None
        if known is None:
            yield
            return
        mine = dict(module.named_parameters()) | dict(module.named_buffers())
        present = {name: mine[name].data for name in known if name in mine}
        for name in present:
            mine[name].data = known[name]
        try:
            yield
        finally:
            for name, data in present.items():
                mine[name].data = data


def _state(module: nn.Module) -> dict[str, Tensor]:
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items()}


def _equal(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one, other)
