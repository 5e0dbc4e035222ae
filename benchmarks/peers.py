"""PyG's float model as ``torch.compile`` makes it: the peer beside the eager one."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn


def compiled(model: nn.Module, *args: Any, dynamic: bool = True) -> nn.Module | None:
    """The model compiled, and called once; None where that fails, which is said.

    Args:
        model: In float.
        args: Of a call.
        dynamic: For any size, where it is not to be for this one alone.
    """
    torch._dynamo.reset()
    torch._dynamo.config.capture_scalar_outputs = True  # the number of graphs
    made = torch.compile(model, dynamic=dynamic)
    try:
        made(*args)
    except Exception as error:  # of any kind: it is the peer's, and said
        print(f"torch.compile: {type(error).__name__}", file=sys.stderr)
        return None
    return made
