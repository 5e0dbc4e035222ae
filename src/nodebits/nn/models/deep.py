"""Deep models: an MLP whose result is propagated, and deep stacks of convolutions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import APPNP, GCN2Conv, GCNConv

from nodebits.nn.dagnn import DAGNNConv
from nodebits.nn.elastic_conv import ElasticConv
from nodebits.nn.models.spec import ModelSpec
from nodebits.nn.smp_conv import SmoothnessConstraint, SMPConv

# GCNII's strength of the identity mapping, beta_l = log(theta / l + 1).
THETA = 0.5


def _appnp(spec: ModelSpec, channels: int) -> nn.Module:
    layer: nn.Module = APPNP(spec.steps, spec.teleport)
    layer.channels = channels  # type: ignore[assignment]  # ranges per column, see QuantAPPNP
    return layer


def _smp(spec: ModelSpec, channels: int) -> nn.Module:
    constraint = SmoothnessConstraint(spec.operator, spec.multiplier, spec.tolerance)
    return SMPConv(spec.steps, spec.teleport, channels, constraint)


PROPAGATION: dict[str, Callable[[ModelSpec, int], nn.Module]] = {
    "appnp": _appnp,
    "smp": _smp,
    "dagnn": lambda spec, channels: DAGNNConv(channels, spec.steps),
    "elastic": lambda spec, channels: ElasticConv(spec.steps, channels=channels),
}


class PropagationModel(nn.Module):
    """``num_layers`` linears with ReLU between them, then ``steps`` of propagation."""

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        widths = [
            spec.in_channels,
            *[spec.hidden_channels] * (spec.num_layers - 1),
            out_channels,
        ]
        self.lins = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)
        self.propagation = PROPAGATION[spec.name](spec, out_channels)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        for layer, lin in enumerate(self.lins):
            x = lin(x if layer == 0 else self.dropout(self.act(x)))
        result: Tensor = self.propagation(x, edge_index)
        return result


class GCNIIModel(nn.Module):
    """GCNII: a linear, ``num_layers`` of GCN2Conv, a linear."""

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        hidden = spec.hidden_channels
        self.lin1 = nn.Linear(spec.in_channels, hidden)
        self.convs = nn.ModuleList(
            GCN2Conv(hidden, spec.teleport, THETA, layer + 1) for layer in range(spec.num_layers)
        )
        self.lin2 = nn.Linear(hidden, out_channels)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        x = first = self.act(self.lin1(x))
        for conv in self.convs:
            x = self.act(conv(self.dropout(x), first, edge_index))
        result: Tensor = self.lin2(self.dropout(x))
        return result


class DeepGCN(nn.Module):
    """A linear, ``num_layers`` of GCNConv with norm and (by default) residual, a linear."""

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        hidden = spec.hidden_channels
        self.lin1 = nn.Linear(spec.in_channels, hidden)
        self.convs = nn.ModuleList(GCNConv(hidden, hidden) for _ in range(spec.num_layers))
        self.norms = nn.ModuleList(
            nn.Identity() if spec.norm is None else nn.BatchNorm1d(hidden) for _ in self.convs
        )
        self.lin2 = nn.Linear(hidden, out_channels)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)
        self.residual = spec.residual

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        x = self.act(self.lin1(x))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            step = self.act(norm(conv(self.dropout(x), edge_index)))
            x = x + step if self.residual else step
        result: Tensor = self.lin2(self.dropout(x))
        return result


def deep_model(spec: ModelSpec, out_channels: int) -> nn.Module:
    """Builds the deep model of a spec."""
    if spec.name in PROPAGATION:
        return PropagationModel(spec, out_channels)
    return GCNIIModel(spec, out_channels) if spec.name == "gcnii" else DeepGCN(spec, out_channels)


DEEP = (*PROPAGATION, "gcnii", "deepgcn")
