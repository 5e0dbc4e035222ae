"""All that is asked of CUDA graphs: to record what a function starts, and to start it again.

The tests put something else in its place, which runs the function again; that this file serves a
card was tried on none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch


class Recording(NamedTuple):
    """A function that was recorded.

    Attributes:
        result: What it returned: tensors whose memory every repetition writes to.
        repeat: Starts it again.
    """

    result: Any
    repeat: Callable[[], None]


class Graphs(Protocol):
    """What records the runs of a plan."""

    def record(self, run: Callable[[], Any]) -> Recording:
        """Runs a function to warm up, then records it."""

    def turn(self) -> Any:
        """A context in which a recording's memory is written, repeated and read."""


class CudaGraphs:
    """CUDA graphs of one plan, which share a pool of memory and so run one after another.

    Args:
        device: A CUDA device.
    """

    _WARM = 2  # kernels are compiled and workspaces are made in the first run

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._last: Any = None

    def record(self, run: Callable[[], Any]) -> Recording:
        """See :class:`Graphs`.

        Args:
            run: Starts kernels, and waits for none of them.

        Raises:
            RuntimeError: Torch's, if it waits for the device, or memory runs out.
        """
        with torch.cuda.device(self._device):
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(self._WARM):
                    run()
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on with what is forbidden while this one records.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = run()
            if self._pool is None:
                self._pool = graph.pool()
        return Recording(result, graph.replay)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See :class:`Graphs`: what another stream started before is waited for on the device."""
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            if self._last is not None:
                stream.wait_event(self._last)
            yield
            self._last = torch.cuda.Event()
            self._last.record(stream)
