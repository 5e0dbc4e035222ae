"""ChebConv: PyG's polynomials of the Laplacian, as sums of codes between two factors of nodes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import ChebConv

import nodebits
from nn.cases import FLOAT
from nodebits.core.errors import ConfigError, GraphError
from nodebits.nn.cheb_conv import QuantChebConv
from nodebits.nn.propagate.layer import QuantMessagePassing

N, E, C = 40, 170, 8
PTQ = nodebits.UniformConfig(bits=8, mode="ptq")


def graph(nodes: int = N) -> tuple[Tensor, Tensor]:
    """Edges one way, some twice, loops, and two nodes without any."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(nodes - 2, (2, E), generator=generator)
    edges = torch.cat([edges, edges[:, :6], torch.tensor([[3, 5], [3, 5]])], 1)
    return torch.randn(nodes, C, generator=generator), edges


def calls(edges: Tensor) -> dict[str, dict[str, Any]]:
    weight = torch.rand(edges.size(1), generator=torch.Generator().manual_seed(1)) + 0.1
    batch = torch.arange(N) // (N // 2)
    return {
        "plain": {},
        "weights": {"edge_weight": weight},
        "weights of both signs": {"edge_weight": weight.masked_fill(weight < 0.2, -0.05)},
        "a number": {"lambda_max": 1.7},
        "a tensor": {"lambda_max": torch.tensor(1.7)},
        "by graph": {"lambda_max": torch.tensor([1.7, 1.9]), "batch": batch},
        "weights by graph": {
            "edge_weight": weight, "lambda_max": torch.tensor([1.7, 1.9]), "batch": batch,
        },
    }  # fmt: skip


def prepared_on(layer: ChebConv, *args: Any, **more: Any) -> Any:
    prepared = nodebits.prepare(layer.eval(), PTQ)
    nodebits.calibrate(prepared, *args, **more)
    return prepared.eval()


def close(found: Tensor, exact: Tensor) -> bool:
    return float((found - exact).norm()) < 2e-5 * float(exact.norm())


@pytest.mark.parametrize("call", calls(torch.zeros(2, 3)))
@pytest.mark.parametrize("normalization", ["sym", "rw", None])
def test_in_float_it_is_pyg_s_layer(normalization: str | None, call: str) -> None:
    x, edges = graph()
    more = calls(edges)[call]
    layer = ChebConv(C, 6, K=4, normalization=normalization).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = nodebits.prepare(layer, FLOAT).eval()
    assert isinstance(ours, QuantChebConv)
    with torch.no_grad():
        assert close(ours(x, edges, **more), layer(x, edges, **more))
        pair = torch.stack([x, x.flip(0)])
        assert close(ours(pair, edges, **more), layer(pair, edges, **more))


@pytest.mark.parametrize("call", calls(torch.zeros(2, 3)))
@pytest.mark.parametrize(("order", "normalization"), [(2, "sym"), (3, "sym"), (4, "rw"), (3, None)])
def test_packed_is_prepared_to_the_bit(order: int, normalization: str | None, call: str) -> None:
    x, edges = graph()
    more = calls(edges)[call]
    layer = ChebConv(C, 6, K=order, normalization=normalization).eval()
    prepared = prepared_on(layer, x, edges, **more)
    with torch.no_grad():
        simulated, exact = prepared(x, edges, **more), layer(x, edges, **more)
    assert float((simulated - exact).norm() / exact.norm()) < 0.02
    packed = nodebits.convert(prepared)
    for _ in range(4):  # the module, then the plan
        assert torch.equal(packed.predict(x, edges, **more), simulated)
    # Codes of weights of both signs have a zero point, which no step makes.
    assert _is_whole(packed.plan(x, edges, **more)) is (call != "weights of both signs")


def _is_whole(plan: Any) -> bool:
    """Whether there is a plan, and no module in it."""
    return not isinstance(plan, str) and not plan.leaves


@pytest.mark.parametrize("call", ["plain", "weights"])
@pytest.mark.parametrize("normalization", ["sym", "rw", None])
def test_a_plan_holds_for_other_graphs(normalization: str | None, call: str) -> None:
    x, edges = graph()
    more = calls(edges)[call]
    prepared = prepared_on(ChebConv(C, 6, K=3, normalization=normalization), x, edges, **more)
    packed = nodebits.convert(prepared)
    assert _is_whole(packed.plan(x, edges, **more))
    x, edges = graph(57)
    others = [
        {name: value.flip(0) * 3 for name, value in more.items()},
        {name: value - 0.2 for name, value in more.items()},  # below zero: the module
    ]
    for other in others:
        with torch.no_grad():
            assert torch.equal(packed.predict(x, edges, **other), prepared(x, edges, **other))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_laplacian_of_zeros(weighted: bool) -> None:
    """``L_hat`` is ``-I`` then, whatever ``lambda_max`` is."""
    x, edges = graph()
    weight = torch.ones(edges.size(1))
    args = (x, edges, weight) if weighted else (x, edges)
    layer = ChebConv(C, 6, K=3, normalization=None)
    prepared = prepared_on(layer, *args)
    packed = nodebits.convert(prepared)
    assert _is_whole(packed.plan(*args))
    loops = torch.arange(N).expand(2, -1)
    zeros = (x, edges, 0 * weight) if weighted else (x, loops)
    with torch.no_grad():
        simulated = prepared(*zeros)
        exact = layer(*zeros, lambda_max=torch.tensor(1.0))
    assert float((simulated - exact).norm() / exact.norm()) < 0.02
    for _ in range(4):
        assert torch.equal(packed.predict(*zeros), simulated)


def test_a_graph_without_nodes() -> None:
    x, edges = graph()
    prepared = prepared_on(ChebConv(C, 6, K=3), x, edges)
    packed = nodebits.convert(prepared)
    for call in (prepared, packed.predict):
        with torch.no_grad():
            assert call(x[:0], edges[:, :0]).shape == (0, 6)


def test_edges_without_weights_need_no_codes() -> None:
    x, edges = graph()
    packed = nodebits.convert(prepared_on(ChebConv(C, 6, K=3), x, edges))
    named = {site.path: site for site in nodebits.sites(packed)}
    assert {"message_0", "message_1", "lins.0.input", "lins.2.weight"} <= set(named)
    assert not any("message_x" in path for path in named)


def test_what_it_refuses() -> None:
    x, edges = graph()
    layer = prepared_on(ChebConv(C, 6, K=3), x, edges)
    matrix = torch.sparse_coo_tensor(edges.flip(0), torch.ones(edges.size(1)), (N, N)).coalesce()
    with pytest.raises(GraphError, match="edges, not a matrix"):
        layer(x, matrix)
    for number in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"lambda_max is .*above 0"):
            layer(x, edges, lambda_max=number)
    with pytest.raises(GraphError, match="weights of the edges from node"):
        layer(x, edges, -torch.ones(edges.size(1)))


def test_other_forms_of_the_layer_run_their_own_messages() -> None:
    for layer in (ChebConv(C, 6, K=1), ChebConv(C, 6, K=2, aggr="max")):
        assert isinstance(nodebits.prepare(layer.eval(), PTQ), QuantMessagePassing)
