"""A packed model under autograd: results as ever, and a named refusal of their gradient."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import GCN

from nodebits.core.errors import UnsupportedLayerError
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
