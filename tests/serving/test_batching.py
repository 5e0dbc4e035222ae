from __future__ import annotations

import asyncio
import threading
import time

import pytest

from nodebits.serving.batching import Batcher
from nodebits.serving.errors import RequestError

from .conftest import run


class Gate:
    """Answers when it is open, and keeps the batches."""

    def __init__(self) -> None:
        self.open, self.batches = threading.Event(), []

    def __call__(self, asked):
        self.batches.append(list(asked))
        assert self.open.wait(20)
        return [ValueError("odd") if one % 2 else one * 10 for one in asked]


def soon() -> float:
    return time.monotonic() + 20


async def begun(gate: Gate, count: int) -> None:
    while len(gate.batches) < count:
        await asyncio.sleep(0.001)


def test_what_waits_is_answered_together_and_in_order():
    async def work():
        gate = Gate()
        batcher = Batcher(gate, 3, 0, 100)
        batcher.start()
        tasks = [asyncio.create_task(batcher.ask(0, soon()))]
        await begun(gate, 1)
        tasks += [asyncio.create_task(batcher.ask(i, soon())) for i in range(1, 6)]
        await asyncio.sleep(0.01)
        gate.open.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.stop()
        return gate.batches, found

    batches, found = run(work())
    assert batches == [[0], [1, 2, 3], [4, 5]]
    assert [one for one in found if not isinstance(one, Exception)] == [0, 20, 40]
    assert all(isinstance(one, ValueError) for one in found[1::2])


def test_no_room_too_late_and_the_end():
    async def work():
        gate = Gate()
        batcher = Batcher(gate, 8, 0, 1)
        batcher.start()
        first = asyncio.create_task(batcher.ask(0, soon()))
        await begun(gate, 1)
        late = asyncio.create_task(batcher.ask(2, time.monotonic() + 0.02))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="too many requests wait") as full:
            await batcher.ask(4, soon())
        with pytest.raises(RequestError, match="not answered in time"):
            await late
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="stopping"):
            await batcher.ask(6, soon())
        gate.open.set()
        await stopping
        return full.value, await first, gate.batches

    full, first, batches = run(work())
    assert full.status == 503 and full.retry_after == 1
    assert first == 0 and batches == [[0]]  # the late one was not computed


def test_a_window_waits_for_more():
    async def work():
        gate = Gate()
        gate.open.set()
        batcher = Batcher(gate, 8, 0.05, 10)
        batcher.start()
        first = asyncio.create_task(batcher.ask(0, soon()))
        await asyncio.sleep(0.005)
        await asyncio.gather(first, batcher.ask(2, soon()))
        await batcher.stop()
        return gate.batches

    assert run(work()) == [[0, 2]]


def test_an_answerer_that_fails_fails_its_batch_alone():
    async def work():
        def answer(asked):
            if asked == [1]:
                raise RuntimeError("once")
            return asked

        batcher = Batcher(answer, 1, 0, 10)
        batcher.start()
        with pytest.raises(RuntimeError, match="once"):
            await batcher.ask(1, soon())
        found = await batcher.ask(2, soon())
        await batcher.stop()
        return found

    assert run(work()) == 2
