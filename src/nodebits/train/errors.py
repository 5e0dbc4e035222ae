"""Errors that only training can meet."""

from __future__ import annotations

from nodebits.core.errors import NodebitsError


class DivergedError(NodebitsError, FloatingPointError):
    """The loss became NaN or infinite."""


class UntrainedParameterError(NodebitsError, ValueError):
    """A trainable parameter that the optimizer was never given."""


class UntrainedParameterWarning(UserWarning):
    """A trainable parameter to which no gradient flows."""


class OverlappingSplitsError(NodebitsError, ValueError):
    """Nodes, graphs or edges that are in two splits; names the splits and counts them."""


class MissingClassWarning(UserWarning):
    """Classes that some row has and no training row: they cannot be learned."""


class IgnoredDataWarning(UserWarning):
    """Something that the data hold and the model is not given."""
