"""Kernels in Triton's language, for CUDA devices.

Nothing of Triton is imported before an operator meets a tensor on such a device.
"""

from nodebits.ops.backends.triton import choice

# Whose kernels read memory of the host, see ``host.py``.
READS_HOST_FROM = "cuda"


def register() -> None:
    """Makes them the operators of CUDA devices."""
    choice.register()


def describe() -> dict[str, str]:
    """What runs on CUDA devices."""
    return {"cuda": choice.describe()}


def serves() -> dict[str, dict[str, str]]:
    """What serves each operator on CUDA devices."""
    return {"cuda": choice.serves()}
