from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

# Session fixtures of commands are those of their tests.
from cli.conftest import run  # noqa: F401


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine a parallel region waits for its slowest thread; these tensors are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
