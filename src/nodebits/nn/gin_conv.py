"""GINConv (Xu et al. 2019): the neighbour sum and the node's own term from the same codes."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import Module, Parameter
from torch_geometric.nn import GINConv
from torch_geometric.nn.models import MLP

from nodebits.core.file_fields import FLAG, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.conv import (
    QuantConv,
    check_width,
    edge_codes,
    is_stack,
    split_pair,
)
from nodebits.nn.functional import aggregate, dequantize_rows, quantize_rows
from nodebits.nn.linear import requantize, width_of
from nodebits.nn.placement import Placement
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer


@register_layer(GINConv)
class QuantGINConv(QuantConv):
    """``out_i = MLP((1 + eps) Q(x_i) + sum_j Q(x_j))``; the MLP's linears have own sites.

    Targets that are not the sources have a range of their own, at ``message_dst``.
    """

    layer_type = "GINConv"
    options: ClassVar[Options] = {"train_eps": FLAG}
    derived_options: ClassVar = {"train_eps": lambda module: isinstance(module.eps, Parameter)}
    optional_sites: ClassVar[tuple[str, ...]] = ("attention", "message_dst")
    eps: Tensor
    nn: Module
    train_eps: bool

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_sites(place, path, self.width, self.width, edges=True)
        self.place_target(place, path, "message", self.width)

    def _take(self, module: Module) -> None:
        super()._take(module)
        self.width = _first_width(self.nn)

    @classmethod
    def aggregated_channels(cls, module: Any) -> int | None:
        return _first_width(module.nn) or None

    @classmethod
    def reads_sums(cls, module: Any) -> Module | None:
        return _first_map(module.nn)

    def forward(self, x: Any, edge_index: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form; values of a ``torch.sparse`` matrix weigh the sum.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            What ``nn`` returns for ``[num_dst, C]``.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, size=size)
        source, target, num_src, num_dst = split_pair(x, self)
        check_width(source, self.width, self)
        check_width(target, self.width, self)
        graph = self.with_values(self.graph_of(edge_index, num_src, num_dst, size=size))
        with self.layer_scope(graph):
            rows = quantize_rows(self.message, source)
            edges = edge_codes(self, graph) if graph.edge_weight is not None else None

            def combine() -> Tensor:
                if target is None:
                    return aggregate(rows, graph, edges, layer=self)
                factor = 1 + self.eps
                if target is source and edges is None:
                    return aggregate(rows, graph, own=rows, own_factor=factor, layer=self)
                own = rows
                if target is not source:
                    # Files of older versions have no site for targets.
                    own = quantize_rows(getattr(self, "message_dst", self.message), target)
                return aggregate(rows, graph, edges) + factor * dequantize_rows(own)

            constant = target is source and not self.train_eps and edges is None
            if isinstance(self.message, Quantizer) and constant:
                # Raw features: a constant, which lets the MLP's first site keep its codes too.
                key = ("gin", id(self), self.eps._version)
                codes = rows.float_codes()
                out = graph.cached_for(codes, key, combine, not rows.is_float)
            else:
                out = combine()
            result: Tensor = self.nn(requantize(self.output, self.prompted(out)))
            return result

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.message]


def _first_map(mlp: Module) -> Module | None:
    """The first linear map of an MLP, None where there is none.

    PyG's own ``MLP`` says a width too, but holds maps and is none.
    """
    maps = (module for module in mlp.modules() if not isinstance(module, MLP))
    return next((module for module in maps if width_of(module) > 0), None)


def _first_width(mlp: Module) -> int:
    """Columns that the first linear map of an MLP reads, 0 where there is none."""
    first = _first_map(mlp)
    return 0 if first is None else width_of(first)
