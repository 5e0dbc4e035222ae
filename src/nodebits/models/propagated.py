"""An MLP whose result is propagated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from nodebits.models.spec import ModelSpec


class PropagationModel(nn.Module):
    """``num_layers`` linears with ReLU between them, then ``steps`` of propagation."""

    def __init__(self, spec: ModelSpec, out_channels: int, propagation: nn.Module) -> None:
        super().__init__()
        widths = [
            spec.in_channels,
            *[spec.hidden_channels] * (spec.num_layers - 1),
            out_channels,
        ]
        self.lins = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)
        self.propagation = propagation

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        for layer, lin in enumerate(self.lins):
            x = lin(x if layer == 0 else self.dropout(self.act(x)))
        result: Tensor = self.propagation(x, edge_index)
        return result
