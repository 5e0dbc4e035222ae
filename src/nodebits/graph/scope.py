"""What the quantizers of a layer may know about the forward pass they are in.

A convolution opens a scope around its work; linears inside it (GIN's MLP) and quantizers read it. A
training loop over batched graphs opens one too, to say which graph each node belongs to.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor

from nodebits.core.context import Context, current, opened
from nodebits.graph.csr import Graph


def current_scope() -> Context:
    """The innermost scope; an empty one outside all."""
    return current()


def graph_scope(
    *, graph: Graph | None = None, batch: Tensor | None = None, protected: Tensor | None = None
) -> AbstractContextManager[Context]:
    """Opens a scope; what is not given is inherited.

    Args:
        graph: See :class:`nodebits.core.context.Context`.
        batch: Likewise. A training loop over batches wraps its forward:
            ``with graph_scope(batch=data.batch): model(...)``.
        protected: Likewise.
    """
    given = {"graph": graph, "batch": batch, "protected": protected}
    return opened(**{name: value for name, value in given.items() if value is not None})
