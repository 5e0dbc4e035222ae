"""Over-smoothing's measures on states whose values are known, and the bound of rounding errors."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import APPNP
from torch_geometric.utils import to_undirected

import nodebits
from nodebits.methods import UniformConfig
from nodebits.models import ModelSpec, build_model
from smoothness import appnp_errors, layer_states, smoothness

NODES = 40


def undirected() -> torch.Tensor:
    index = torch.randint(NODES, (2, 100))
    return to_undirected(index[:, index[0] != index[1]], num_nodes=NODES)


def dense(index: torch.Tensor) -> torch.Tensor:
    matrix = torch.zeros(NODES, NODES)
    matrix[index[1], index[0]] = 1.0
    matrix.fill_diagonal_(1.0)
    degree = matrix.sum(1)
    return matrix / degree.sqrt().view(-1, 1) / degree.sqrt()


def test_dirichlet_is_the_quadratic_form() -> None:
    index, x = undirected(), torch.randn(NODES, 5)
    laplacian = torch.eye(NODES) - dense(index)
    expected = torch.trace(x.t() @ laplacian @ x) / x.square().sum()
    assert smoothness(x, index).dirichlet == pytest.approx(float(expected), rel=1e-4)


def test_extremes() -> None:
    index = undirected()
    degree = torch.bincount(index[1], minlength=NODES) + 1.0
    flat = degree.sqrt().view(-1, 1) * torch.randn(1, 4)  # the operator's first eigenvector
    found = smoothness(flat, index)
    assert found.dirichlet == pytest.approx(0.0, abs=1e-6)
    assert found.similarity == pytest.approx(1.0, abs=1e-6)
    assert smoothness(torch.ones(NODES, 3), index).distinct == pytest.approx(0.0, abs=1e-6)
    two = torch.tensor([[1.0], [-1.0]])
    pair = torch.tensor([[0, 1], [1, 0]])
    opposite = smoothness(two, pair)
    assert opposite.similarity == pytest.approx(-1.0)
    assert opposite.dirichlet == pytest.approx(1.0)


def test_propagation_smooths_step_by_step() -> None:
    index, x = undirected(), torch.randn(NODES, 6)
    model = nodebits.prepare(torch.nn.Sequential(APPNP(30, 0.05))[0], UniformConfig(bits=8)).eval()
    nodebits.calibrate(model, x, index)
    with layer_states(model) as states:
        out = model(x, index)
    assert len(states) == 30 and torch.equal(states[-1], out)
    energy = [smoothness(state, index).dirichlet for state in (x, states[0], states[-1])]
    assert energy[0] > energy[1] > energy[2]


@pytest.mark.parametrize("name", ["gcnii", "deepgcn"])
def test_states_of_stacks(name: str) -> None:
    spec = ModelSpec(name, 6, 8, 3, num_layers=5)
    model = nodebits.prepare(build_model(spec), UniformConfig(bits=4)).eval()
    x, index = torch.randn(NODES, 6), undirected()
    nodebits.calibrate(model, x, index)
    with layer_states(model) as states:
        model(x, index)
    assert len(states) == 5 and all(state.shape == (NODES, 8) for state in states)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_error_stays_below_its_bound(bits: int) -> None:
    index, x = undirected(), torch.randn(NODES, 4)
    layer = nodebits.prepare(APPNP(64, 0.1), UniformConfig(bits=bits)).eval()
    nodebits.calibrate(layer, x, index)
    steps = [lambda v, k=k: layer.site("message", k)(v).dequantize() for k in range(64)]
    errors = appnp_errors(x, index, 0.1, steps)
    assert len(errors) == 64 and errors[-1].error > 0
    for error in errors:
        assert error.error <= error.bound * (1 + 1e-9) and error.bound <= error.limit * (1 + 1e-9)
    # The quantized side is the layer.
    with torch.no_grad():
        gap = (layer(x, index) - APPNP(64, 0.1)(x, index)).norm()
    assert float(gap) == pytest.approx(errors[-1].error, rel=1e-2)
