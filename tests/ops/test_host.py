"""Rows in the host's memory: who reads them, and what is refused; no card is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from host_memory import HostMemory
from nodebits import ops
from nodebits.core.errors import ConfigError, ShapeError
from nodebits.core.registry import CODINGS
from nodebits.ops import Source, host
from nodebits.ops.definitions.rows import GatherRows
from nodebits.ops.selection import take_lists, take_rows

META = torch.device("meta")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> HostMemory:
    made = HostMemory()
    monkeypatch.setattr(host, "memory_for", lambda kind: made if kind == "meta" else None)
    return made


def gathered(packed: Tensor, taken: Tensor, scale: Tensor, axis: int = -1) -> Tensor:
    return ops.gather_rows(Source(packed, 4, 4), taken, 0, 2, scale, scale, axis)


def on(device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Rows to take, and a scale."""
    taken = torch.zeros(2, dtype=torch.int32, device=device)
    return taken, torch.ones(1, device=device)


def test_the_cpu_reads_its_own_memory() -> None:
    t = torch.arange(6.0).view(2, 3)
    assert host.reader("cpu") == torch.device("cpu")
    assert host.readable_copy(t, torch.device("cpu")) is t


@pytest.mark.parametrize("device", ["meta", "nonsense", 3.5])
def test_devices_that_read_nothing(device: Any) -> None:
    with pytest.raises(ConfigError, match=r"meta|nonsense|3\.5"):
        host.reader(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_the_reason_is_named() -> None:
    with pytest.raises(ConfigError, match="torch finds no CUDA device; on_host"):
        host.reader("cuda")


def test_what_is_on_a_device_is_not_on_the_host(fake: HostMemory) -> None:
    with pytest.raises(ConfigError, match="rows on meta are not in the host's memory"):
        host.readable_copy(torch.empty(3, device=META), META)


def test_an_operator_reads_pinned_rows_from_there(fake: HostMemory) -> None:
    taken, scale = on(META)
    packed = host.readable_copy(torch.zeros(3, 2, dtype=torch.uint8), META)
    assert gathered(packed, taken, scale).device == META
    by_row = host.readable_copy(torch.ones(3), META)
    assert gathered(packed, taken, by_row, 0).shape == (2, 4)
    assert host.readable_copy(packed, META) is packed  # once is enough


Spoil = Callable[[HostMemory, Tensor], Tensor]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda fake, t: t.clone(), "packed is not read where it lies, since it is not pinned"),
        (lambda fake, t: t[:, ::1].t().clone().t(), "it is not pinned"),
        (lambda fake, t: setattr(fake, "why", "no driver") or t, "since no driver"),
    ],
)
def test_rows_that_cannot_be_read(fake: HostMemory, spoil: Spoil, why: str) -> None:
    packed = host.readable_copy(torch.zeros(3, 2, dtype=torch.uint8), META)
    with pytest.raises(ShapeError, match=why):
        gathered(spoil(fake, packed), *on(META))


def test_tensors_on_two_devices_are_refused_as_before(fake: HostMemory) -> None:
    packed = host.readable_copy(torch.zeros(3, 2, dtype=torch.uint8), META)
    (here, one), (there, scale) = on("cpu"), on(META)
    with pytest.raises(ShapeError, match="taken is on meta but packed is on cpu: move both to one"):
        ops.gather_rows(Source(packed.clone(), 4, 4), there, 0, 2, one, scale, -1)
    with pytest.raises(ShapeError, match="scale is on meta but packed is on cpu: move both to one"):
        gathered(packed, here, scale)
    with pytest.raises(ShapeError, match="move both to one"):  # no other operator reads there
        ops.fake_quantize(torch.ones(2, 2, device=META), one, scale, -1, 4)


def test_fields_of_a_coding_are_taken_first(fake: HostMemory) -> None:
    packed = host.readable_copy(torch.zeros(3, 2, dtype=torch.uint8), META)
    taken, scale = on(META)
    given = GatherRows(
        Source(packed, 2, 8, CODINGS.get("ternary").number), taken, 0, 2, scale, scale, -1
    )
    with pytest.raises(ShapeError, match="take the rows first"):
        given.checked()


def test_a_table_that_cannot_be_read() -> None:
    index = torch.zeros(2, dtype=torch.int64, device=META)
    with pytest.raises(ShapeError, match="the table is on cpu and cannot be read by meta"):
        take_rows(torch.ones(3, 2), index)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 4)])
def test_what_is_taken_does_not_depend_on_the_way(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    """The definition of reading over the bus is an index."""
    table, index = (
        torch.arange(40.0)[: torch.Size(shape).numel()].view(shape),
        torch.tensor([4, 0, 4]),
    )
    indptr, entries = torch.tensor([0, 2, 2, 3, 5, 9]), torch.arange(9, dtype=torch.int32)
    expected = take_rows(table, index), *take_lists(indptr, index, entries)
    monkeypatch.setattr(host, "apart", lambda table, index: True)
    monkeypatch.setattr(host, "take_rows", lambda table, index: table[index])
    found = take_rows(table, index), *take_lists(indptr, index, entries)
    assert all(map(torch.equal, found, expected))
