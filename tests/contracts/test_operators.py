"""What every operator keeps: its schema, one result on all levels, its arguments, typed errors.

A new operator joins by a call of it in ``ops/operator_calls.py``.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from hostile import HostileCalls, tensors_in
from operator_calls import calls
from operator_inputs import COMPILED, misaligned, same
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodebitsError
from nodebits.ops.backends.cpu.calls import IMPLEMENTATIONS
from nodebits.ops.operator import OPERATORS, Operator

HOSTILE_CALLS = 2500
every_call = pytest.mark.parametrize(
    ("op", "args"), [pytest.param(op, args, id=op.name) for op, args in calls()]
)
every_operator = pytest.mark.parametrize("op", OPERATORS.values(), ids=lambda op: op.name)


def test_every_operator_has_a_call() -> None:
    assert {op.name for op, _ in calls()} == set(OPERATORS)


@every_operator
def test_it_is_public_and_described(op: Operator[..., Any]) -> None:
    assert getattr(ops, op.name) is op and op.name in ops.__all__
    doc = inspect.getdoc(op) or ""
    assert doc.partition("\n")[0].endswith(".") and re.search(r"\[|:func:", doc), "a line; shapes"
    arguments = doc.partition("Args:\n")[2]
    for name in op.signature.parameters if arguments else ():
        assert f"    {name}: " in arguments, f"{op.name}: {name} is not described"


@every_call
def test_torch_accepts_its_schema_and_its_fake(
    op: Operator[..., Any], args: tuple[Any, ...]
) -> None:
    torch.library.opcheck(op.schema, tuple(op.flat(args)))


@every_call
def test_every_level_and_layout_gives_the_same_bits(
    op: Operator[..., Any], args: tuple[Any, ...]
) -> None:
    """Data that start at odd bytes, too; and nothing is written to an argument."""
    flat = op.flat(args)
    names = [argument.name for argument in op.schema._schema.arguments]
    # Edge blocks are ours alone, and start where they must.
    shifted = [v if n == "blocks" else _moved(v) for n, v in zip(names, flat, strict=True)]
    kept = [t.clone() for t in tensors_in(flat)]
    with ops.force_isa("reference"):
        expected = op.schema(*flat)
    for isa in COMPILED:
        with ops.force_isa(isa):
            for given in (flat, shifted):
                _assert_equal(op, op.schema(*given), expected, isa)
    assert all(torch.equal(a, b) for a, b in zip(tensors_in(flat), kept, strict=True))


def _moved(value: Any) -> Any:
    if isinstance(value, list):
        return [_moved(part) for part in value]
    return misaligned(value) if isinstance(value, Tensor) else value


def _assert_equal(op: Operator[..., Any], found: Any, expected: Any, isa: str) -> None:
    if op.name.endswith("_backward"):  # sums of floats, in another order
        assert same(found[0], expected[0]), isa
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    else:
        assert same(found, expected), isa


@every_call
def test_a_missing_tensor_is_refused(op: Operator[..., Any], args: tuple[Any, ...]) -> None:
    flat = op.flat(args)
    for at, argument in enumerate(op.schema._schema.arguments):
        if str(argument.type) != "Tensor":
            continue
        with pytest.raises((NodebitsError, RuntimeError), match=argument.name):
            op.schema(*flat[:at], None, *flat[at + 1 :])


def test_no_argument_leads_astray() -> None:
    run = HostileCalls(seed=0)
    assert {op._opname for op, _ in run.calls} == set(IMPLEMENTATIONS)
    for _ in range(HOSTILE_CALLS):
        run.try_one()
    assert not run.failures, "\n".join(run.failures[:5])
    # Both kinds were tried, of every operator.
    assert set(run.accepted) == set(run.refused) == set(IMPLEMENTATIONS)
