"""Requests that are refused, and with which status."""

from __future__ import annotations

from nodebits.core.errors import NodebitsError


class RequestError(NodebitsError, ValueError):
    """A request that is refused.

    Attributes:
        status: Of HTTP: 4xx, or 503 where the same request may succeed later.
        retry_after: Seconds until it may; None where that is of no use.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


def busy(reason: str) -> RequestError:
    """The refusal of a request that may be sent again in a second."""
    return RequestError(503, reason, 1)
