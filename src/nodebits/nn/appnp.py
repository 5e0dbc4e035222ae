"""APPNP (Gasteiger et al. 2019): personalised PageRank steps on packed messages."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch_geometric.nn import APPNP

from nodebits.core.file_fields import FLAG, STEPS, Number, Options
from nodebits.nn.conv import is_stack
from nodebits.nn.linear import requantize
from nodebits.nn.placement import UNKNOWN_COLUMNS, Placement
from nodebits.nn.propagation import Propagation, show_state
from nodebits.nn.registry import register_layer


@register_layer(APPNP)
class QuantAPPNP(Propagation):
    """``x_{k+1} = (1 - alpha) A_hat Q_k(x_k) + alpha x_0``, K steps without parameters.

    Only messages are codes. The state ``x_k`` is never stored: each step reads ``x_0``, which stays
    float32, and writes the next step's codes. An error of a step is damped by ``1 - alpha`` in
    every later one, since the norm of ``A_hat`` is at most 1.

    A module with an attribute ``channels`` (PyG's has none) learns ranges per column.
    """

    layer_type = "APPNP"
    options: ClassVar[Options] = {
        "steps": STEPS,
        "alpha": Number(),
        "add_self_loops": FLAG,
        "normalize": FLAG,
    }
    alpha: float

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_steps(place, path, getattr(self, "channels", UNKNOWN_COLUMNS))

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Propagates.

        Args:
            x: float32 ``[*, N, C]``.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[*, N, C]``.
        """
        if is_stack(x):
            return self.over_stack(x, edge_index, edge_weight)
        x, graph = self.enter(x, edge_index, edge_weight)
        with self.layer_scope(graph):
            operator = self.operator(graph)
            packed = self.run_packed(operator, x, self.alpha, [0.0] * self.steps)
            if packed is not None:
                return requantize(self.output, packed)
            teleport = self.alpha * x
            for step in range(self.steps):
                x = operator(self.site("message", step), x) * (1 - self.alpha) + teleport
                show_state(x)
            return requantize(self.output, x)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"steps={self.steps}, alpha={self.alpha}"
