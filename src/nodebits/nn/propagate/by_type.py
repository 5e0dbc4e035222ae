"""Forwards of PyG's that hold more than they need, for packed models.

:class:`torch_geometric.nn.HANConv` weighs what each type of edges makes of a type of nodes, and
stacks all of that first. Of what the weights are made of only a mean over the nodes is kept here,
taken block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import HANConv

from nodebits.core.errors import indices_of
from nodebits.nn.quantizers.base import Quantizer

# Rows that are looked at together.
_BLOCK = 4096


def forward_of(kind: type) -> Callable[..., Any]:
    """The ``forward`` of a layer's own type, or what takes its place."""
    own: Callable[..., Any] = kind.forward  # type: ignore[attr-defined]
    return _han if own is HANConv.forward else own


def _han(
    layer: Any,
    x_dict: dict[str, Tensor],
    edge_index_dict: dict[tuple[str, str, str], Any],
    return_semantic_attention_weights: bool = False,
) -> Any:
    """``HANConv.forward``; its sums over nodes and types have another order in packed models."""
    sites = any(isinstance(module, Quantizer) for module in layer.modules())
    if sites or layer.training or torch.is_grad_enabled():
        return HANConv.forward(layer, x_dict, edge_index_dict, return_semantic_attention_weights)
    heads = layer.heads
    mapped = {kind: layer.proj[kind](x).view(x.size(0), heads, -1) for kind, x in x_dict.items()}
    made: dict[str, list[Tensor]] = {kind: [] for kind in x_dict}
    for kind, edges in edge_index_dict.items():
        made[kind[2]].append(_of_edges(layer, kind, mapped, edges))
    del mapped
    found = {kind: _weighed(layer, parts) for kind, parts in made.items()}
    result = {kind: out for kind, (out, _) in found.items()}
    if return_semantic_attention_weights:
        return result, {kind: weights for kind, (_, weights) in found.items()}
    return result


def _of_edges(
    layer: Any, kind: tuple[str, str, str], mapped: dict[str, Tensor], edges: Any
) -> Tensor:
    """What one type of edges makes of its targets, float32 ``[N, C]``."""
    key = "__".join(kind)
    source, target = mapped[kind[0]], mapped[kind[2]]
    alpha = _scores(source, layer.lin_src[key]), _scores(target, layer.lin_dst[key])
    with indices_of(lambda: f"edges {kind!r} of "):
        made: Tensor = layer.propagate(edges, x=(source, target), alpha=alpha)
    return made.relu_()


def _scores(x: Tensor, vector: Tensor) -> Tensor:
    """``[N, H]`` of rows ``[N, H, D]``."""
    return torch.cat([(part * vector).sum(dim=-1) for part in x.split(_BLOCK)])


def _weighed(layer: Any, parts: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """The mean of what types of edges made, by attention, and their weights.

    Args:
        layer: The convolution.
        parts: float32 ``[N, C]`` each, which are overwritten.
    """
    if not parts:
        return None, None
    if not parts[0].numel():
        return parts[0], None
    keys = torch.stack([_mean_key(layer.k_lin, part) for part in parts])
    weights = torch.softmax((layer.q * keys).sum(-1), dim=0)
    first, *rest = (part.mul_(weight) for part, weight in zip(parts, weights, strict=True))
    for part in rest:
        first.add_(part)
    return first, weights


def _mean_key(linear: Any, rows: Tensor) -> Tensor:
    """``[C]``: the mean over rows of what the attention reads."""
    total = torch.zeros(rows.size(1), device=rows.device)
    for block in rows.split(_BLOCK):
        total = total + torch.tanh(linear(block)).sum(0)
    return total / rows.size(0)
