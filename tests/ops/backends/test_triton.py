"""What every operator keeps on the kernels in Triton's language: bits, layouts, refusals.

Over the registry, with the calls that the compiled kernels are tried with.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hostile import HostileCalls, tensors_in
from on_triton import (
    INTERPRETED,
    assert_equal,
    moved,
    needs_triton,
    on_definition,
    on_kernels,
    serving,
)
from operator_calls import calls
from operator_inputs import misaligned
from torch import Tensor

from nodebits.core.errors import NodebitsError
from nodebits.ops.operator import OPERATORS, Operator

pytestmark = needs_triton

# A sort, which torch has for the device.
WITHOUT_KERNELS = {"coo_to_csr"}
HOSTILE_CALLS = 300
every_call = pytest.mark.parametrize(
    ("op", "args"), [pytest.param(op, args, id=op.name) for op, args in calls()]
)


def test_which_operators_run_as_their_definitions() -> None:
    from nodebits.ops.backends.triton.calls import IMPLEMENTATIONS

    assert set(OPERATORS) - set(IMPLEMENTATIONS) == WITHOUT_KERNELS
    assert set(IMPLEMENTATIONS) < set(OPERATORS)


def shifted(value: Any) -> Any:
    """Data that start at odd bytes."""
    if isinstance(value, list):
        return [shifted(part) for part in value]
    return misaligned(value) if isinstance(value, Tensor) else value


@every_call
def test_the_bits_of_the_definition(op: Operator[..., Any], args: tuple[Any, ...]) -> None:
    flat = op.flat(args)
    kept = [t.clone() for t in tensors_in(flat)]
    expected = on_definition(op, *flat)
    for given in (flat, shifted(flat)):
        found = on_kernels(op, *moved(given))
        assert_equal(op, found, expected)
    assert all(torch.equal(a, b) for a, b in zip(tensors_in(flat), kept, strict=True))


class HostileToKernels(HostileCalls):
    """The kernels in place of compiled levels."""

    def _outcome(self, op: Any, args: list[Any], level: str, threads: int) -> Any:
        if level == "reference":
            return super()._outcome(op, args, level, threads)
        with serving():
            try:
                return op(*args)
            except Exception as error:
                return error


@pytest.mark.skipif(not INTERPRETED, reason="arguments of these calls are on the CPU")
def test_no_argument_leads_astray() -> None:
    """Typed errors for arguments of other types, shapes and values, or the definition's result."""
    run = HostileToKernels(seed=1)
    for _ in range(HOSTILE_CALLS):
        run.try_one()
    assert not run.failures, "\n".join(run.failures[:5])
    assert run.accepted and run.refused


@pytest.mark.skipif(not INTERPRETED, reason="arguments of these calls are on the CPU")
def test_refusals_are_those_of_the_definitions() -> None:
    run, refused = HostileCalls(seed=2), 0
    for _ in range(HOSTILE_CALLS):
        op, args = run.next_call()
        expected = HostileCalls._outcome(run, op, args, "reference", 1)
        if isinstance(expected, NodebitsError):
            refused += 1
            with serving(), pytest.raises(NodebitsError) as found:
                op(*args)
            # Of two faults the blocks are named first, which the definitions do not read. Indices
            # are looked at before anything is computed, on the CPU by compiled code, which names
            # a vector at an odd address; torch reads it, and meets the other fault.
            told, names = str(found.value), [a.name for a in op._schema.arguments]
            same = type(found.value) is type(expected) and told == str(expected)
            odd = "starts at an address that is no multiple" in told and told.split()[0] in names
            assert same or odd or "blocks were made for another graph" in told, op.name
    assert refused > HOSTILE_CALLS // 5
