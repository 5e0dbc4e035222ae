"""Layer norms whose evaluation is added in a stated order (:mod:`nodebits.core.row_norm`).

torch's own sums are added as its vector library likes: no compiled step could repeat their bits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import LayerNorm as PyGLayerNorm
from torch_geometric.utils import scatter

from nodebits.core.row_norm import root, row_norm, row_sum
from nodebits.engine.pending import floats
from nodebits.nn.evaluation import evaluates


@evaluates(nn.LayerNorm)
class QuantLayerNorm(nn.LayerNorm):
    """``torch.nn.LayerNorm`` that evaluates norms of the last axis in a stated order."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises rows of ``normalized_shape``; see ``torch.nn.LayerNorm``."""
        x = floats(x, "layer_norm")
        if self.training or len(self.normalized_shape) != 1 or not _fits(x, self.weight):
            return super().forward(x)
        if x.shape[-1:] != torch.Size(self.normalized_shape):
            return super().forward(x)  # which has the words
        return row_norm(x, self.weight, self.bias, self.eps)


@evaluates(PyGLayerNorm)
class QuantPyGLayerNorm(PyGLayerNorm):  # type: ignore[misc]  # PyG has no types here
    """PyG's layer norm, of every node or of all nodes of a graph, in a stated order."""

    def forward(
        self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Normalises ``x`` ``[N, C]``; see ``torch_geometric.nn.LayerNorm``."""
        x = floats(x, "layer_norm")
        by_node = self.mode == "node"
        whole = self.mode == "graph" and batch is None
        fits = x.dim() == 2 and x.size(1) == self.in_channels and _fits(x, self.weight)
        if self.training or whole or not fits:
            return super().forward(x, batch, batch_size)  # type: ignore[no-any-return]
        if by_node:
            return row_norm(x, self.weight, self.bias, self.eps)
        assert batch is not None
        return self._of_graphs(x, batch, batch_size)

    def _of_graphs(self, x: Tensor, batch: Tensor, batch_size: int | None) -> Tensor:
        size = int(batch.max()) + 1 if batch_size is None else batch_size
        nodes = scatter(x.new_ones(x.size(0)), batch, 0, size, "sum")
        count = nodes.clamp(min=1).view(-1, 1) * x.size(1)
        x = x - (row_sum(scatter(x, batch, 0, size, "sum")) / count).index_select(0, batch)
        variance = row_sum(scatter(x * x, batch, 0, size, "sum")) / count
        made: Tensor = x / root(variance + self.eps).index_select(0, batch)
        if self.weight is not None and self.bias is not None:
            made = made * self.weight + self.bias
        return made


def _fits(x: Tensor, weight: Tensor | None) -> bool:
    """Whether the steps are defined: float32 rows."""
    return x.dtype == torch.float32 and (weight is None or weight.dtype == torch.float32)
