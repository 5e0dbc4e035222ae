"""Sums and norms of rows in a stated order, which every machine repeats to the bit."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from nodebits.core.recorded import recorded


def row_sum(x: Tensor) -> Tensor:
    """The sums over the last axis, which keeps one entry.

    A row is filled up with zeros to a power of two; then its second half is added to the first
    until one entry is left. However many zeros follow, the result is the same.

    Args:
        x: float32 ``[*, C]``.

    Returns:
        float32 ``[*, 1]``.
    """
    return recorded("row_sum", lambda: halved(x), x)


def row_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of the last axis: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Every operation is rounded by itself; mean and variance are sums of :func:`row_sum` over C.

    Args:
        x: float32 ``[*, C]``.
        weight: float32 ``[C]``, or None.
        bias: Likewise.
        eps: Added to the variance.
    """
    return recorded("row_norm", lambda: normed(x, weight, bias, eps), x, weight, bias, eps)


def root(x: Tensor) -> Tensor:
    """The square root of float32 values, correctly rounded."""
    return recorded("root", lambda: rounded_root(x), x)


def rounded_root(x: Tensor) -> Tensor:
    """What :func:`root` returns: torch's of float32 is not rounded correctly on every machine."""
    return x.double().sqrt().float()


def halved(x: Tensor) -> Tensor:
    """What :func:`row_sum` returns."""
    width = 1 << max(x.size(-1) - 1, 0).bit_length()
    if width != x.size(-1):
        x = F.pad(x, (0, width - x.size(-1)))
    elif width == 1:
        return x.clone()
    while x.size(-1) > 1:
        half = x.size(-1) // 2
        x = x[..., :half] + x[..., half:]
    return x


def normed(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """What :func:`row_norm` returns."""
    count = x.size(-1)
    if count == 0:
        return x.clone()
    centered = x - halved(x) / count
    made = centered / rounded_root(halved(centered * centered) / count + eps)
    made = made if weight is None else made * weight
    return made if bias is None else made + bias
