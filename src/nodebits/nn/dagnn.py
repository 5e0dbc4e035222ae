"""DAGNN (Liu, Gao and Ji 2020): powers of the adjacency, weighted by a gate per node."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from nodebits.core.file_fields import SIZE, STEPS, Options
from nodebits.nn.linear import requantize
from nodebits.nn.placement import Placement
from nodebits.nn.propagation import Propagation, show_state
from nodebits.nn.registry import register_layer


def _gated(x: Tensor, gate: Tensor, bias: Tensor) -> Tensor:
    # A sum per row, in one order for any number of threads; a matrix product promises none.
    return x * torch.sigmoid((x * gate).sum(1, keepdim=True) + bias)


class DAGNNConv(MessagePassing):  # type: ignore[misc]  # PyG has no types
    """``sum_k sigmoid(H_k w + b) H_k`` with ``H_k = A_hat^k H``, k = 0 .. K.

    Args:
        channels: Columns.
        K: Steps.
    """

    def __init__(self, channels: int, K: int) -> None:
        super().__init__(aggr="add")
        self.channels, self.K = channels, K
        self.gate = nn.Parameter(torch.empty(channels))
        self.gate_bias = nn.Parameter(torch.zeros(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the gate anew."""
        super().reset_parameters()
        _reset_gate(self.gate, self.gate_bias)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Propagates float32 ``[N, channels]``."""
        edge_index, edge_weight = gcn_norm(edge_index, edge_weight, x.size(0), dtype=x.dtype)
        out = _gated(x, self.gate, self.gate_bias)
        for _ in range(self.K):
            x = self.propagate(edge_index, x=x, edge_weight=edge_weight)
            out = out + _gated(x, self.gate, self.gate_bias)
        return out

    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        """PyG's hook: the weighted row of a source."""
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j


def _reset_gate(gate: Tensor, bias: Tensor) -> None:
    nn.init.uniform_(gate, -(gate.numel() ** -0.5), gate.numel() ** -0.5)
    nn.init.zeros_(bias)


@register_layer(DAGNNConv)
class QuantDAGNNConv(Propagation):
    """:class:`DAGNNConv` on codes. The gate, one number per column, stays in float like a bias."""

    layer_type = "DAGNNConv"
    options: ClassVar[Options] = {"channels": SIZE, "steps": STEPS}
    own_values: ClassVar = {"gate": lambda layer: (layer.channels,), "gate_bias": lambda _: (1,)}
    channels: int
    gate: Tensor
    gate_bias: Tensor

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_steps(place, path, self.channels)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Propagates.

        Args:
            x: float32 ``[N, channels]``.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[N, channels]``.
        """
        x, graph = self.enter(x, edge_index, edge_weight)
        with self.layer_scope(graph):
            operator = self.operator(graph)
            out = _gated(x, self.gate, self.gate_bias)
            for step in range(self.steps):
                x = operator(self.site("message", step), x)
                out = out + _gated(x, self.gate, self.gate_bias)
                show_state(x)
            return requantize(self.output, out)
