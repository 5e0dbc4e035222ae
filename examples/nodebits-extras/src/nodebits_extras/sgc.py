"""A model: SGC, one linear map behind the sums of two steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import APPNP

from nodebits.models import ModelSpec, register_model
from nodebits.models.recipe import NODE


class SGC(nn.Module):
    """``lin(A_hat^K x)``; the sums are those of APPNP without a teleport."""

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(spec.in_channels, out_channels)
        self.propagation = APPNP(spec.steps, 0.0)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        result: Tensor = self.propagation(self.lin(x), edge_index)
        return result


@register_model("sgc", node=replace(NODE, layers=1, dropout=0.0))
def sgc(spec: ModelSpec, out_channels: int) -> nn.Module:
    """A linear map and sums without a nonlinearity (Wu et al. 2019)."""
    return SGC(spec, out_channels)
