"""GINConv (Xu et al. 2019): the neighbour sum and the node's own term from the same codes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, GINConv

from nodebits.core.affine import Codes
from nodebits.core.fields import FLAG, Options
from nodebits.nn.conv import QuantConv, conv_graph, split_pair
from nodebits.nn.functional import aggregate, quantize_rows
from nodebits.nn.layer import Placement, register_layer
from nodebits.nn.linear import QuantLinear, requantize
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.rows import RowQuantizer


@register_layer(GINConv)
class QuantGINConv(QuantConv):
    """``out_i = MLP((1 + eps) Q(x_i) + sum_j Q(x_j))``; the MLP's linears have own sites."""

    layer_type = "GINConv"
    options: ClassVar[Options] = {"train_eps": FLAG}
    eps: Tensor

    def __init__(self, train_eps: bool = False) -> None:
        super().__init__()
        self.train_eps = train_eps
        self.nn: nn.Module = nn.Identity()
        if train_eps:
            self.eps = nn.Parameter(torch.zeros(1))
        else:
            self.register_buffer("eps", torch.zeros(1))

    @classmethod
    def from_float(cls, module: Any, path: str, place: Placement) -> QuantGINConv:
        """See :meth:`QuantLayer.from_float`."""
        layer = cls(isinstance(module.eps, nn.Parameter))
        layer.nn, layer.eps = module.nn, module.eps
        layer.initial_eps = module.initial_eps
        width = _input_width(module.nn)
        layer.place_sites(place, path, width, width)
        return layer

    initial_eps: float = 0.0

    def forward(self, x: Any, edge_index: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[N, C]``, packed rows, or a pair ``(x_src, x_dst)``.
            edge_index: Any adjacency form.
            size: ``(num_src, num_dst)`` where ``x_dst`` is None.

        Returns:
            What ``nn`` returns for ``[num_dst, C]``.
        """
        source, target, num_src, num_dst = split_pair(x)
        graph = conv_graph(edge_index, num_src, num_dst, size=size)
        with self.layer_scope(graph):
            rows = quantize_rows(self.message, source)

            def combine() -> Tensor:
                if target is None:
                    return aggregate(rows, graph, layer=self)
                own = rows if target is source else quantize_rows(self.message, target)
                return aggregate(rows, graph, own=own, own_factor=1 + self.eps, layer=self)

            if isinstance(rows, Codes) and target is source and not self.train_eps:
                # Raw features: a constant, which lets the MLP's first site keep its codes too.
                key = ("gin", id(self), self.eps._version)
                out = graph.cached_for(rows.codes, key, combine)
            else:
                out = combine()
            result: Tensor = self.nn(requantize(self.output, out))
            return result

    def fold_affine(self, scale: Tensor, shift: Tensor) -> bool:
        """See :meth:`QuantLayer.fold_affine`: into the linear that ends the MLP, if any."""
        last = last_module(self.nn)
        return isinstance(last, QuantLinear) and last.fold_affine(scale, shift)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        """See :meth:`QuantLayer.input_sites`."""
        return [self.message]

    def config(self) -> dict[str, Any]:
        """See :meth:`QuantLayer.config`."""
        return {"train_eps": self.train_eps}

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantGINConv:
        """See :meth:`QuantLayer.build`."""
        return cls(**config)

    def adopt(self, module: Any) -> None:
        """See :meth:`QuantLayer.adopt`."""
        self.nn = module.nn

    def reset_parameters(self) -> None:
        """Draws the MLP's parameters anew and forgets ranges."""
        super().reset_parameters()
        for child in self.nn.modules():
            reset = getattr(child, "reset_parameters", None)
            if callable(reset):
                reset()
        with torch.no_grad():
            self.eps.fill_(self.initial_eps)


def last_module(module: nn.Module) -> nn.Module | None:
    """The module whose result ``module`` returns, where that is plain to see."""
    if isinstance(module, nn.Sequential):
        return last_module(module[-1]) if len(module) else None
    if isinstance(module, MLP):
        return list(module.lins)[-1] if module.plain_last else None
    return module


def _input_width(module: nn.Module) -> int:
    """Columns of the first linear map inside ``module``; 0 where there is none."""
    for child in module.modules():
        width = getattr(child, "in_channels", getattr(child, "in_features", None))
        if isinstance(width, int) and width > 0:
            return width
    return 0
