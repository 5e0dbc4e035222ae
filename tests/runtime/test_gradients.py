"""A packed model under autograd: results as ever, and a named refusal of their gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import GCN, GCNConv
from torch_geometric.nn.aggr import EquilibriumAggregation

from nodebits.core.errors import UnsupportedLayerError, UnsupportedLayerWarning
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.runtime import convert
from packed_models import CLASSES, FEATURES, small_graph

X, EDGES = small_graph()


def _explain(model: torch.nn.Module, edges: str | None) -> torch.Tensor:
    explainer = Explainer(
        model,
        GNNExplainer(epochs=2),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type=edges,
        model_config={
            "mode": "multiclass_classification",
            "task_level": "node",
            "return_type": "raw",
        },
    )
    mask: torch.Tensor = explainer(X, EDGES, index=3).node_mask
    return mask


class Descending(nn.Module):
    """A forward that differentiates one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.energy, self.head = nn.Linear(FEATURES, 4), nn.Linear(FEATURES, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(at).tanh().sum(), at)
        made: torch.Tensor = self.head(slope)
        return made


def test_a_forward_that_differentiates_a_packed_layer_is_refused_by_name() -> None:
    model = Descending().eval()
    for overrides in ({}, {"energy.*": 32}):
        config = UniformConfig(bits=8, mode="ptq", overrides=overrides)
        prepared = prepare(model, config)
        calibrate(prepared, X)
        packed = convert(prepared)
        if not overrides:
            with pytest.raises(UnsupportedLayerError, match=r"'energy.input'.*'energy\.\*': 32"):
                packed.predict(X)
            continue
        exact = model(X)
        assert float((packed.predict(X) - exact).norm() / exact.norm()) < 0.02


def test_layers_of_an_aggregation_that_descends_gradients_stay_in_float() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = GCNConv(FEATURES, 8), EquilibriumAggregation(8, 4, [8])

        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.pool(self.conv(x, edges), torch.arange(len(x)) // 8)
            return made

    model = Net().eval()
    with pytest.warns(UnsupportedLayerWarning, match=r"'pool' \(Equil.*descends gradients"):
        prepared = prepare(model, UniformConfig(bits=8, mode="ptq"))
    calibrate(prepared, X, EDGES)
    with torch.no_grad():
        exact = model(X, EDGES)
    gap = convert(prepared).predict(X, EDGES).detach() - exact
    assert float(gap.norm() / exact.norm()) < 0.05


def test_explainers_and_gradients() -> None:
    prepared = prepare(GCN(FEATURES, 8, 2, CLASSES).eval(), UniformConfig(bits=8, mode="ptq"))
    calibrate(prepared, X, EDGES)
    packed = convert(prepared)
    assert float(_explain(prepared, None).std()) > 0
    with pytest.raises(UnsupportedLayerError, match=r"no gradients.*prepare\(\)"):
        _explain(packed, None)
    with pytest.raises(UnsupportedLayerError, match="edge mask"):
        _explain(packed, "object")
    x = X.clone().requires_grad_()
    with pytest.raises(UnsupportedLayerError, match="backward"):
        packed(x, EDGES).sum().backward()
    assert torch.equal(packed(x, EDGES).detach(), packed.predict(X, EDGES))
    assert not packed.predict(x, EDGES).requires_grad
    with torch.no_grad():
        assert not packed(x, EDGES).requires_grad
