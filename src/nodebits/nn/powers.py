"""Layers that map powers of the normalised adjacency: SG, SSG, TAG, MixHop, and LightGCN's step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import LGConv, MixHopConv, SGConv, SSGConv, TAGConv

from nodebits.core.file_fields import FLAG, SIZE, STEPS, ListOf, Number, Options
from nodebits.engine.pending import expect_sites
from nodebits.graph import Graph
from nodebits.nn.conv import is_stack
from nodebits.nn.linear import QuantLinear, requantize
from nodebits.nn.placement import UNKNOWN_COLUMNS, Placement
from nodebits.nn.propagation import Operator, Propagation, show_state
from nodebits.nn.registry import register_layer


class _Powers(Propagation):
    """Base: ``x_k = A_hat Q_k(x_{k-1})``, and what a layer makes of them."""

    own_values: ClassVar = {}

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        if cls.derived_options["steps"](module) < 1:
            return "it has no step"
        if not getattr(module, "normalize", True):  # whose rows may have no scale in common
            return "its adjacency is not normalized"
        return super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_steps(place, path, getattr(self, "in_channels", UNKNOWN_COLUMNS))

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[*, N, M]``.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, edge_weight)
        x, graph = self.enter(x, edge_index, edge_weight)
        with self.layer_scope(graph):
            return requantize(self.output, self.made_of(x, graph))

    def made_of(self, x: Tensor, graph: Graph) -> Tensor:
        """The result, from features and a graph."""
        raise NotImplementedError

    def each_power(self, x: Tensor, operator: Operator) -> Iterator[Tensor]:
        """``x_1`` to ``x_K``.

        Where only codes of a power are read, by its map and by the next step, both are written in
        one pass and the power itself is not.
        """
        for step in range(self.steps):
            readers = self.readers(step + 1)
            x = operator(self.site("message", step), x, readers is not None)
            if readers is not None:
                more = [self.site("message", step + 1)] if step + 1 < self.steps else []
                factors = [None] * len(readers) + [operator.factor] * len(more)
                expect_sites(x, [*readers, *more], factors)
            show_state(x)
            yield x

    def readers(self, power: int) -> list[Any] | None:
        """Sites beside the next step's that read ``x_power``; None where its floats are read."""
        return None


def _inputs(linear: nn.Module) -> list[Any] | None:
    """The site of a map on integers; None of one in float."""
    return [linear.input] if isinstance(linear, QuantLinear) else None


@register_layer(SGConv)
class QuantSGConv(_Powers):
    """``lin(A_hat^K x)`` (Wu et al. 2019)."""

    layer_type = "SGConv"
    options: ClassVar[Options] = {"steps": STEPS, "add_self_loops": FLAG, "cached": FLAG}
    lin: QuantLinear

    def made_of(self, x: Tensor, graph: Graph) -> Tensor:
        *_, power = self.each_power(x, self.operator(graph))
        out: Tensor = self.lin(power)
        return out

    def readers(self, power: int) -> list[Any] | None:
        return _inputs(self.lin) if power == self.steps else []


@register_layer(SSGConv)
class QuantSSGConv(_Powers):
    """``lin(alpha x + (1 - alpha) / K sum_k A_hat^k x)`` (Zhu and Koniusz 2021)."""

    layer_type = "SSGConv"
    options: ClassVar[Options] = {
        "steps": STEPS,
        "alpha": Number(),
        "add_self_loops": FLAG,
        "cached": FLAG,
    }
    alpha: float
    lin: QuantLinear

    def made_of(self, x: Tensor, graph: Graph) -> Tensor:
        out = x * self.alpha
        for power in self.each_power(x, self.operator(graph)):
            out = out + (1 - self.alpha) / self.steps * power
        mapped: Tensor = self.lin(out)
        return mapped


@register_layer(TAGConv)
class QuantTAGConv(_Powers):
    """``sum_k lin_k(A_hat^k x)`` without loops (Du et al. 2017)."""

    layer_type = "TAGConv"
    options: ClassVar[Options] = {
        "steps": STEPS,
        "normalize": FLAG,
        "out_channels": SIZE,
        "bias": FLAG,
    }
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    add_self_loops = False
    out_channels: int
    lins: Any
    bias: nn.Parameter | None

    def made_of(self, x: Tensor, graph: Graph) -> Tensor:
        # The products are added in one call, which reads all powers. What the first step packs its
        # rows with is made before the first map reads them, so both are packed in one pass.
        powers = self.each_power(x, self.operator(graph))
        out: Tensor = self.lins[0](x)
        for linear, power in zip(self.lins[1:], powers, strict=True):
            out = out + linear(power)
        return out if self.bias is None else out + self.bias

    def readers(self, power: int) -> list[Any] | None:
        return _inputs(self.lins[power])


@register_layer(MixHopConv)
class QuantMixHopConv(_Powers):
    """``lin_p(A_hat^p x)`` for some powers p, side by side (Abu-El-Haija et al. 2019)."""

    layer_type = "MixHopConv"
    options: ClassVar[Options] = {
        "steps": STEPS,
        "add_self_loops": FLAG,
        "out_channels": SIZE,
        "powers_kept": ListOf(SIZE),
        "bias": FLAG,
    }
    derived_options: ClassVar = {
        "steps": lambda module: max(module.powers),
        "powers_kept": lambda module: list(module.powers),
    }
    own_values: ClassVar = {
        "bias": lambda layer: (len(layer.powers_kept) * layer.out_channels,),
    }
    out_channels: int
    powers_kept: list[int]
    lins: Any
    bias: nn.Parameter | None

    def made_of(self, x: Tensor, graph: Graph) -> Tensor:
        powers = self.each_power(x, self.operator(graph))
        found = {0: self.lins[0](x)} if 0 in self.powers_kept else {}
        for at, power in enumerate(powers, 1):
            if at in self.powers_kept:
                found[at] = self.lins[at](power)
        out = torch.cat([found[at] for at in self.powers_kept], 1)
        return out if self.bias is None else out + self.bias

    def readers(self, power: int) -> list[Any] | None:
        return _inputs(self.lins[power]) if power in self.powers_kept else []


@register_layer(LGConv)
class QuantLGConv(_Powers):
    """``A_hat x`` without loops and maps (He et al. 2020)."""

    layer_type = "LGConv"
    options: ClassVar[Options] = {"steps": STEPS, "normalize": FLAG}
    derived_options: ClassVar = {"steps": lambda _: 1}
    add_self_loops = False

    def made_of(self, x: Tensor, graph: Graph) -> Tensor:
        *_, power = self.each_power(x, self.operator(graph))
        return power

    def readers(self, power: int) -> list[Any] | None:
        return []  # whoever comes next
