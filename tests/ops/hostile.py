"""Operators called with wrong arguments: what may come back, and what came back.

A call either returns what the reference returns, where that accepts the arguments too, or raises a
typed error. The address sanitizer watches the same calls: ``make sanitize`` and
``benchmarks/reliability/hostile_operators.py``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from hostile_values import broken
from operator_calls import calls
from operator_inputs import COMPILED, same
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodebitsError

MOST_FAULTS = 3
# Arguments that declare how much is allocated.
SIZES = ("num_rows",)
# Their sums of floats may be rounded in another order.
INEXACT = ("fake_quantize_backward", "rescale_backward")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of an argument."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)


def described(value: Any) -> Any:
    """An argument in a few words, for the report of a failure."""
    if isinstance(value, Tensor):
        if value.device.type == "meta" or value.numel() > 64 or value.layout != torch.strided:
            return f"{value.dtype} {list(value.shape)} {value.device} {value.layout}"
        return f"{value.dtype} {list(value.shape)}/{value.stride()} {value.tolist()}"
    return [described(v) for v in value] if isinstance(value, list) else value


class HostileCalls:
    """Calls with one to three faults each, from a seed.

    Attributes:
        found: How many calls ended how.
        failures: What must not be, in words, with the number of the call.
        accepted: Calls with a fault that gave a result, by operator.
        refused: Calls with a fault that were refused, by operator.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.calls = [(op.schema, tuple(op.flat(args))) for op, args in calls()]
        self.tensors = [t for _, args in self.calls for t in tensors_in(list(args))]
        self.kept = {id(t): t.clone() for t in self.tensors}
        self.made = 0
        self.found: Counter[str] = Counter()
        self.failures: list[str] = []
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def next_call(self) -> tuple[Any, list[Any]]:
        """An operator and its arguments, some of them broken."""
        r = self.random
        op, valid = r.choice(self.calls)
        names = [a.name for a in op._schema.arguments]
        args = list(valid)
        for at in {r.randrange(len(args)) for _ in range(r.randint(1, MOST_FAULTS))}:
            args[at] = broken(args[at], self.tensors, names[at] in SIZES, r)
        self.made += 1
        return op, args

    def try_one(self) -> None:
        """One call on the reference and on one of the compiled levels."""
        op, args = self.next_call()
        threads = self.random.choice((1, 2))
        levels = ["reference", *([self.random.choice(COMPILED)] if COMPILED else [])]
        results = [self._outcome(op, args, level, threads) for level in levels]
        for level, result in zip(levels, results, strict=True):
            if isinstance(result, Exception):
                self.found[f"{level}: {type(result).__name__}"] += 1
                self.refused[op._opname] += 1
                if not self._typed(result, args):
                    self._fail(op, args, level, f"{type(result).__name__}: {result}")
            else:
                self.found[f"{level}: result"] += 1
                self.accepted[op._opname] += 1
        if not any(isinstance(result, Exception) for result in results):
            for result in results[1:]:
                if not self._equal(op, result, results[0]):
                    self._fail(op, args, levels[1], "another result than the reference")
        for given in tensors_in(args):
            kept = self.kept.get(id(given))
            if kept is not None and not torch.equal(given, kept):
                self._fail(op, args, levels[-1], "an argument was written to")
                given.copy_(kept)

    def _outcome(self, op: Any, args: list[Any], level: str, threads: int) -> Any:
        torch.set_num_threads(threads)
        with ops.force_isa(level):
            try:
                return op(*args)
            except Exception as error:
                return error

    @staticmethod
    def _typed(error: Exception, args: list[Any]) -> bool:
        """Whether a call with these arguments may end so."""
        if isinstance(error, NodebitsError):
            return bool(str(error))
        if any(t.device.type == "meta" for t in tensors_in(args)):
            return True  # torch's own words: there is no memory that could be left
        # A value that is no tensor, number or list where the schema wants one.
        text = str(error)
        wrong_kind = "Expected a value of type" in text or "Overflow when unpacking" in text
        return isinstance(error, (RuntimeError, TypeError)) and wrong_kind

    @staticmethod
    def _equal(op: Any, result: Any, expected: Any) -> bool:
        first = next(tensors_in(expected), None)
        if first is not None and first.device.type == "meta":
            return [t.shape for t in tensors_in(result)] == [t.shape for t in tensors_in(expected)]
        if op._opname in INEXACT:
            return same(result[0], expected[0]) and all(
                torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
                for a, b in zip(result, expected, strict=True)
            )
        return same(result, expected)

    def _fail(self, op: Any, args: list[Any], level: str, what: str) -> None:
        shown = [described(a) for a in args]
        self.failures.append(f"call {self.made} {op._opname} on {level}: {what}\n    {shown}")
