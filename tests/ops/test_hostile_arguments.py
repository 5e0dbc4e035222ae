"""Every operator refuses wrong arguments by a typed error, or returns what the reference does."""

from __future__ import annotations

from hostile import HostileCalls

from nodebits.ops.backends.cpu.calls import IMPLEMENTATIONS

CALLS = 2500


def test_no_argument_leads_astray() -> None:
    run = HostileCalls(seed=0)
    assert {op._opname for op, _ in run.calls} == set(IMPLEMENTATIONS)
    for _ in range(CALLS):
        run.try_one()
    assert not run.failures, "\n".join(run.failures[:5])
    # Both kinds were tried, of every operator.
    assert set(run.accepted) == set(run.refused) == set(IMPLEMENTATIONS)
