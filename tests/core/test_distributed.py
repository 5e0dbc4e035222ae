"""Where tensors travel between ranks; training over several is in ``tests/train``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nodebits.core import distributed

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda", 0), torch.device("meta")


@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        ("gloo", CPU, CPU),
        ("gloo", CUDA, CPU),
        ("nccl", CUDA, CUDA),
        ("nccl", CPU, torch.device("cuda", 3)),
        ("cpu:gloo,cuda:nccl", CPU, CPU),
        ("cpu:gloo,cuda:nccl", CUDA, CUDA),
        ("mpi", CUDA, CUDA),
    ],
)
def test_the_device_is_one_that_the_backend_serves(
    backend: str, device: torch.device, expected: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert distributed.travels_on(backend, device) == expected


class Group:
    """Two ranks that hold the same, and what travelled between them."""

    def __init__(self) -> None:
        self.devices: list[torch.device] = []

    def all_reduce(self, t: Tensor, how: Any = None) -> None:
        self.devices.append(t.device)
        if how == torch.distributed.ReduceOp.SUM:
            t.mul_(2)

    def all_gather(self, parts: list[Tensor], t: Tensor) -> None:
        self.devices.append(t.device)
        for part in parts:
            part.copy_(t)

    def broadcast(self, t: Tensor, source: int) -> None:
        self.devices.append(t.device)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    made = Group()
    for name in ("all_reduce", "all_gather", "broadcast"):
        monkeypatch.setattr(distributed.dist, name, getattr(made, name))
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    return made


def test_collectives_leave_what_they_were_given(group: Group) -> None:
    x = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    kept = x.clone()
    assert torch.equal(distributed.sum_over_ranks(x), 2 * x)
    assert torch.equal(distributed.rows_of_all_ranks(x), torch.cat([x, x]))
    assert torch.equal(distributed.all_rows_of_ranks(x > 0), torch.cat([x > 0, x > 0]))
    assert torch.equal(distributed.largest_of_ranks(x), x)
    assert distributed.on_any_rank(True, CPU) and not distributed.on_any_rank(False, CPU)
    distributed.take_from_first_rank([x, x[0] > 0])
    assert torch.equal(x, kept) and set(group.devices) == {CPU}


def test_tensors_of_a_device_come_back_to_it(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device here has no data, and can only be one that is travelled on."""
    monkeypatch.setattr(distributed, "travels_on", lambda backend, device: META)
    x = torch.ones(3)
    sent = distributed._sent(x)
    assert sent.device == META and distributed._sent(sent) is not sent
