"""A source of data: rings of nodes, one class per ring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nodebits.data.sources.base import Request, Source, register_source

if TYPE_CHECKING:
    from nodebits.data import Dataset


@register_source("rings")
class Rings(Source):
    """Rings with noisy features, made from the seed that --split gives."""

    def find(self, name: str, root: Path | None) -> str | None:
        """The one set of this source."""
        return "rings" if name.lower() == "rings" else None

    def load(self, request: Request) -> Dataset:
        """Makes the graph; torch is imported here, so that names are listed without it."""
        import torch
        from torch_geometric.data import Data

        from nodebits.data.base import node_dataset
        from nodebits.data.splits import per_class_masks

        generator = torch.Generator().manual_seed(request.seed())
        size, classes = 90, 3
        node = torch.arange(size * classes)
        following = node // size * size + (node + 1) % size
        edges = torch.stack([node, following])
        y = node // size
        x = torch.eye(classes)[y] + torch.randn(len(node), classes, generator=generator)
        data = Data(x=x, y=y, edge_index=torch.cat([edges, edges.flip(0)], 1))
        masks = per_class_masks(y, seed=request.seed())
        return node_dataset("rings", data, masks, f"Seed {request.seed()}.", "made")

    def names(self) -> dict[str, str]:
        """What can be asked for."""
        return {"rings": "3 rings of 90 nodes, made from a seed"}
