"""GPSConv (Rampášek et al. 2022): its attention looks at the rows of a graph, without padding."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.nn import GPSConv

from nodebits.engine.pending import floats
from nodebits.nn.evaluation import evaluates
from nodebits.nn.multihead_attention import QuantMultiheadAttention


@evaluates(GPSConv)
class QuantGPSConv(GPSConv):  # type: ignore[misc]  # PyG has no types here
    """PyG's layer, whose attention in evaluation runs graph by graph.

    PyG pads every graph of a batch to the largest one. Here maps are of nodes, and a node attends
    to those of its graph (:func:`nodebits.ops.graph_attention`): the same function, to rounding.
    """

    def forward(
        self, x: Tensor, edge_index: Any, batch: Tensor | None = None, **keywords: Any
    ) -> Tensor:
        """See ``torch_geometric.nn.GPSConv``; ``batch`` ascends."""
        x = floats(x, "a residual of GPSConv")
        attention = self.attn
        if (
            self.training
            or not isinstance(attention, QuantMultiheadAttention)
            or not attention.runs_by_graph(x)
        ):
            made: Tensor = super().forward(x, edge_index, batch, **keywords)
            return made
        parts = []
        if self.conv is not None:
            local = self.conv(x, edge_index, **keywords) + x
            parts.append(self._normed(self.norm1, local, batch))
        parts.append(self._normed(self.norm2, attention.by_graph(x, batch) + x, batch))
        out = sum(parts)
        return self._normed(self.norm3, out + self.mlp(out), batch)

    def _normed(self, norm: Any, x: Tensor, batch: Tensor | None) -> Tensor:
        if norm is None:
            return x
        made: Tensor = norm(x, batch=batch) if self.norm_with_batch else norm(x)
        return made
