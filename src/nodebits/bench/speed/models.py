"""The models that are measured: PyG's, with seeded weights, and packed ones of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import APPNP

from nodebits.bench.speed.graphs import BenchGraph
from nodebits.core.errors import UnknownNameError
from nodebits.graph import Graph
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.models import ModelSpec, build_model
from nodebits.runtime import PackedModel, convert

MODELS = ("gcn", "gin", "sage", "gat", "appnp")
# Ranges of a packed model on a generated graph come from a small graph of the same mean degree.
_CALIBRATION_NODES = 2_000
_CALIBRATION_DEGREE = 100


class Propagation(nn.Module):
    """APPNP (Gasteiger et al. 2019): two linears, then ten steps of personalised PageRank."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(in_channels, hidden)
        self.lin2 = nn.Linear(hidden, out_channels)
        self.act = nn.ReLU()
        self.prop = APPNP(K=10, alpha=0.1)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        x = self.lin2(self.act(self.lin1(x)))
        result: Tensor = self.prop(x, edge_index)
        return result


@dataclass(frozen=True)
class Sizes:
    """What models are built from.

    Attributes:
        hidden: Hidden width (GAT: 8 heads together).
        heads: Heads of GAT's first layer.
    """

    hidden: int = 128
    heads: int = 8


def float_model(name: str, num_features: int, num_classes: int, sizes: Sizes) -> nn.Module:
    """PyG's model with seeded weights, in evaluation mode.

    Raises:
        UnknownNameError: There is no such model.
        ConfigError: Its sizes make no model.
    """
    if name not in MODELS:
        raise UnknownNameError.for_name("model", name, MODELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "appnp":
            return Propagation(num_features, sizes.hidden, num_classes).eval()
        spec = ModelSpec(
            name, num_features, sizes.hidden, num_classes, dropout=0.0, heads=sizes.heads
        )
        return build_model(spec).eval()


def packed_model(model: nn.Module, bench: BenchGraph, bits: int) -> PackedModel:
    """The model at ``bits`` bits at all sites, calibrated after training.

    Speed does not depend on the ranges; on a generated graph they come from a smaller one.
    """
    config = UniformConfig(bits=bits, sum_bits=bits, head_bits=bits, mode="ptq")
    prepared = prepare(model, config)
    if bench.x is not None:
        calibrate(prepared, bench.x, bench.graph)
    else:
        nodes = min(_CALIBRATION_NODES, bench.graph.num_src)
        mean = max(1, bench.graph.num_edges // max(1, bench.graph.num_src))
        small = _small_graph(nodes, min(mean, _CALIBRATION_DEGREE))
        generator = torch.Generator().manual_seed(1)
        calibrate(
            prepared,
            torch.randn(nodes, bench.num_features, generator=generator, device="cpu"),
            small,
        )
    return convert(prepared)


def _small_graph(nodes: int, degree: int) -> Graph:
    generator = torch.Generator().manual_seed(2)
    indptr = torch.arange(nodes + 1, device="cpu") * degree
    indices = torch.randint(
        0, nodes, (nodes * degree,), generator=generator, dtype=torch.int32, device="cpu"
    )
    return Graph(indptr, indices, nodes)
