"""Two processes that train together pack the same file, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import nodebits
from forking import Python
from nodebits.core.distributed import rows_of_all_ranks, sum_over_ranks, take_from_first_rank

from .ranks import Net, methods

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


def test_without_a_group_nothing_changes() -> None:
    x = torch.randn(3, 4)
    assert rows_of_all_ranks(x) is x and sum_over_ranks(x) is x
    take_from_first_rank([x])


TWO_RANKS = """
import sys, time
from pathlib import Path
import torch.multiprocessing
from train.ranks import run

context = torch.multiprocessing.start_processes(
    run, (2, Path(sys.argv[1])), nprocs=2, join=False, start_method="fork"
)
try:
    deadline = time.monotonic() + 240
    while not context.join(timeout=5):  # of one rank at a time
        assert time.monotonic() < deadline, "the ranks wait for each other"
finally:
    for process in context.processes:
        if process.is_alive():
            process.kill()
"""


@pytest.mark.slow
def test_ranks_pack_the_same_file(tmp_path: Path, python: Python) -> None:
    done = python(TWO_RANKS, tmp_path, path=[Path(__file__).parents[1]])
    assert done.returncode == 0, done.stderr
    for name in (*methods(), "unused", "graphs", "fit"):
        first, second = (tmp_path / f"{name}-{rank}.safetensors" for rank in (0, 1))
        assert first.read_bytes() == second.read_bytes(), name
        assert nodebits.load(first, model=Net()).layer_paths()
    assert (tmp_path / "fit-0").read_text() == (tmp_path / "fit-1").read_text()
    for name in methods():
        refused = tmp_path / f"sampled-{name}-0.refused"
        if name == "a2q":
            assert "learns a width or range for every node of one graph" in refused.read_text()
            continue
        assert not refused.exists(), refused.read_text()
        first, second = (tmp_path / f"sampled-{name}-{rank}" for rank in (0, 1))
        assert first.read_text() == second.read_text(), name
        first, second = (path.with_name(f"{path.name}.safetensors") for path in (first, second))
        assert first.read_bytes() == second.read_bytes(), name
