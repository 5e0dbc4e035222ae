"""Whether memory holds what it held before: a number for the content of tensors."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from nodebits.core.memory import check_memory
from nodebits.ops.backends.cpu import kernels as backend


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
    if data.device.type != "cpu":
        data = data.cpu()
    if not data.is_contiguous():
        data = data.contiguous()
    data = data.view(-1).view(torch.uint8)
    kernels = backend.compiled()
    if kernels is not None:
        return int(kernels.digest(data, torch.get_num_threads()))
    return int.from_bytes(hashlib.blake2b(data.numpy().tobytes(), digest_size=8).digest(), "little")
