"""ChebConv (Defferrard et al. 2016): Chebyshev polynomials of the scaled Laplacian."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import ChebConv

from nodebits.core.errors import ConfigError, GraphError
from nodebits.core.file_fields import FLAG, SIZE, STEPS, Choice, Options
from nodebits.engine.pending import expect_sites
from nodebits.graph import Graph
from nodebits.graph.loops import EDGE_INDEX
from nodebits.nn.conv import is_stack, weighed_rows
from nodebits.nn.functional import aggregate
from nodebits.nn.linear import QuantLinear, requantize
from nodebits.nn.placement import Placement
from nodebits.nn.propagation import Propagation, observed, show_state
from nodebits.nn.registry import register_layer


class _Laplacian(NamedTuple):
    """``L_hat x = diagonal * x + target * A (source * x)``.

    Attributes:
        graph: A, without loops.
        source: float32 ``[N]``, the factor before rows are rounded; None for 1.
        target: float32 ``[N]``, the factor of a sum, not above zero.
        diagonal: float32 ``[N, 1]``; None for 0.
    """

    graph: Graph
    source: Tensor | None
    target: Tensor
    diagonal: Tensor | None


@register_layer(ChebConv)
class QuantChebConv(Propagation):
    """``sum_k lin_k(T_k)``: ``T_0 = x``, ``T_1 = L_hat x``, ``T_k = 2 L_hat T_{k-1} - T_{k-2}``.

    ``L_hat = 2 L / lambda_max - I``. What it has beside its diagonal is an integer sum between two
    factors of nodes, so edges without weights need no codes.
    """

    layer_type = "ChebConv"
    maps_floats = True  # a polynomial is a difference of two rows
    options: ClassVar[Options] = {
        "steps": STEPS,
        "normalization": Choice((None, "sym", "rw")),
        "out_channels": SIZE,
        "bias": FLAG,
    }
    derived_options: ClassVar = {"steps": lambda module: len(module.lins) - 1}
    own_values: ClassVar = {"bias": lambda layer: (layer.out_channels,)}
    normalization: str | None
    in_channels: int
    out_channels: int
    lins: Any
    bias: nn.Parameter | None

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        if cls.derived_options["steps"](module) < 1:
            return "it has no step"
        return super().unsupported(module)

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_steps(place, path, self.in_channels)

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        lambda_max: Any = None,
    ) -> Tensor:
        """Convolves.

        Args:
            x: float32 ``[*, N, C]``.
            edge_index: int64 ``[2, E]``, or a prepared graph.
            edge_weight: float ``[E]`` or None.
            batch: int64 ``[N]``, the graph of every node.
            lambda_max: The largest eigenvalue of the Laplacian, a number or one for each graph.

        Returns:
            float32 ``[*, N, M]``.

        Raises:
            ConfigError: If ``lambda_max`` is a number that is not above 0.
            GraphError: On a matrix, which PyG's layer does not take, and if weights at a node sum
                to less than 0.
        """
        if is_stack(x):
            if batch is None and lambda_max is None:
                return self.over_stack(x, edge_index, edge_weight)
            more = edge_index, edge_weight, batch, lambda_max
            parts = [self.forward(part, *more) for part in x.flatten(0, -3)]
            stacked: Tensor = torch.stack(parts).unflatten(0, x.shape[:-2])
            return stacked
        x, graph = self.enter(x, edge_index, edge_weight)
        if graph.form != EDGE_INDEX:
            raise GraphError(
                f"{self.described} takes edges, not a matrix: pass edge_index and edge_weight"
            )
        with self.layer_scope(graph):
            laplacian = self._laplacian(graph, batch, lambda_max)
            out: Tensor = self.lins[0](x)
            before, now = x, x
            for step, linear in enumerate(self.lins[1:]):
                before, now = now, self._next(laplacian, step, now, before)
                out = out + linear(now)
            return requantize(self.output, out if self.bias is None else out + self.bias)

    def _next(self, laplacian: _Laplacian, step: int, x: Tensor, before: Tensor) -> Tensor:
        """``T_{step+1}`` of ``T_step`` and the one before."""
        graph, source, target, diagonal = laplacian
        # Only codes of a first polynomial are read that nothing is added to, now or later.
        alone = step == 0 and diagonal is None and self.steps <= 2
        layer = self if alone and not observed() else None
        # Hubs that many hear of and that hear few have the largest rows.
        site = self.site("message", step)
        rows, edges = weighed_rows(self, site, x, graph, source, uneven=True)
        out = aggregate(rows, graph, edges, target if step == 0 else 2.0 * target, layer=layer)
        if layer is not None:
            readers, factors = self._readers(step + 1, source)
            expect_sites(out, readers, factors)
        if diagonal is not None:
            out = out + (diagonal if step == 0 else 2.0 * diagonal) * x
        if step > 0:
            out = out - before
        show_state(out)
        return out

    def _readers(self, power: int, source: Tensor | None) -> tuple[list[Any], list[Any]]:
        """Who reads a polynomial: its map, and the next step."""
        linear = self.lins[power]
        sites = [linear.input] if isinstance(linear, QuantLinear) else []
        factors: list[Any] = [None] * len(sites)
        if power < self.steps:
            sites.append(self.site("message", power))
            factors.append(source)
        return sites, factors

    def _laplacian(self, graph: Graph, batch: Tensor | None, lambda_max: Any) -> _Laplacian:
        graph = graph.with_self_loops(0)  # those that were there are gone
        degree = graph.source_degree
        ones = torch.ones_like(degree)
        factor, own = self._factor(graph, degree), degree if self.normalization is None else ones
        scale = self._scale(graph, factor, own, batch, lambda_max)
        target = -factor if factor is not None and self.normalization == "sym" else -ones
        if scale is None:
            return _Laplacian(graph, factor, target, None)
        source = scale * (ones if factor is None else factor)
        return _Laplacian(graph, source, target, (scale * own - 1.0).view(-1, 1))

    def _factor(self, graph: Graph, degree: Tensor) -> Tensor | None:
        """``d^-1/2`` or ``d^-1``, 0 where d is 0; None where nothing is normalized."""
        if self.normalization is None:
            return None
        if graph.signed and degree.numel() and float(degree.detach().min()) < 0:
            node = int(degree.argmin())
            raise GraphError(
                f"{self.described}: the weights of the edges from node {node} sum to "
                f"{float(degree[node]):.6g}, and its normalization needs 0 or more"
            )
        root = self.normalization == "sym"
        return torch.where(degree > 0, degree.rsqrt() if root else degree.reciprocal(), 0.0)

    def _scale(
        self,
        graph: Graph,
        factor: Tensor | None,
        own: Tensor,
        batch: Tensor | None,
        lambda_max: Any,
    ) -> Tensor | None:
        """``2 / lambda_max``, float32 ``[1]`` or ``[N]``; None where ``L_hat`` has no diagonal.

        By default ``lambda_max`` is twice the largest entry of L, as PyG takes it. Where all of L
        is 0, ``L_hat`` is ``-I`` for any ``lambda_max``, which PyG makes NaN.
        """
        if lambda_max is not None:
            if not isinstance(lambda_max, Tensor):
                if not 0.0 < float(lambda_max) < math.inf:
                    raise ConfigError(
                        f"{self.described}: lambda_max is {lambda_max}, and the Laplacian is "
                        "divided by it: pass its largest eigenvalue, above 0"
                    )
                lambda_max = own.new_full((1,), float(lambda_max))
            found: Tensor = 2.0 / lambda_max.float().view(-1)
            return found[batch] if batch is not None and found.numel() > 1 else found
        if factor is not None and not (graph.signed and graph.num_src):
            return None  # all entries on the diagonal are 1, and none is larger
        largest = own.amax(0, True) if graph.num_src else own.new_ones(1)
        if graph.signed:
            assert graph.edge_weight is not None
            entries = -graph.edge_weight
            if factor is not None:
                entries = entries * factor[graph.indices]
                entries = entries * factor[graph.rows] if self.normalization == "sym" else entries
            largest = torch.maximum(largest, entries.amax(0, True))
        return torch.where(largest > 0, 1.0 / largest, 0.0)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"steps={self.steps}, normalization={self.normalization}"
