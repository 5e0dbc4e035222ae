"""The load of other programs, as a measurement states it."""

from __future__ import annotations

import os
import time

import pytest

from nodebits.bench import load as measured
from nodebits.bench.load import OtherLoad
from nodebits.report.words import busy_words


def test_load_of_other_programs() -> None:
    load = OtherLoad()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    cores = load.cores()
    assert cores is None or 0.0 <= cores <= (os.cpu_count() or 1)


def test_what_others_used_is_all_less_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, own, everything = iter([0.0, 10.0]), iter([1.0, 6.0]), iter([100.0, 120.0])
    monkeypatch.setattr(measured.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measured, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(measured, "_all_seconds", lambda: next(everything))
    assert OtherLoad().cores() == 1.5


@pytest.mark.parametrize(("load", "said"), [(None, False), (0.1, False), (1.25, True)])
def test_a_busy_machine_is_named(load: float | None, said: bool) -> None:
    assert ("1.2 cores busy" in busy_words(load)) == said
    assert bool(busy_words(load)) == said
