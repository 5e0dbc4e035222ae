"""Shared fixtures: reproducible torch, and the folder of real data sets."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.nn import Sequential

from forking import TORCH, Python
from nodebits.bench import timing

REPOSITORY = Path(__file__).resolve().parent.parent

# Where several processes share the processors, threads of each would wait for those of the others.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_collection_finish() -> None:
    """A collection of garbage need not walk through torch and PyG each time: they stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeds(request: pytest.FixtureRequest) -> None:
    """The same random numbers in every test, whichever tests ran before."""
    # PyG names the code of a ``Sequential`` by a random number, and takes code by its name:
    # one seed for all tests would hand the forward of one test's model to another's.
    random.seed(request.node.nodeid)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _calls_are_timed_at_once() -> Iterator[None]:
    """No test asserts a time, so none waits until threads and caches are quiet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_SETTLING", 0.0)
        yield


@pytest.fixture(autouse=True)
def _forward_of_sequences() -> Iterator[None]:
    """PyG's ``Sequential`` gives its class the forward of the instance that it made last."""
    own = Sequential.forward
    yield
    Sequential.forward = own


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is gone in the test went with its last reference: nothing looked for circles."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Python]:
    """Runs code in a process that has torch and PyG, and nothing of nodebits yet."""
    python = Python(tmp_path_factory.mktemp("python"), TORCH)
    yield python
    python.stop()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of PyG raw folders: ``NODEBITS_DATA``, else ``../shared/data``; skips without."""
    chosen = os.environ.get("NODEBITS_DATA")
    root = Path(chosen) if chosen else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set NODEBITS_DATA to a folder of PyG raw folders")
    return root


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for one run of the tests, so that they neither read nor fill the user's."""
    return tmp_path_factory.mktemp("cache")
