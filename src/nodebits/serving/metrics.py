"""What a server counts, in the form of Prometheus, and percentiles of the last requests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from nodebits.report.running import describe_backend

CONTENT_TYPE = CONTENT_TYPE_LATEST
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_KEPT = 8192
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counts of one server; nothing is shared between servers of a process.

    Args:
        waiting: How many requests wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        self._requests = Counter(
            "nodebits_requests", "Requests by path and status.", ["path", "status"], **own
        )
        self._seconds = Histogram(
            "nodebits_request_seconds", "Time of answered predictions.", buckets=_SECONDS, **own
        )
        self._rows = Counter("nodebits_questions", "Questions by kind.", ["kind"], **own)
        self._batch = Histogram(
            "nodebits_batch_size", "Requests per batch.", buckets=(1, 2, 4, 8, 16, 32, 64), **own
        )
        self._reloads = Counter("nodebits_reloads", "Loads of the model.", ["result"], **own)
        self._model = Gauge("nodebits_model_info", "The present model.", ["version"], **own)
        ready = Gauge("nodebits_queue_requests", "Requests that wait.", **own)
        ready.set_function(waiting)
        backend = describe_backend()
        kernels = Gauge("nodebits_kernels_info", "Kernels in use.", ["isa", "operators"], **own)
        kernels.labels(backend["isa"], backend["operators"]).set(1)
        self.started = time.monotonic()
        self.counts: dict[str, int] = {}
        self._latest: deque[float] = deque(maxlen=_KEPT)

    def request(self, path: str, status: int) -> None:
        """Counts a request; ``path`` is one that the server has."""
        self._requests.labels(path, str(status)).inc()
        group = "answered" if status < 400 else "busy" if status == 503 else "refused"
        if path == "/predict":
            self.counts[group] = self.counts.get(group, 0) + 1

    def answered(self, seconds: float, kind: str) -> None:
        """Notes the time that a prediction took, from the first byte to the answer."""
        self._seconds.observe(seconds)
        self._rows.labels(kind).inc()
        self._latest.append(seconds)

    def batch(self, size: int) -> None:
        """Notes how many requests were answered together."""
        self._batch.observe(size)

    def loaded(self, version: str) -> None:
        """Notes that a model is in use."""
        self._reloads.labels("ok").inc()
        self._model.clear()
        self._model.labels(version).set(1)
        self.counts["loads"] = self.counts.get("loads", 0) + 1

    def not_loaded(self) -> None:
        """Notes that a model could not be loaded."""
        self._reloads.labels("failed").inc()
        self.counts["failed loads"] = self.counts.get("failed loads", 0) + 1

    def percentiles(self) -> dict[float, float]:
        """Seconds by percentile, of the last requests; empty before the first."""
        if not self._latest:
            return {}
        values = np.percentile(np.array(self._latest), PERCENTILES)
        return dict(zip(PERCENTILES, values.tolist(), strict=True))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
