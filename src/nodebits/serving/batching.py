"""Questions that wait together are answered together, in a thread of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from nodebits.serving.errors import busy

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass
class _Waiting(Generic[Q, A]):
    question: Q
    deadline: float
    answer: asyncio.Future[A]


class Batcher(Generic[Q, A]):
    """Answers questions in batches: what came while the last one was computed is the next one.

    Args:
        answer: Called in a thread, one batch at a time; an answer or an error per question.
        most: Questions of a batch.
        window: Seconds that a batch waits for more.
        room: Questions that wait; further ones are refused.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        most: int,
        window: float,
        room: int,
    ) -> None:
        self._answer, self._most, self._window = answer, most, window
        self._queue: asyncio.Queue[_Waiting[Q, A]] = asyncio.Queue(room)
        self._thread = ThreadPoolExecutor(1, "nodebits-answers")
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Questions that no batch has taken yet."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begins to answer, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def ask(self, question: Q, deadline: float) -> A:
        """The answer to a question.

        Args:
            question: The question.
            deadline: Of :func:`time.monotonic`; a question that still waits then is dropped.

        Raises:
            RequestError: Status 503: no room, too late, or the server stops.
        """
        if self._closed:
            raise busy("the server is stopping")
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(question, deadline, future))
        except asyncio.QueueFull:
            raise busy("too many requests wait already") from None
        try:
            return await asyncio.wait_for(future, max(deadline - time.monotonic(), 0.001))
        except TimeoutError:
            raise busy("the request was not answered in time") from None

    async def stop(self) -> None:
        """Answers what waits and ends; new questions are refused at once."""
        self._closed = True
        while not self._queue.empty():
            await asyncio.sleep(0.005)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            if self._window and self._queue.qsize() + 1 < self._most:
                await asyncio.sleep(self._window)
            while len(batch) < self._most and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            now = time.monotonic()
            # A future that is done was given up by whoever asked.
            batch = [one for one in batch if not one.answer.done() and one.deadline > now]
            if not batch:
                continue
            asked = [one.question for one in batch]
            answering = loop.run_in_executor(self._thread, self._answer, asked)
            try:
                answers: Sequence[A | Exception] = await asyncio.shield(answering)
            except asyncio.CancelledError:
                self._settle(batch, await answering)
                raise
            except Exception as error:
                answers = [error] * len(batch)
            self._settle(batch, answers)

    @staticmethod
    def _settle(batch: Sequence[_Waiting[Q, A]], answers: Sequence[A | Exception]) -> None:
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():
                continue
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
