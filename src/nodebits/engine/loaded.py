"""Values that came out of a file."""

from __future__ import annotations

from torch import Tensor

from nodebits.core.errors import FileFormatError


def check_values(values: Tensor, name: str, positive: bool) -> None:
    """Refuses scales and zero points that came out of a file and are none.

    Raises:
        FileFormatError: Names the tensor, the value and its position.
    """
    good = values.isfinite() & (values > 0) if positive else values.isfinite()
    if bool(good.all()):
        return
    at = int((~good).view(-1).nonzero()[0])
    raise FileFormatError(
        f"{name}[{at}] is {values.view(-1)[at].item()}: it must be "
        f"{'finite and above zero' if positive else 'finite'}"
    )
