"""What a linear map is to the model around it: which ones stand behind the last convolution."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear as PyGLinear


def head_linears(model: nn.Module) -> set[nn.Module]:
    """Linear maps of the parts of ``model`` that are registered behind its last convolution.

    Parts are the children of the model, or of its only child that has parameters, and so on. What
    a block holds beside its convolution, such as a feed-forward network, is no head where other
    parts stand beside the blocks, or several blocks in one list. Of a model that is a single block,
    the block's own parts count.
    """
    while True:
        parts = [part for part in model.children() if any(True for _ in part.parameters())]
        if len(parts) != 1 or isinstance(model, MessagePassing):
            break
        model = parts[0]
    with_sums = [n for n, part in enumerate(parts) if _convolves(part)]
    if isinstance(model, MessagePassing) or not with_sums:
        return set()
    behind = parts[with_sums[-1] + 1 :]
    return {m for part in behind for m in part.modules() if isinstance(m, nn.Linear | PyGLinear)}


def _convolves(part: nn.Module) -> bool:
    return any(isinstance(module, MessagePassing) for module in part.modules())
