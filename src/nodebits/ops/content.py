"""Whether memory holds what it held before: a number for the content of tensors."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from nodebits.core.memory import check_memory
from nodebits.ops.backends.cpu import kernels as backend

# What words are mixed with, and how many at once.
_MIX = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB)
_CHUNK = 1 << 24


def digest(t: Tensor) -> int:
    """64 bits that depend on every byte of ``t`` and on their order, whatever its strides.

    Comparable within a process and on one level. An edit that nobody told torch of (through NumPy,
    ``.data`` or ``inference_mode``) changes it but for a chance of about 2^-64.

    Args:
        t: Any strided tensor.

    Raises:
        ShapeError: If its storage is smaller than it says, as after ``resize_(0)``.
    """
    data = t.detach()
    check_memory(data, "a tensor")
    if data.is_conj() or data.is_neg():
        data = data.resolve_conj().resolve_neg()
    if not data.is_contiguous():
        data = data.contiguous()
    data = data.view(-1).view(torch.uint8)
    if data.device.type != "cpu":
        return _digest_there(data)
    kernels = backend.compiled()
    if kernels is not None:
        return int(kernels.digest(data, torch.get_num_threads()))
    return int.from_bytes(hashlib.blake2b(data.numpy().tobytes(), digest_size=8).digest(), "little")


def _digest_there(data: Tensor) -> int:
    """Of bytes ``[n]`` on any device, which they do not leave: words mixed with their places."""
    words = torch.cat([data, data.new_zeros(-data.numel() % 8)]).view(torch.int64)
    total = data.numel()
    for i in range(0, words.numel(), _CHUNK):
        part = words[i : i + _CHUNK]
        place = torch.arange(i, i + part.numel(), device=data.device)
        mixed = (part ^ (place * _MIX[0])) * _MIX[1]
        mixed = (mixed ^ (mixed >> 31)) * _MIX[2]
        total += int((mixed ^ (mixed >> 29)).sum())
    return total & (1 << 64) - 1
