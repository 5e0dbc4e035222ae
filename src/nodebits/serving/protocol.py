"""Connections: one that sends no whole request head in time is closed."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_REASON = b'{"error":"the head of the request was not there in time"}'
_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_REASON), _REASON)
)


def timed_protocol(seconds: float) -> type[H11Protocol]:
    """The protocol of a server whose clients have so long for the head of a request."""

    class Timed(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """Begins to wait for a head."""
            super().connection_made(transport)
            self._begin()

        def data_received(self, data: bytes) -> None:
            """Begins to wait at the first byte of a head, and ends with its last."""
            if self._timer is None and self._between_requests():
                self._begin()
            super().data_received(data)
            if not self._between_requests():
                self._end()

        def connection_lost(self, exc: Exception | None) -> None:
            """Nobody is waited for any more."""
            self._end()
            super().connection_lost(exc)

        def _between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _begin(self) -> None:
            self._timer = self.loop.call_later(seconds, self._late)

        def _end(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self.transport.write(_LATE)
                self.transport.close()

    return Timed
