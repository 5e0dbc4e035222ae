"""What a forward pass may know about the call that it is in: one state per thread.

A convolution says which graph it works on, a training loop which graph each node belongs to, a
packed model that results may wait, an account that it counts. All of it is one immutable value;
:func:`opened` replaces parts of it for as long as a block runs, and only for the thread that runs
the block.

It is a ``threading.local`` and no ``contextvars.ContextVar``, since ``torch.compile`` follows
attributes of the former and breaks the graph at the ``get`` of the latter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Context:
    """The state of one thread; types of packages above this one are not named here.

    Attributes:
        graph: :class:`nodebits.graph.Graph` of the convolution, None outside one.
        batch: int64 ``[N]``, graph of each node, or None for a single graph.
        protected: bool ``[N]``, rows that a method keeps in float in this step, or None.
        chains: Where results that wait say how they were passed on
            (:class:`nodebits.engine.chain.ChainRecord`); None where no result may wait.
        records: Where sites say what passed through them
            (:class:`nodebits.engine.recording.SiteRecord`), outermost first.
        uses: Shown what every frozen site packs: the site, the rows before, the rows after.
        stepwise: Whether fused steps of a propagation run one by one, to show what is between.
        constant: Stands for the block in which inputs change only where torch's version counters
            tell (:func:`nodebits.graph.constant_inputs`); None outside one.
        given: Addresses of the tensors that the model was called with, while it is calibrated; what
            is not among them is a hidden result.
        states: Where propagating layers put their state after every step, outermost first.
        recorder: What notes the steps of this forward (:mod:`nodebits.core.recorded`), or None.
        example: Whether this forward is on a small part that stands for any data; rows that are
            bound to the nodes of one graph then take those of its first nodes, again and again.
        outcomes: Where checks of values note what they find instead of looking at it
            (:class:`nodebits.core.outcomes.Outcomes`); None where they look.
    """

    graph: Any = None
    batch: Tensor | None = None
    protected: Tensor | None = None
    chains: list[Any] | None = None
    records: tuple[list[Any], ...] = ()
    uses: Callable[[Any, Any, Any], None] | None = None
    stepwise: bool = False
    constant: object = None
    given: frozenset[int] = frozenset()
    states: tuple[list[Tensor], ...] = ()
    recorder: Any = None
    example: bool = False
    outcomes: Any = None

    @property
    def is_unobserved(self) -> bool:
        """Whether nobody asks what happens inside of a forward, or says what it is part of."""
        return (
            self.chains is None
            and self.uses is None
            and self.recorder is None
            and self.graph is None
            and self.batch is None
            and not (self.records or self.states or self.stepwise)
        )


class _Thread(threading.local):
    def __init__(self) -> None:
        self.context = Context()


_thread = _Thread()


def current() -> Context:
    """The state of this thread."""
    return _thread.context


@contextmanager
def opened(**changes: Any) -> Iterator[Context]:
    """Replaces fields of the state while it is open.

    Args:
        **changes: Fields of :class:`Context`.
    """
    outer = _thread.context
    _thread.context = inner = replace(outer, **changes)
    try:
        yield inner
    finally:
        _thread.context = outer
