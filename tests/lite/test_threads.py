"""Many threads on one model, forks, and signals in the middle of a call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from model_files import degrees, scaled, write_model

from nodebits.lite import load

WIDTH = 64


def test_threads_do_not_meet(tmp_path: Path) -> None:
    plan, tensors = scaled(WIDTH)
    model = load(write_model(tmp_path / "m", plan, tensors))

    def call(seed: int) -> bool:
        generator = np.random.default_rng(seed)
        good = True
        for _ in range(40):
            x = generator.normal(size=(generator.integers(0, 300), WIDTH)).astype(np.float32)
            expected = np.maximum(x * tensors["scale"] + tensors["shift"], 0)
            good &= bool(np.array_equal(model.predict(x), expected))
        return good

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(16)))


def test_a_graph_is_exchanged_under_way(tmp_path: Path) -> None:
    """Every call sees one graph or the other, never a part of both."""
    model = load(write_model(tmp_path / "m", degrees()))
    n = 50
    ring = np.stack([np.arange(n), (np.arange(n) + 1) % n])
    star = np.stack([np.arange(n), np.zeros(n, np.int64)])
    sums = {(n, 1), (n, n)}  # of the degrees, and their largest
    model.set_graph(ring, n)
    x = np.zeros(n, np.float32)
    seen = set()
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            degree = model.predict(x)[0]
            seen.add((int(degree.sum()), int(degree.max())))

    workers = [threading.Thread(target=call) for _ in range(3)]
    for worker in workers:
        worker.start()
    for i in range(200):
        model.set_graph(star if i % 2 else ring, n)
    stop.set()
    for worker in workers:
        worker.join()
    assert seen <= sums


# Some seconds of work in many steps of some milliseconds.
LONG = """
import signal, sys, time
import numpy as np
from nodebits.lite import load
model = load(sys.argv[1], threads=2)
x = np.ones((400_000, 4), np.float32)
small = model.predict(x[:3])
class Stop(Exception): pass
def handler(*_): raise Stop
signal.signal(signal.SIGALRM, handler)
for _ in range(3):
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        model.predict(x)
    except Stop:
        print("stopped after", round(time.perf_counter() - start, 1))
    assert np.array_equal(model.predict(x[:3]), small)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of Unix")
def test_a_signal_ends_a_long_call(tmp_path: Path) -> None:
    plan, _ = scaled(4)
    steps, value = [], 0
    for i in range(3000):
        steps.append({"op": "add", "args": [f"v{value}", 1.0], "outs": [10 + i]})
        value = 10 + i
    plan.update(constants={}, steps=steps, outputs={"value": value})
    path = write_model(tmp_path / "m", plan)
    done = subprocess.run(
        [sys.executable, "-c", LONG, str(path)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    waited = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(waited) == 3 and max(waited) < 1.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_goes_on(tmp_path: Path) -> None:
    plan, tensors = scaled(WIDTH)
    model = load(write_model(tmp_path / "m", plan, tensors), threads=2)
    x = np.ones((5000, WIDTH), np.float32)
    expected = model.predict(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(model.predict(x), expected) else 1)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert done[1] == 0
