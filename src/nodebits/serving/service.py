"""The present version of a model, the next one, and who waits for an answer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from nodebits.core.errors import NodebitsError
from nodebits.core.memory import give_back_free_memory
from nodebits.serving.batching import Batcher
from nodebits.serving.errors import RequestError, busy
from nodebits.serving.metrics import Metrics
from nodebits.serving.questions import KnownRows, Question
from nodebits.serving.requests import Facts, read_change, read_question
from nodebits.serving.served import Loaded, Served
from nodebits.serving.settings import Limits, Serving

Q = TypeVar("Q")
_log = logging.getLogger("nodebits.serving")
# Bodies up to this size are read in the event loop: a thread would take longer.
_SMALL_BODY = 16 << 10
# So many rows are looked up in less time than another thread takes to wake up.
_FEW_ROWS = 64
_VERSION_DIGITS = 12


class Service:
    """A model that answers while the next one is loaded.

    Attributes:
        served: The present version; None before the first is loaded.
        failure: Why the last load failed; empty where it did not.
        loaded_at: Of :func:`time.time`, the last load.
    """

    def __init__(self, load: Callable[[], Loaded], path: Path, settings: Serving) -> None:
        """Loads nothing yet.

        Args:
            load: Reads the model file, and at its first call the data.
            path: Of the model file.
            settings: Limits, and how often to look at the file.
        """
        self._load, self.path, self.settings = load, path, settings
        self.served: Served | None = None
        self.failure, self.loaded_at, self.stopping = "", 0.0, False
        window = settings.window_ms / 1000
        self._batcher: Batcher[tuple[Served, Question], bytes] = Batcher(
            self._answer, settings.batch, window, settings.queue
        )
        self.metrics = Metrics(lambda: self._batcher.waiting)
        self._reader = ThreadPoolExecutor(1, "nodebits-reader")
        self._loader = ThreadPoolExecutor(1, "nodebits-loader")
        self._signature: tuple[int, ...] = ()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to answer, loads the model, and then looks at its file.

        Raises:
            NodebitsError: The model cannot be loaded.
        """
        self._batcher.start()
        await self._in_loader()
        if self.settings.watch:
            self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Answers what waits and ends."""
        self.stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._batcher.stop()
        if self.served is not None and self.served.loaded.session is not None:
            self.served.loaded.session.close()
        self._reader.shutdown()
        self._loader.shutdown()

    async def reload(self) -> bool:
        """Loads the model file anew; where that fails, the present one stays.

        Returns:
            Whether there is another one now. Requests that were read before are answered by the
            one that they were read for.
        """
        if self.served is not None and self.served.loaded.session is not None:
            self.failure = "a server with --log keeps its model: start it anew for another one"
            _log.error("the model was not loaded: %s", self.failure)
            self.metrics.not_loaded()
            return False
        try:
            await self._in_loader()
        except Exception as error:
            self.failure = " ".join(str(error).split()) or type(error).__name__
            self.metrics.not_loaded()
            expected = isinstance(error, NodebitsError | OSError)
            _log.error("the model was not loaded: %s", self.failure, exc_info=not expected)
            return False
        return True

    async def predict(self, body: bytes, deadline: float) -> tuple[bytes, str]:
        """The answer to the body of a request as JSON, and what kind of question it was.

        Args:
            body: JSON.
            deadline: Of :func:`time.monotonic`.

        Raises:
            RequestError: There is none.
        """
        served = self.present()
        question = await self._in_reader(read_question, body, served.facts)
        few = type(question) is KnownRows and question.rows.numel() <= _FEW_ROWS
        if few and served.table is not None:
            (found,) = served.answer([question])
            if isinstance(found, Exception):
                raise found
            return found, type(question).__name__
        answer = await self._batcher.ask((served, question), deadline)
        return answer, type(question).__name__

    async def update(self, body: bytes, deadline: float) -> bytes:
        """Changes the graph as the body of a request asks for; the answer says what it is now.

        Args:
            body: JSON.
            deadline: Of :func:`time.monotonic`; a change that was begun is made all the same.

        Raises:
            RequestError: Nothing was changed, or it was too late to tell.
        """
        served = self.present()
        if served.loaded.session is None:
            raise RequestError(404, "the graph does not change here: start with --log FOLDER")
        change = await self._in_reader(read_change, body, served.facts)
        return await self._batcher.ask((served, change), deadline)

    def present(self) -> Served:
        """The present version.

        Raises:
            RequestError: Status 503: there is none yet, or the server stops.
        """
        if self.served is None or self.stopping:
            raise busy("the server is stopping" if self.stopping else "the model is being loaded")
        return self.served

    async def _in_reader(
        self, read: Callable[[bytes, Facts, Limits], Q], body: bytes, facts: Facts
    ) -> Q:
        if len(body) <= _SMALL_BODY:
            return read(body, facts, self.settings)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, read, body, facts, self.settings)

    def _answer(self, asked: Sequence[tuple[Served, Question]]) -> list[bytes | Exception]:
        """Answers of each version that is asked; as a rule there is one."""
        self.metrics.batch(len(asked))
        found: list[bytes | Exception] = [RequestError(422, "")] * len(asked)
        for served in dict.fromkeys(one for one, _ in asked):
            places = [i for i, (one, _) in enumerate(asked) if one is served]
            answers = served.answer([asked[i][1] for i in places])
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    # --- loading ---

    async def _in_loader(self) -> None:
        loop = asyncio.get_running_loop()
        served, signature = await loop.run_in_executor(self._loader, self._make)
        self.served, self._signature, self.failure = served, signature, ""
        self.loaded_at = time.time()
        self.metrics.loaded(served.version)
        # Two versions were there at once: where they lay in turn, memory would grow by holes.
        await loop.run_in_executor(self._loader, give_back_free_memory)

    def _make(self) -> tuple[Served, tuple[int, ...]]:
        """The next version, and what its file is told by; of two that differ, the later."""
        while True:
            signature = _signature(self.path)
            loaded = self._load()
            version = hashlib.sha256(self.path.read_bytes()).hexdigest()[:_VERSION_DIGITS]
            if _signature(self.path) == signature:
                return Served(loaded, version), signature

    async def _watch(self) -> None:
        """Loads the file when it is another one; one that cannot be loaded is tried once."""
        refused: tuple[int, ...] = ()
        while True:
            await asyncio.sleep(self.settings.watch)
            signature = _signature(self.path)
            if signature in (self._signature, refused) or not signature:
                continue
            if not await self.reload():
                refused = signature


def _signature(path: Path) -> tuple[int, ...]:
    """What tells one file of a name from another; empty where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
