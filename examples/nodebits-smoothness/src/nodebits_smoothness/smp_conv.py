"""Smoothness-aware message propagation (Wang et al., CIKM 2023): APPNP under a constraint.

Each step descends on ``1/2 |F - H|^2 + mu/2 tr(F^T L F)``, ``L = I - A_hat``, which for the step
size ``1/(1+mu) = alpha`` is a step of APPNP, ``F_bar = (1-alpha) A_hat F + alpha H``. The
constraint bounds how much the difference between neighbours may change in a step,
``g = tolerance |E| - s^2 - tr(D^T L D) >= 0`` with ``D = F_bar - F``, and is enforced by a
multiplier that ascends while the state descends (Platt and Barr 1987)::

    F'      = F_bar + c O D,   c = 2 alpha lambda   (basic)
                               c = 2 alpha (lambda + damping g)   (modified)
    s'      = s + 2 eta_s lambda s
    lambda' = lambda + eta_lambda g

``O`` is L where the Lagrangian is followed, and A_hat in the authors' release. ``A_hat D`` serves
both the trace, ``tr(D^T L D) = <D, D> - <D, A_hat D>``, and the correction: one neighbour sum more
than APPNP. ``c`` is bounded, since large logits make the recursion diverge otherwise.

In training the multipliers run as above. Their coefficients are kept, as ranges are, and used in
evaluation: inference needs no reduction over the graph, and a step with coefficient zero needs no
second sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.nn import APPNP
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from nodebits.core.distributed import sum_over_ranks, world_size
from nodebits.core.errors import ConfigError
from nodebits.core.file_fields import STEPS, Choice, Number, Options, Table
from nodebits.engine.loaded import check_values
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import requantize
from nodebits.nn.placement import Placement
from nodebits.nn.propagation import Propagation, show_state
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.registry import register_layer

OPERATORS = ("adjacency", "laplacian")
MULTIPLIERS = ("none", "basic", "modified")


@dataclass(frozen=True)
class SmoothnessConstraint:
    """How the change of a step is held back.

    Attributes:
        operator: ``"adjacency"`` (the release) or ``"laplacian"`` (the Lagrangian).
        multiplier: ``"none"`` (APPNP), ``"basic"`` or ``"modified"`` differential method.
        tolerance: Change allowed per entry of A_hat; published 0.1 (float), 1e-5 (8 and 4 bits),
            1e-4 (2 bits).
        rate: eta_lambda, the multiplier's step.
        slack_rate: eta_s, the slack's step.
        damping: Weight of the violation itself in the modified method.
        start: Initial multiplier and slack.
        bound: Largest absolute coefficient.
    """

    operator: str = "adjacency"
    multiplier: str = "basic"
    tolerance: float = 0.1
    rate: float = 1e-5
    slack_rate: float = 1e-5
    damping: float = 1e-5
    start: float = 1e-3
    bound: float = 0.5

    def __post_init__(self) -> None:
        """Checks names and signs.

        Raises:
            ConfigError: Names the field.
        """
        for name, choices in (("operator", OPERATORS), ("multiplier", MULTIPLIERS)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}: use one of {', '.join(choices)}"
                )
        for name in ("tolerance", "rate", "slack_rate", "damping", "bound"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")


class _Multiplier:
    """The multiplier and the slack of one forward; both are scalars without gradient."""

    def __init__(self, constraint: SmoothnessConstraint, alpha: float, num_edges: int) -> None:
        self.constraint, self.alpha = constraint, alpha
        self.allowed = constraint.tolerance * num_edges
        self.value, self.slack = constraint.start, constraint.start
        if constraint.rate == 0:
            self.value = 0.0

    @torch.no_grad()
    def advance(self, change: Tensor, spread: Tensor) -> float:
        """Coefficient of this step; then the multiplier's own step."""
        c, two = self.constraint, 2 * self.alpha
        roughness = float((change * (change - spread)).sum())
        violation = self.allowed - self.slack**2 - roughness
        push = self.value + (c.damping * violation if c.multiplier == "modified" else 0.0)
        self.slack += 2 * c.slack_rate * self.value * self.slack
        limit = c.bound / two  # a bounded multiplier does not wind up behind a bounded step
        self.value = min(max(self.value + c.rate * violation, -limit), limit)
        return min(max(two * push, -c.bound), c.bound)


def smooth_steps(
    x: Tensor,
    alpha: float,
    constraint: SmoothnessConstraint,
    coefficients: Tensor,
    num_edges: int,
    learning: bool,
    neighbor_sum: Callable[[str, int, Tensor], Tensor],
) -> Tensor:
    """The recursion above.

    Args:
        x: H, float32 ``[N, C]``.
        alpha: Teleport.
        constraint: Constants of the multiplier.
        coefficients: float32 ``[K]``; written where ``learning``.
        num_edges: Entries of A_hat.
        learning: Whether the multipliers run.
        neighbor_sum: ``A_hat x`` for a site name, a step and ``x``.

    Returns:
        float32 ``[N, C]``.
    """
    teleport = alpha * x
    multiplier = _Multiplier(constraint, alpha, num_edges)
    known = coefficients.tolist()
    found = []
    for step in range(len(known)):
        stepped = neighbor_sum("message", step, x) * (1 - alpha) + teleport
        if constraint.multiplier != "none" and (learning or known[step] != 0.0):
            change = stepped - x
            spread = neighbor_sum("gap", step, change)
            weight = multiplier.advance(change, spread) if learning else known[step]
            found.append(weight)
            direction = spread if constraint.operator == "adjacency" else change - spread
            stepped = stepped + direction * weight
        x = stepped
        show_state(x)
    if learning and found:
        coefficients.copy_(sum_over_ranks(torch.tensor(found)) / world_size())
    return x


