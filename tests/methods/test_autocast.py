"""Training within ``torch.autocast``: quantized layers stay in float32, whatever the method."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.nn import GINEConv, RGCNConv

import nodebits
from nodebits.core.errors import ShapeError
from nodebits.methods import make_config, method_names
from nodebits.models import ModelSpec, build_model
from nodebits.ops.autograd import ExactProduct, FakeQuantize, dense_product
from packed_models import CLASSES, FEATURES, NODES, small_graph

pytestmark = [
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.DegenerateSiteWarning"),
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning"),
]
BFLOAT = torch.autocast("cpu", dtype=torch.bfloat16)
Y = torch.arange(NODES) % CLASSES
MODELS = ("gcn", "gin", "gat")
every_method = pytest.mark.parametrize("method", method_names())


def prepared_by(method: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    spec = ModelSpec(name, FEATURES, 8, CLASSES, heads=2)
    return nodebits.prepare(build_model(spec), make_config(method, bits=4)).train()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def step(model: nn.Module, amp: bool, inside: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Result and gradients of one step."""
    torch.manual_seed(1)
    x, edge_index = small_graph()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        out = model(x, edge_index)
        loss = cross_entropy(out, Y)
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return out.detach(), gradients(model)


@every_method
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_step_has_the_bits_of_float32(method: str, name: str, inside: bool) -> None:
    """Gradients as well, also where ``backward`` is called within."""
    expected, of_float = step(prepared_by(method, name), False, False)
    found, of_amp = step(prepared_by(method, name), True, inside)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert of_amp.keys() == of_float.keys() and of_float
    for key, grad in of_float.items():
        torch.testing.assert_close(of_amp[key], grad, rtol=1e-4, atol=1e-6)


@every_method
def test_training_and_conversion(method: str) -> None:
    """Layers that stay in float run in bfloat16 between quantized ones."""
    x, edge_index = small_graph()
    model = Mixed(prepared_by(method, "gcn"))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        with BFLOAT:
            loss = cross_entropy(model(x, edge_index), Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(map(torch.isfinite, map(torch.tensor, losses))) and losses[-1] < losses[0]
    assert all(bool(g.isfinite().all()) for g in gradients(model).values())
    model.eval()
    simulated = model.layers(x, edge_index)
    with BFLOAT, torch.no_grad():
        assert torch.equal(model.layers(x, edge_index), simulated)
    packed = nodebits.convert(model.layers)
    expected = packed.predict(x, edge_index)
    torch.testing.assert_close(simulated, expected, rtol=1e-5, atol=1e-5)
    with BFLOAT:
        assert torch.equal(packed.predict(x, edge_index), expected)


class Mixed(nn.Module):
    """A float map before quantized layers: under autocast they are given bfloat16."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.first, self.layers = nn.Linear(FEATURES, FEATURES), layers

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x)
        assert x.dtype == torch.bfloat16 or not torch.is_autocast_enabled("cpu")
        out: Tensor = self.layers(x, edge_index)
        return out


def gine() -> tuple[nn.Module, tuple[Tensor, ...]]:
    g = torch.Generator().manual_seed(0)
    edges = small_graph()[1]
    return GINEConv(nn.Linear(FEATURES, 5), edge_dim=3), (
        torch.rand(edges.size(1), 3, generator=g),
    )


def rgcn() -> tuple[nn.Module, tuple[Tensor, ...]]:
    kinds = torch.arange(small_graph()[1].size(1)) % 3
    return RGCNConv(FEATURES, 5, 3, num_bases=2), (kinds,)


@pytest.mark.parametrize("make", [gine, rgcn])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_arguments_of_half_precision(
    make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]], dtype: torch.dtype
) -> None:
    """Rows and edge features may come out of a float layer under autocast."""
    torch.manual_seed(0)
    (layer, more), (x, edge_index) = make(), small_graph()
    halves = [t.to(dtype) if t.is_floating_point() else t for t in (x, *more)]
    floats = [t.float() if t.is_floating_point() else t for t in halves]
    results = []
    for amp, given in ((False, floats), (True, halves)):
        model = nodebits.prepare(copy.deepcopy(layer), nodebits.UniformConfig(bits=4)).train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            out = model(given[0], edge_index, *given[1:])
        out.float().sum().backward()
        results.append((out.detach(), gradients(model)))
    (expected, grads), (found, of_amp) = results
    assert torch.equal(found, expected)
    for key, grad in grads.items():
        torch.testing.assert_close(of_amp[key], grad, rtol=1e-4, atol=1e-6)


def test_operators_refuse_halves_by_name() -> None:
    x, one = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(1)
    with pytest.raises(ShapeError, match=r"x must be a 2-dimensional torch\.float32"):
        FakeQuantize.apply(x, one, one, -1, 4, 0)


@pytest.mark.parametrize("shapes", [((4, 3), (3, 5)), ((4, 3), (3,)), ((2, 4, 3), (2, 3, 5))])
def test_products_are_those_of_float32(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    g = torch.Generator().manual_seed(0)
    left, right = (torch.rand(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes)
    assert torch.autograd.gradcheck(ExactProduct.apply, (left, right))
    small = left.detach().float(), right.detach().float()
    with BFLOAT:
        made, rounded = dense_product(*small), small[0] @ small[1]
    assert not torch.equal(made, rounded.float())
    assert made.dtype == torch.float32 and torch.equal(made, small[0] @ small[1])
