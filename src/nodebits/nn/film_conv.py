"""FiLMConv (Brockschmidt 2020): targets stretch and move what they hear, relation by relation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import FiLMConv

from nodebits.core.errors import ShapeError
from nodebits.core.file_fields import SIZE, Choice, Options
from nodebits.engine.pending import expect_sites, settle
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import QuantConv, split_pair
from nodebits.nn.functional import quantize_rows
from nodebits.nn.linear import input_sites_of, requantize
from nodebits.nn.modulation import modulated_sum
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.relations import by_relation

_RELUS = (torch.relu, Tensor.relu, nn.functional.relu)


@register_layer(FiLMConv)
class QuantFiLMConv(QuantConv):
    """``out_i = skip(x_i) + sum_r mean_j relu(gamma_i Q(W_r x_j) + beta_i)``.

    ``gamma`` and ``beta`` are maps of the target; rows of all relations pass the site ``message``.
    What is above zero is added as codes, see :func:`nodebits.ops.modulated_sum`.
    """

    layer_type = "FiLMConv"
    aggregations = ("add", "sum", "mean")
    options: ClassVar[Options] = {
        "out_channels": SIZE,
        "num_relations": SIZE,
        "aggr": Choice(aggregations),
    }
    absent_sites = ("attention", "message_dst")
    lins: Any
    films: Any
    lin_skip: Any
    film_skip: Any
    act: Any
    out_channels: int
    num_relations: int
    aggr: str

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        act = getattr(module, "act", None)
        if act is not None and type(act) is not nn.ReLU and act not in _RELUS:
            return "its activation is no ReLU"
        return super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.out_channels, self.out_channels)
        self.message = place.activation(
            SiteInfo(path, self.layer_type, "message", "message", self.out_channels, pairs=True)
        )

    def forward(self, x: Any, edge_index: Any, edge_type: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form, without weights.
            edge_type: int64 ``[E]``, the relation of every edge, where there are several.

        Returns:
            float32 ``[num_dst, out_channels]``.

        Raises:
            ShapeError: If there are no rows of targets.
            GraphError: If there are no relations, or not one for every edge.
        """
        source, target, num_src, num_dst = split_pair(x, self)
        if target is None:
            raise ShapeError(f"layer {self.described} got no rows of targets, which it reads")
        graph = self.graph_of(edge_index, num_src, num_dst)
        if self.num_relations > 1:
            parts = by_relation(self, graph, edge_type, self.num_relations)
        else:
            parts = [graph.topology()]
        with self.layer_scope(graph):
            expect_sites(x, self.input_sites())
            own = settle(self.lin_skip(target))
            # What follows works row by row: a plan runs it on a few rows at a time.
            beta, gamma = self.film_skip(target).split(self.out_channels, dim=-1)
            out = gamma * own + beta
            if self.act is not None:
                out = self.act(out)
            for part, linear, film in zip(parts, self.lins, self.films, strict=True):
                rows = quantize_rows(self.message, linear(source))
                out = out + modulated_sum(
                    rows,
                    part,
                    settle(film(target)),
                    rectified=self.act is not None,
                    mean=self.aggr == "mean",
                    name="message",
                )
            return requantize(self.output, out)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return input_sites_of(*self.lins, *self.films, self.lin_skip, self.film_skip)
