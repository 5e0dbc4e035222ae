"""Ways to break one argument of an operator; each leaves the given value as it is."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

DTYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64,
)  # fmt: skip
INTEGERS = (0, -1, 1, 2, 7, 9, 255, 256, 1 << 46, 1 << 62, (1 << 63) - 1, -(1 << 63), 1 << 64)
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -1.0, 1e-45, 1e-30, 3e38)
HUGE = 1 << 44  # rows that no machine has memory for


class _Named(Tensor):
    """A subclass, as libraries make them."""


def _rows(t: Tensor, n: int) -> Tensor:
    """``n`` rows of ``t``, the last ones again where it has fewer."""
    at = torch.arange(n).clamp(max=max(t.size(0) - 1, 0)) if t.dim() else torch.zeros(0)
    return t[at] if t.dim() and t.size(0) else t.new_zeros((n, *t.shape[1:]))


def _shifted(t: Tensor, _: random.Random) -> Tensor:
    """The same values one byte behind the start of their memory."""
    raw = torch.zeros(t.nbytes + 1, dtype=torch.uint8)
    if not t.numel() or t.dtype == torch.bool:
        return t
    raw[1:] = t.contiguous().reshape(-1).view(torch.uint8)
    return torch.frombuffer(raw.numpy(), dtype=t.dtype, count=t.numel(), offset=1).view(t.shape)


def _strided(t: Tensor, _: random.Random) -> Tensor:
    """The same values with gaps between them."""
    wide = t.new_zeros((*t.shape, 3))
    wide[..., 1] = t
    return wide[..., 1]


def _overlapping(t: Tensor, r: random.Random) -> Tensor:
    """Rows that begin one element after each other, in one memory."""
    if t.dim() != 2 or not t.numel():
        return t
    return t.contiguous().as_strided(t.shape, (r.randrange(2), 1))


def _poked(t: Tensor, r: random.Random) -> Tensor:
    """One element gets an odd value."""
    made = t.clone()
    if not t.numel() or t.is_complex():
        return made
    flat = made.view(-1) if made.is_contiguous() else made.reshape(-1)
    if t.is_floating_point():
        value: float = r.choice(FLOATS)
    elif t.dtype == torch.bool:
        value = True
    else:
        info, n = torch.iinfo(t.dtype), t.numel()
        value = r.choice((-1, 0, 1, n - 1, n, n + 1, 8, 9, info.min, info.max, info.max - 1))
        value = min(max(value, info.min), info.max)
    flat[r.randrange(t.numel())] = value
    return flat.view(t.shape)


def _random_bytes(t: Tensor, r: random.Random) -> Tensor:
    if t.dtype == torch.bool or not t.numel():
        return t
    g = torch.Generator().manual_seed(r.randrange(1 << 30))
    raw = torch.randint(0, 256, (t.nbytes,), generator=g, dtype=torch.uint8)
    return raw.view(t.dtype).view(t.shape)


def _shuffled(t: Tensor, r: random.Random) -> Tensor:
    order = list(range(t.size(0))) if t.dim() else []
    r.shuffle(order)
    return t[order] if order else t


def _with_gradient(t: Tensor, _: random.Random) -> Tensor:
    made = t.clone()
    return made.requires_grad_() if made.is_floating_point() or made.is_complex() else made


def _inference(t: Tensor, _: random.Random) -> Tensor:
    with torch.inference_mode():
        return t.clone()


def _negated(t: Tensor, _: random.Random) -> Tensor:
    """A view of the negative, whose sign is a flag."""
    return torch._neg_view(-t) if t.is_floating_point() else t


def _sparse(t: Tensor, r: random.Random) -> Tensor:
    if t.dim() == 2 and r.random() < 0.4 and t.dtype != torch.bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is in beta, torch says
            return t.to_sparse_csr()
    return t.to_mkldnn() if t.dtype == torch.float32 and r.random() < 0.3 else t.to_sparse()


def _huge(t: Tensor, _: random.Random) -> Tensor:
    return t.reshape(-1)[:1].expand(HUGE, *t.shape[1:]) if t.numel() else t


TENSORS: tuple[Callable[[Tensor, random.Random], Any], ...] = (
    lambda t, r: _rows(t, max(t.size(0) - 1, 0)) if t.dim() else t,
    lambda t, r: _rows(t, t.size(0) + 1) if t.dim() else t,
    lambda t, r: t[..., :-1] if t.dim() else t,
    lambda t, r: torch.cat([t, t[..., :1]], -1) if t.dim() else t,
    lambda t, r: t.new_empty((*t.shape[:-1], 0)) if t.dim() else t,
    lambda t, r: t.new_empty((0, *t.shape[1:])),
    lambda t, r: t.unsqueeze(r.randrange(t.dim() + 1)),
    lambda t, r: t.reshape(-1),
    lambda t, r: t.reshape(-1)[0] if t.numel() else t,
    lambda t, r: t.reshape(-1)[:1],
    lambda t, r: t.mT if t.dim() > 1 else t,
    lambda t, r: t.mT.contiguous().mT if t.dim() > 1 else t,
    lambda t, r: t[:1].expand(t.shape) if t.dim() and t.size(0) else t,
    lambda t, r: t.flip(0) if t.dim() else t,
    lambda t, r: t.to(r.choice(DTYPES)),
    lambda t, r: t.to("meta"),
    lambda t, r: t.as_subclass(_Named),
    lambda t, r: nn.Parameter(t, requires_grad=t.is_floating_point()),
    lambda t, r: t.numpy(),
    lambda t, r: t.tolist(),
    lambda t, r: None,
    _shifted, _strided, _overlapping, _poked, _poked, _poked, _random_bytes, _shuffled,
    _with_gradient, _inference, _negated, _sparse, _huge,
)  # fmt: skip


def broken(value: Any, others: list[Tensor], sizes: bool, r: random.Random) -> Any:
    """``value`` with one fault, or something else in its place.

    Args:
        value: An argument: a tensor, a number, a list of them, or None.
        others: Tensors of all calls, which may stand where they do not belong.
        sizes: Whether the value declares a size that is allocated as such: it then becomes small
            or larger than any memory, not what this machine would really hand out.
        r: Where choices come from.
    """
    if r.random() < 0.04:
        return r.choice((None, "4", 1.5, True, [], [None], torch.ones(1), {}, 4))
    if isinstance(value, Tensor):
        return r.choice(others) if r.random() < 0.15 else r.choice(TENSORS)(value, r)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        near = (value - 1, value + 1, value + 8)
        return r.choice((*INTEGERS, *near, *(() if sizes else (1 << 31, (1 << 32) + value))))
    if isinstance(value, float):
        return r.choice(FLOATS)
    if isinstance(value, list):
        return _broken_list(value, others, r)
    return r.choice((*others, 0, 1.0))


def _broken_list(value: list[Any], others: list[Tensor], r: random.Random) -> list[Any]:
    made = list(value)
    kind = r.randrange(5) if made else 1
    at = r.randrange(len(made)) if made else 0
    if kind == 0:
        del made[at]
    elif kind == 1:
        made.insert(at, made[at] if made else r.choice((*others, 4, None)))
    elif kind == 2:
        r.shuffle(made)
    else:
        made[at] = broken(made[at], others, False, r)
    return made
