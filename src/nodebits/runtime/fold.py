"""Batch norms that directly follow a layer become part of its rescaling.

Where "directly follows" can be read off the container: ``nn.Sequential``, PyG's ``MLP`` and PyG's
basic models
(``GCN``, ``GIN``, ``GAT``, ``GraphSAGE``). In a user's own ``forward`` the norm stays a float
module.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP
from torch_geometric.nn import BatchNorm as PyGBatchNorm
from torch_geometric.nn.models.basic_gnn import BasicGNN

from nodebits.nn.layer import QuantLayer
from nodebits.nn.models.deep import DeepGCN


def fold_norms(model: nn.Module) -> list[str]:
    """Folds what can be folded, in place; layers must be frozen.

    Args:
        model: A model in evaluation mode.

    Returns:
        Paths of the norms that were replaced by identities.
    """
    folded: list[str] = []
    for path, container in list(model.named_modules()):
        for layer, holder, key in _pairs(container):
            norm = holder[key]
            affine = _affine(norm)
            if affine is None or not isinstance(layer, QuantLayer):
                continue
            if layer.fold_affine(*affine):
                holder[key] = nn.Identity()
                name = _name_of(container, holder, key)
                folded.append(f"{path}.{name}" if path else name)
    return folded


Holder = nn.Sequential | nn.ModuleList


def _pairs(container: nn.Module) -> list[tuple[nn.Module, Holder, int]]:
    """(layer, list, index of the norm that follows it) of a known container."""
    if isinstance(container, nn.Sequential):
        return [(container[i], container, i + 1) for i in range(len(container) - 1)]
    if isinstance(container, MLP) and not container.act_first:
        count = min(len(container.lins), len(container.norms))
        return [(container.lins[i], container.norms, i) for i in range(count)]
    if isinstance(container, DeepGCN):
        return [(container.convs[i], container.norms, i) for i in range(len(container.norms))]
    if isinstance(container, BasicGNN) and not container.act_first:
        # The last convolution's norm runs only where a jumping-knowledge head follows.
        count = container.num_layers - (container.jk_mode is None)
        return [(container.convs[i], container.norms, i) for i in range(count)]
    return []


def _name_of(container: nn.Module, holder: Holder, key: int) -> str:
    for name, child in container.named_children():
        if child is holder:
            return f"{name}.{key}"
    return str(key)


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """``(scale, shift)`` of a batch norm in evaluation, or None."""
    if isinstance(norm, PyGBatchNorm):
        norm = norm.module
    if (
        not isinstance(norm, nn.BatchNorm1d)
        or norm.running_mean is None
        or norm.running_var is None
    ):
        return None
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        return scale, shift if norm.bias is None else shift + norm.bias
