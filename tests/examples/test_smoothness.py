"""The package of layers of its own: the definitions, packed bit for bit, and files without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nodebits_smoothness.elastic_conv import ElasticConv, Incidence
from nodebits_smoothness.smp_conv import SmoothnessConstraint, SMPConv
from torch import Tensor, nn
from torch_geometric.nn import APPNP
from torch_geometric.utils import to_dense_adj, to_undirected

from nn.cases import (
    BITS,
    NODES,
    WIDTH,
    assert_converts,
    assert_equals_float,
    assert_fused_steps_are_the_steps,
    assert_state_survives,
    configs,
    edges,
    features,
    simple_edges,
)
from nodebits.core.errors import ConfigError, GraphError
from nodebits.graph import as_graph
from nodebits.methods import UniformConfig
from nodebits.nn.propagation import observing_states

CONSTRAINTS = [
    SmoothnessConstraint(operator, multiplier, 1e-3, rate=1e-2, start=0.5, damping=1e-3)
    for operator in ("adjacency", "laplacian")
    for multiplier in ("basic", "modified")
]


def undirected() -> Tensor:
    return to_undirected(simple_edges(), num_nodes=NODES)


def corrected(constraint: SmoothnessConstraint, index: Tensor) -> SMPConv:
    """A float layer whose multipliers have run once on ``index``."""
    layer = SMPConv(5, 0.1, WIDTH, constraint).train()
    layer(features(), index)
    assert layer.coefficients.abs().max() > 0
    return layer.eval()


def layers() -> dict[str, tuple[nn.Module, Tensor]]:
    index = edges()
    found: dict[str, tuple[nn.Module, Tensor]] = {
        "smp": (SMPConv(5, 0.1, WIDTH, SmoothnessConstraint(multiplier="none")), index),
        "elastic": (ElasticConv(5, channels=WIDTH), undirected()),
        "elastic L1": (ElasticConv(5, 0.1, 2.0, norm="L1"), undirected()),
        "elastic without a dual": (ElasticConv(5, 0.0, 9.0), undirected()),
    }
    return found | {
        f"{c.operator} {c.multiplier}": (corrected(c, index), index) for c in CONSTRAINTS
    }


NAMES = tuple(layers())


@pytest.mark.parametrize("name", NAMES)
def test_float_sites(name: str) -> None:
    layer, index = layers()[name]
    assert_equals_float(layer, features(), index)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", NAMES)
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    layer, index = layers()[name]
    widths = {"message_1": 3}
    if isinstance(layer, SMPConv) and layer.constraint.multiplier != "none":
        widths["gap_*"] = 5
    for config in configs(bits, widths, {"message_0": 32}):
        assert_converts(layer, config, features(), index)


@pytest.mark.parametrize("name", NAMES)
def test_states(name: str) -> None:
    layer, index = layers()[name]
    assert_state_survives(layer, UniformConfig(bits=4), features(), index)


@pytest.mark.parametrize("name", ["smp", "laplacian basic", "adjacency modified"])
def test_fused_steps_are_the_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_fused_steps_are_the_steps(*layers()[name], monkeypatch)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_without_multiplier_smp_is_appnp(constraint: SmoothnessConstraint) -> None:
    x, index = features(), edges()
    expected = APPNP(6, 0.2)(x, index)
    idle = SmoothnessConstraint(constraint.operator, constraint.multiplier, rate=0, damping=0)
    for layer in (
        SMPConv(6, 0.2, constraint=SmoothnessConstraint(multiplier="none")).train(),
        SMPConv(6, 0.2, constraint=idle).train(),
        SMPConv(6, 0.2, constraint=constraint).eval(),
    ):
        torch.testing.assert_close(layer(x, index), expected)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_multiplier_follows_the_paper(constraint: SmoothnessConstraint) -> None:
    """The recursion of the module's head with dense matrices and the Laplacian itself."""
    x, index = features(), undirected()
    degree = torch.bincount(index[1], minlength=NODES) + 1.0
    matrix = to_dense_adj(index, max_num_nodes=NODES)[0].t() + torch.eye(NODES)
    matrix = matrix / degree.sqrt().view(-1, 1) / degree.sqrt()
    laplacian = torch.eye(NODES) - matrix
    alpha, c = 0.2, constraint
    state, value, slack = x, c.start, c.start
    for _ in range(4):
        bar = (1 - alpha) * matrix @ state + alpha * x
        change = bar - state
        trace = float(torch.trace(change.t() @ laplacian @ change))
        violation = c.tolerance * int((matrix > 0).sum()) - slack**2 - trace
        push = value + (c.damping * violation if c.multiplier == "modified" else 0)
        operator = matrix if c.operator == "adjacency" else laplacian
        weight = max(min(2 * alpha * push, c.bound), -c.bound)
        state = bar + weight * operator @ change
        slack += 2 * c.slack_rate * value * slack
        limit = c.bound / (2 * alpha)
        value = max(min(value + c.rate * violation, limit), -limit)
    layer = SMPConv(4, alpha, constraint=constraint).train()
    torch.testing.assert_close(layer(x, index), state, atol=1e-4, rtol=1e-4)
    # Evaluation repeats the coefficients that training found.
    torch.testing.assert_close(layer.eval()(x, index), state, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_large_logits_do_not_diverge(constraint: SmoothnessConstraint) -> None:
    x = features() * 100
    layer = SMPConv(64, 0.1, constraint=constraint).train()
    with observing_states() as states:
        out = layer(x, edges())
    assert len(states) == 64
    assert float(out.abs().max()) <= float(x.abs().max()) * 10


def test_incidence_is_the_laplacian() -> None:
    index = undirected()
    graph = as_graph(index, NODES, NODES).with_self_loops()
    incidence, x = Incidence(graph), features()
    factor = graph.deg_inv_sqrt.view(-1, 1)
    got = incidence.gather(incidence.difference(x * factor)) * factor
    average = APPNP(1, 0.0)(x, index)
    torch.testing.assert_close(got, x - average, atol=1e-5, rtol=1e-5)


def test_elastic_without_sparse_term_is_appnp() -> None:
    x, index = features(), undirected()
    torch.testing.assert_close(ElasticConv(4, 0.0, 9.0)(x, index), APPNP(4, 0.1)(x, index))


def test_elastic_keeps_jumps() -> None:
    """The sparse term minimises differences: two well separated cliques end piecewise constant."""
    clique = torch.combinations(torch.arange(6)).t()
    index = to_undirected(torch.cat([clique, clique + 6, torch.tensor([[0], [6]])], 1))
    x = torch.cat([torch.zeros(6, 1), torch.ones(6, 1)]) + 0.1 * torch.randn(12, 1)
    rough = lambda out: float(Incidence(as_graph(index, 12, 12)).difference(out).abs().sum())  # noqa: E731
    assert rough(ElasticConv(64, 3.0, 0.5)(x, index)) < rough(ElasticConv(64, 0.0, 0.5)(x, index))


def test_elastic_wants_both_directions() -> None:
    with pytest.raises(GraphError, match="both directions"):
        ElasticConv(2)(features(), torch.tensor([[0, 1], [1, 2]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SmoothnessConstraint(operator="dense"), "operator is 'dense'"),
        (lambda: SmoothnessConstraint(multiplier="always"), "multiplier is 'always'"),
        (lambda: SmoothnessConstraint(tolerance=-1.0), "tolerance is -1.0"),
        (lambda: ElasticConv(2, norm="L7"), "norm is 'L7'"),
        (lambda: ElasticConv(2, -1.0), "lambda1=-1.0"),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