class SMPConv(APPNP):  # type: ignore[misc]  # PyG has no types
    """The propagation in float, for any PyG model; parameters as in PyG's ``APPNP``.

    Args:
        K: Steps.
        alpha: Teleport probability, ``1 / (1 + mu)``.
        channels: Columns it will propagate, for ranges per column; 0 if unknown.
        constraint: Constants of the multiplier.
    """

    coefficients: Tensor

    def __init__(
        self,
        K: int,
        alpha: float,
        channels: int = 0,
        constraint: SmoothnessConstraint | None = None,
    ) -> None:
        super().__init__(K, alpha)
        self.channels = channels
        self.constraint = constraint or SmoothnessConstraint()
        self.register_buffer("coefficients", torch.zeros(K))

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Propagates float32 ``[N, C]``."""
        if isinstance(edge_index, Tensor) and edge_index.layout == torch.strided:
            edge_index, edge_weight = gcn_norm(
                edge_index, edge_weight, x.size(0), dtype=x.dtype, flow=self.flow
            )
            entries = edge_index.size(1)
        else:
            edge_index, edge_weight = gcn_norm(edge_index, edge_weight, x.size(0), dtype=x.dtype)
            entries = edge_index._nnz()

        def neighbor_sum(name: str, step: int, values: Tensor) -> Tensor:
            result: Tensor = self.propagate(edge_index, x=values, edge_weight=edge_weight)
            return result

        return smooth_steps(
            x,
            self.alpha,
            self.constraint,
            self.coefficients,
            entries,
            self.training,
            neighbor_sum,
        )


@register_layer(SMPConv)
class QuantSMPConv(Propagation):
    """:class:`SMPConv` with sites ``message_k`` on the state and ``gap_k`` on its change."""

    layer_type = "SMPConv"
    options: ClassVar[Options] = {
        "steps": STEPS,
        "alpha": Number(),
        "constraint": Table(
            {
                "operator": Choice(OPERATORS),
                "multiplier": Choice(MULTIPLIERS),
                "tolerance": Number(0.0),
                "rate": Number(0.0),
                "slack_rate": Number(0.0),
                "damping": Number(0.0),
                "start": Number(),
                "bound": Number(0.0),
            }
        ),
    }
    alpha: float
    channels: int
    constraint: SmoothnessConstraint
    coefficients: Tensor

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_steps(place, path, self.channels)

    def step_sites(self) -> tuple[str, ...]:
        return ("message",) if self.constraint.multiplier == "none" else ("message", "gap")

    def required_sites(self) -> set[str]:
        """See :meth:`QuantLayer.required_sites`; what a step does is said by its coefficient."""
        sites = {name for name in super().required_sites() if not name.startswith("gap_")}
        steps = enumerate(self.coefficients.tolist())
        return sites | {f"gap_{step}" for step, coefficient in steps if coefficient != 0.0}

    def check_loaded(self) -> None:
        check_values(self.coefficients, "coefficients", False)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Propagates.

        Args:
            x: float32 ``[N, C]``.
            edge_index: Any adjacency form.
            edge_weight: float ``[E]`` or None.

        Returns:
            float32 ``[N, C]``.
        """
        x, graph = self.enter(x, edge_index, edge_weight)
        with self.layer_scope(graph):
            operator = self.operator(graph)
            packed = self.run_packed(
                operator,
                x,
                self.alpha,
                self.coefficients.tolist(),
                self.constraint.operator == "laplacian",
            )
            if packed is not None:
                return requantize(self.output, packed)
            site = self.site("message", 0)
            x = smooth_steps(
                x,
                self.alpha,
                self.constraint,
                self.coefficients,
                operator.graph.num_edges,
                isinstance(site, Quantizer) and site.observing and self.learns,
                lambda name, step, values: operator(self.site(name, step), values),
            )
            return requantize(self.output, x)

    @property
    def learns(self) -> bool:
        """Whether there is a multiplier at all."""
        return self.constraint.multiplier != "none"

    def freeze(self) -> None:
        """See :meth:`QuantLayer.freeze`; the changes of steps without a correction have no site."""
        super().freeze()
        known = self.coefficients.tolist()
        for step, coefficient in enumerate(known):
            if coefficient == 0.0 and hasattr(self, f"gap_{step}"):
                delattr(self, f"gap_{step}")

    def config(self) -> dict[str, Any]:
        return {**super().config(), "constraint": asdict(self.constraint)}

    @classmethod
    def build(cls, config: dict[str, Any]) -> QuantLayer:
        layer = super().build(
            {**config, "constraint": SmoothnessConstraint(**config["constraint"])}
        )
        layer.register_buffer("coefficients", torch.zeros(config["steps"]))
        return layer

    def reset_parameters(self) -> None:
        """Forgets ranges and coefficients."""
        super().reset_parameters()
        self.coefficients.zero_()
