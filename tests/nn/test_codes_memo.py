"""Codes of constant features are remembered only while the features are what they were."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import GCN

from nodebits.core.errors import ShapeError
from nodebits.methods import calibrate, make_config, prepare
from nodebits.runtime import convert

from .cases import NODES, edges


@pytest.mark.parametrize("method", ["uniform", "degree-quant", "a2q", "sgquant"])
@pytest.mark.parametrize("width", [8, 300])
def test_features_that_change_unseen_are_quantized_again(method: str, width: int) -> None:
    """Through memory that is shared with NumPy, which raises no version."""
    memory = torch.rand(NODES, width).sub_(0.3).numpy()
    x, index = torch.from_numpy(memory), edges()
    model = prepare(GCN(width, 8, 2, 3), make_config(method, 8)).train()
    for _ in range(2):
        model(x, index)
    model.eval()
    with torch.no_grad():
        before = model(x, index)
        memory[:] = -memory[::-1]
        after, expected = model(x, index), model(x.clone(), index)
    assert torch.equal(after, expected) and not torch.equal(after, before)


def test_no_codes_without_gradient_for_features_that_get_one() -> None:
    x, index = torch.rand(NODES, 300), edges()
    model = prepare(GCN(300, 8, 2, 3), make_config("uniform", 8)).train()
    for _ in range(2):
        model(x, index)
    x.requires_grad_()
    model(x, index).sum().backward()
    assert x.grad is not None and bool((x.grad != 0).any())


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_features_are_refused_with_the_cure(layout: torch.layout) -> None:
    model = prepare(GCN(300, 8, 2, 3), make_config("uniform", 8))
    with pytest.raises(ShapeError, match="to_dense"):
        model((torch.rand(NODES, 300) < 0.05).float().to_sparse(layout=layout), edges())


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_features_are_not_packed_ahead(layout: torch.layout) -> None:
    x, index = (torch.rand(NODES, 300) < 0.05).float(), edges()
    model = prepare(GCN(300, 8, 2, 3), make_config("uniform", 8))
    calibrate(model, x, index)
    with pytest.raises(ShapeError, match="to_dense"):
        convert(model).pack_input(x.to_sparse(layout=layout))
