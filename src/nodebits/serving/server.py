"""The process: sockets, signals, and an end that leaves no request unanswered."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.server import HANDLED_SIGNALS

from nodebits.core.errors import OutputError
from nodebits.serving.app import application
from nodebits.serving.protocol import timed_protocol
from nodebits.serving.service import Service

# Connections beyond the requests that the queue has room for: those that are told to come later.
_SPARE_CONNECTIONS = 512


class Server(uvicorn.Server):
    """Serves a service until it is told to stop, or its model cannot be loaded.

    Attributes:
        failure: Why the model could not be loaded; None where it could.
        port: That it listens at, once it does.
    """

    def __init__(self, service: Service, started: Callable[[str], None]) -> None:
        """Binds nothing yet.

        Args:
            service: What is served.
            started: Called with the address when the model is there.

        Raises:
            ConfigError: There is no token, and other machines can reach the server.
        """
        self._service, self._started = service, started
        self.failure: BaseException | None = None
        settings = service.settings
        app = application(service, settings.token())
        app.router.lifespan_context = self._lifespan
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=timed_protocol(settings.timeout),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(settings.keep_alive),
            timeout_graceful_shutdown=int(settings.timeout) + 1,
            limit_concurrency=settings.queue + _SPARE_CONNECTIONS,
            h11_max_incomplete_event_size=16 << 10,
        )
        super().__init__(config)

    @property
    def port(self) -> int:
        """The port."""
        found: int = self.servers[0].sockets[0].getsockname()[1]
        return found

    def run(self, sockets: Any = None) -> None:
        """Serves.

        Raises:
            OutputError: The address cannot be listened at.
            NodebitsError: The model cannot be loaded.
        """
        try:
            super().run(sockets)
        except SystemExit:  # uvicorn has logged why it could not bind
            host, port = self.config.host, self.config.port
            raise OutputError(f"cannot listen at {host}:{port}: choose another --port") from None
        if self.failure is not None:
            raise self.failure

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server, and are not sent once more to the process that has ended it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        loop = asyncio.get_running_loop()
        loading = asyncio.create_task(self._load())
        reloads: set[asyncio.Task[bool]] = set()

        def reload() -> None:
            task = asyncio.create_task(self._service.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None:
            with suppress(RuntimeError, ValueError):  # not in the main thread
                loop.add_signal_handler(hangup, reload)
        yield
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await self._service.stop()

    async def _load(self) -> None:
        try:
            await self._service.start()
        except Exception as error:
            self.failure, self.should_exit = error, True
            return
        while not self.started:
            await asyncio.sleep(0.01)
        host = self.config.host
        shown = f"[{host}]" if ":" in host else host
        self._started(f"http://{shown}:{self.port}")
