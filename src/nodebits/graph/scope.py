"""What the quantizers of a layer may know about the forward pass they are in.

A convolution opens a scope around its work; linears inside it (GIN's MLP) and quantizers read it. A
training loop over batched graphs opens one too, to say which graph each node belongs to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from nodebits.graph.csr import Graph


@dataclass(frozen=True)
class Scope:
    """The current graph, the graph number of each node, and the rows kept in float.

    Attributes:
        graph: Graph of the convolution, None outside one.
        batch: int64 ``[N]`` or None for a single graph.
        protected: bool ``[N]``, rows that a method keeps in float in this step, or None.
    """

    graph: Graph | None = None
    batch: Tensor | None = None
    protected: Tensor | None = None


class _Stack(threading.local):
    def __init__(self) -> None:
        self.scopes = [Scope()]


_stack = _Stack()


def current_scope() -> Scope:
    """The innermost scope; an empty one outside all."""
    return _stack.scopes[-1]


@contextmanager
def graph_scope(
    *, graph: Graph | None = None, batch: Tensor | None = None, protected: Tensor | None = None
) -> Iterator[Scope]:
    """Opens a scope; what is not given is inherited.

    Args:
        graph: See :class:`Scope`.
        batch: See :class:`Scope`. A training loop over batches wraps its forward:
            ``with graph_scope(batch=data.batch): model(...)``.
        protected: See :class:`Scope`.
    """
    outer = current_scope()
    scope = replace(
        outer,
        graph=outer.graph if graph is None else graph,
        batch=outer.batch if batch is None else batch,
        protected=outer.protected if protected is None else protected,
    )
    _stack.scopes.append(scope)
    try:
        yield scope
    finally:
        _stack.scopes.pop()
