"""What a run may not do while a CUDA graph is recorded: wait for the device.

No card is needed for it: torch says which operators are called, those within ours included.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nodebits.ops.operator import OPERATORS, Operator

# Those that read a value on the host, or whose result's size is a value.
WAITING = frozenset(
    ("_local_scalar_dense", "item", "nonzero", "nonzero_static", "equal", "masked_select", "unique",
     "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "is_nonzero",
     "histc", "_assert_async", "argwhere", "is_pinned", "pin_memory", "lift_fresh", "lift")
)  # fmt: skip


Compute = Callable[[Operator[..., Any], Any], Any]


class Waits(RuntimeError):
    """An operator that a CUDA graph cannot hold."""


class _NoReading(TorchFunctionMode):
    """Refuses what gives values of the host's memory away without an operator."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__):
            raise Waits(f"{func.__name__} waits for the device")
        return func(*args, **(kwargs or {}))


class _NoWaiting(TorchDispatchMode):
    """Refuses operators that wait; those of ours are looked into."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self._compute = compute

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "nodebits" and name in OPERATORS:
            with self, _NoReading():
                op = OPERATORS[name]
                return op.run(functools.partial(self._compute, op), *args)
        self._look(name, func._overloadname, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _look(self, name: str, overload: str, args: Any, keywords: dict[str, Any]) -> None:
        if name in WAITING:
            raise Waits(f"{name} waits for the device")
        by_tensor = name == "repeat_interleave" and overload != "self_int"
        if by_tensor and keywords.get("output_size") is None:
            raise Waits("repeat_interleave without output_size waits for the device")
        masks = name in ("index", "index_put", "index_put_", "_unsafe_index") and any(
            t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]
        )
        if masks:
            raise Waits(f"{name} by a mask waits for the device")
        if name == "_to_copy" and keywords.get("device") is not None:
            raise Waits(f"a copy to {keywords['device']} waits for the device")
        if name == "segment_reduce" and not keywords.get("unsafe"):
            raise Waits("segment_reduce looks at its lengths")


def definition(op: Operator[..., Any], checked: Any) -> Any:
    """What an operator means."""
    return checked.compute()


@contextmanager
def no_waiting(compute: Compute = definition) -> Iterator[None]:
    """Refuses all that waits while it is open.

    Args:
        compute: What operators of ours do, with their checked arguments.
    """
    with _NoReading(), _NoWaiting(compute):
        yield
