"""Every layer on every adjacency form: what PyG's float layer computes, or a GraphError."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nodebits_smoothness.elastic_conv import ElasticConv
from nodebits_smoothness.smp_conv import SMPConv
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import (
    APPNP,
    AGNNConv,
    ClusterGCNConv,
    GATConv,
    GATv2Conv,
    GCN2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    SAGEConv,
)

import nodebits
from nn.cases import FLOAT
from nodebits.core.errors import GraphError
from nodebits.graph import Graph, ReorderedGraph, as_graph
from nodebits.nn.dagnn import DAGNNConv
from nodebits.nn.gcn2_conv import QuantGCN2Conv

NODES, WIDTH = 12, 6
TWO = (GCN2Conv, QuantGCN2Conv)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Net(nn.Module):
    """One layer behind a linear map: a layer without parameters alone is nothing to quantize."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(WIDTH, WIDTH), layer

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        x = self.first(x)
        arguments = (x, x) if isinstance(self.layer, TWO) else (x,)
        weights = () if edge_weight is None else (edge_weight,)
        result: Tensor = self.layer(*arguments, edge_index, *weights)
        return result


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GCN": lambda: GCNConv(WIDTH, 4),
    "GCN improved": lambda: GCNConv(WIDTH, 4, improved=True),
    "GCN without loops": lambda: GCNConv(WIDTH, 4, add_self_loops=False),
    "GCN not normalised": lambda: GCNConv(WIDTH, 4, normalize=False),
    "GIN": lambda: GINConv(nn.Linear(WIDTH, 4)),
    "SAGE mean": lambda: SAGEConv(WIDTH, 4),
    "SAGE sum": lambda: SAGEConv(WIDTH, 4, aggr="sum"),
    "GraphConv": lambda: GraphConv(WIDTH, 4),
    "ClusterGCN": lambda: ClusterGCNConv(WIDTH, 4),
    "GraphConv mean": lambda: GraphConv(WIDTH, 4, aggr="mean"),
    "GAT": lambda: GATConv(WIDTH, 4, heads=2),
    "GAT without loops": lambda: GATConv(WIDTH, 4, add_self_loops=False),
    "GATv2": lambda: GATv2Conv(WIDTH, 4, heads=2),
    "GATv2 without loops": lambda: GATv2Conv(WIDTH, 4, add_self_loops=False),
    "AGNN": lambda: AGNNConv(),
    "AGNN without loops": lambda: AGNNConv(add_self_loops=False),
    "APPNP": lambda: APPNP(3, 0.1),
    "APPNP without loops": lambda: APPNP(3, 0.1, add_self_loops=False),
    "APPNP not normalised": lambda: APPNP(2, 0.1, normalize=False),
    "GCN2": lambda: GCN2Conv(WIDTH, 0.1, 0.5, 1),
    "DAGNN": lambda: DAGNNConv(WIDTH, 3),
    "SMP": lambda: SMPConv(3, 0.1, WIDTH),
    "Elastic": lambda: ElasticConv(2, channels=WIDTH),
}
# The only one that may refuse, and it is none of PyG's.
REFUSES = {"Elastic"}
# Of PyG's layers without an argument for edge weights, those that use the values of a matrix.
BY_VALUE = {"GIN", "SAGE mean", "SAGE sum"}

WEIGHTED = ("GCN", "Gra", "APP", "DAG", "SMP")
TOPOLOGIES = ("simple", "loops", "duplicates")
VALUES = ("ones", "weights", "zeros", "twos")


def edges(topology: str) -> Tensor:
    dense = torch.rand(NODES, NODES) < 0.2
    dense = (dense | dense.t()).fill_diagonal_(False)
    dense[:, -1] = dense[-1] = False
    index = dense.nonzero().t().contiguous()
    if topology == "loops":
        index = torch.cat([index, torch.tensor([[0, 3], [0, 3]])], 1)
    if topology == "duplicates":
        index = torch.cat([index, index[:, :6], index[:, :6].flip(0)], 1)
    return index


def values(kind: str, count: int) -> Tensor:
    ones = torch.ones(count)
    made = {
        "ones": ones,
        "weights": torch.rand(count) + 0.1,
        "zeros": ones.masked_fill(torch.rand(count) < 0.3, 0.0),
        "twos": ones * 2,
    }
    return made[kind]


def coo(index: Tensor, value: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(index.flip(0), value, (NODES, NODES))


MATRICES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "coo": lambda index, value: coo(index, value).coalesce(),
    "coo not coalesced": coo,
    "csr": lambda index, value: coo(index, value).to_sparse_csr(),
    "csc": lambda index, value: coo(index, value).to_sparse_csc(),
}


def entries_kept(index: Tensor, value: Tensor) -> Tensor:
    """A CSR matrix in which entries may stand twice: torch does not look."""
    order = (index[1] * NODES + index[0]).argsort(stable=True)
    rows = torch.bincount(index[1], minlength=NODES).cumsum(0)
    pointer = torch.cat([torch.zeros(1, dtype=torch.int64), rows])
    return torch.sparse_csr_tensor(
        pointer, index[0][order], value[order], (NODES, NODES), check_invariants=False
    )


def outcome(name: str, x: Tensor, adjacency: Any, meant: Any, *weights: Tensor) -> str:
    """Compares with PyG on ``meant``, the same adjacency in a form that PyG has no fault with."""
    net = Net(LAYERS[name]()).eval()
    prepared = nodebits.prepare(net, FLOAT).eval()
    try:
        expected = net(x, meant, *weights)  # raises for nodebits' own layer
        result = prepared(x, adjacency, *weights)
    except GraphError as error:
        assert name in REFUSES and "takes no edge weights" in str(error)
        return "refused"
    torch.testing.assert_close(result, expected, rtol=2e-4, atol=2e-5)
    return "equal"


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", LAYERS)
def test_edge_index(name: str, topology: str) -> None:
    index, x = edges(topology), torch.randn(NODES, WIDTH)
    assert outcome(name, x, index, index) == "equal"
    assert outcome(name, x, EdgeIndex(index, sparse_size=(NODES, NODES)), index) == "equal"


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    "name", [n for n in LAYERS if n[:3] in ("GCN", "Gra", "APP", "DAG", "SMP")]
)
def test_edge_weights(name: str, topology: str, kind: str) -> None:
    index, x = edges(topology), torch.randn(NODES, WIDTH)
    assert outcome(name, x, index, index, values(kind, index.size(1))) == "equal"


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", LAYERS)
def test_matrices(name: str, topology: str, kind: str) -> None:
    index, x = edges(topology), torch.randn(NODES, WIDTH)
    value = values(kind, index.size(1))
    meant = MATRICES["csr"](index, value)
    found = {outcome(name, x, make(index, value), meant) for make in MATRICES.values()}
    plain = kind == "ones" and topology != "duplicates"
    assert found == {"refused"} if name in REFUSES and not plain else found == {"equal"}


@pytest.mark.parametrize("kind", ["ones", "weights"])
@pytest.mark.parametrize("name", [n for n in LAYERS if n != "Elastic"])
def test_entries_that_stand_twice(name: str, kind: str) -> None:
    """PyG counts them twice where torch does not merge them: in means and softmaxes."""
    index, x = edges("duplicates"), torch.randn(NODES, WIDTH)
    matrix = entries_kept(index, values(kind, index.size(1)))
    assert outcome(name, x, matrix, matrix) == "equal"


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", sorted(BY_VALUE))
def test_values_of_a_matrix_weigh_packed_sums(name: str, signed: bool, bits: int) -> None:
    """Calibrated without values: they need no range. The prepared model has the same bits."""
    index, x = edges("loops"), torch.randn(NODES, WIDTH)
    value = values("weights", index.size(1)) - (0.6 if signed else 0.0)
    matrix = MATRICES["csr"](index, value)
    net = Net(LAYERS[name]()).eval()
    prepared = nodebits.prepare(net, nodebits.UniformConfig(bits=bits, mode="ptq"))
    nodebits.calibrate(prepared, x, index)
    packed = nodebits.convert(prepared)
    result = packed.predict(x, matrix)
    assert torch.equal(result, prepared.eval()(x, matrix))
    if bits == 8:
        assert float((result - net(x, matrix)).norm() / net(x, matrix).norm()) < 0.05


@pytest.mark.parametrize("name", sorted(BY_VALUE))
def test_weights_that_no_form_of_the_float_layer_takes_are_refused(name: str) -> None:
    index, x = edges("simple"), torch.randn(NODES, WIDTH)
    graph = as_graph(index, NODES, edge_weight=values("twos", index.size(1)))
    net = Net(LAYERS[name]()).eval()
    prepared = nodebits.prepare(net, FLOAT).eval()
    with pytest.raises(GraphError, match=r"takes no edge weights; use GraphConv.* weight 2"):
        prepared(x, graph)
    result = prepared(x, index)
    torch.testing.assert_close(result, net(x, index), rtol=2e-4, atol=2e-5)


class SparseTensor:
    """What is used of ``torch_sparse.SparseTensor``, for machines without it."""

    def __init__(self, index: Tensor, value: Tensor | None) -> None:
        matrix = coo(index, torch.arange(index.size(1)) + 1.0).coalesce().to_sparse_csr()
        self.parts = matrix.crow_indices(), matrix.col_indices()
        self.value = None if value is None else value[matrix.values().long() - 1]

    def csr(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return (*self.parts, self.value)

    def sparse_sizes(self) -> tuple[int, int]:
        return NODES, NODES


@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_sparse_tensors(name: str, valued: bool) -> None:
    """PyG puts the loop in the place of one that is there, and drops the values in GIN and SAGE."""
    index, x = edges("loops"), torch.randn(NODES, WIDTH)
    value = values("weights", index.size(1)) if valued else None
    if name == "Elastic" and valued:
        return
    apart = index[0] != index[1]
    keeps_loops = "without" in name or "not" in name or name[:3] in ("GIN", "SAG", "Gra")
    plain = index if keeps_loops else index[:, apart]
    takes_weights = name not in REFUSES | BY_VALUE and name[:3] not in ("GAT", "AGN", "Clu")
    weights = torch.ones(index.size(1)) if value is None else value
    weights = weights if keeps_loops else weights[apart]
    arguments = (weights,) if takes_weights and name[:4] != "GCN2" else ()
    net = Net(LAYERS[name]()).eval()
    if name == "ClusterGCN" and valued:  # PyG divides by the sums of values, and adds no values
        with pytest.raises(GraphError, match="without values"):
            nodebits.prepare(net, FLOAT).eval()(x, SparseTensor(index, value))
        return
    if name == "GCN2":
        csr = MATRICES["csr"](plain, weights)
        expected = copy.deepcopy(net)(x, csr)
    else:
        expected = copy.deepcopy(net)(x, plain, *arguments)
    result = nodebits.prepare(net, FLOAT).eval()(x, SparseTensor(index, value))
    torch.testing.assert_close(result, expected, rtol=2e-4, atol=2e-5)


def test_values_that_single_messages_would_drop_are_refused() -> None:
    """PyG's product of matrices multiplies with them before the maximum."""
    index, x = edges("simple"), torch.randn(NODES, WIDTH)
    matrix = MATRICES["csr"](index, values("weights", index.size(1)))
    net = Net(SAGEConv(WIDTH, 4, aggr="max")).eval()
    prepared = nodebits.prepare(net, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, x, index)
    packed = nodebits.convert(prepared)
    for model in (prepared.eval(), packed.predict):
        with pytest.raises(GraphError, match=r"'layer' .*has no edge weights.*to_edge_index"):
            model(x, matrix)
    ones = MATRICES["csr"](index, values("ones", index.size(1)))
    assert torch.equal(packed.predict(x, ones), packed.predict(x, index))


def test_weights_belong_to_an_edge_index() -> None:
    index = edges("simple")
    value = values("weights", index.size(1))
    net = nodebits.prepare(Net(GCNConv(WIDTH, 4)), FLOAT).eval()
    with pytest.raises(GraphError, match="cannot be given too"):
        net(torch.randn(NODES, WIDTH), MATRICES["csr"](index, value), value)


def test_packed_models_take_loops_in_a_matrix_without_edge_weights() -> None:
    """Calibrated without weights: the doubled loop must not ask for a range of weights."""
    index, x = edges("loops"), torch.randn(NODES, WIDTH)
    net = Net(GCNConv(WIDTH, 4)).eval()
    prepared = nodebits.prepare(net, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, x, index)
    packed = nodebits.convert(prepared)
    matrix = MATRICES["csr"](index, torch.ones(index.size(1)))
    result = packed.predict(x, matrix)
    assert torch.equal(result, prepared.eval()(x, matrix))
    assert float((result - net(x, matrix)).norm() / result.norm()) < 0.05


@pytest.mark.parametrize("layer", [GCNConv(WIDTH, 4), APPNP(2, 0.1), GCN2Conv(WIDTH, 0.1)])
def test_cached_layers_refuse_a_second_graph(layer: Any) -> None:
    layer.cached = True
    index, x = edges("simple"), torch.randn(NODES, WIDTH)
    prepared = nodebits.prepare(Net(layer), nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, x, index)
    packed = nodebits.convert(prepared)
    graph = packed.prepare_graph(index.clone(), NODES, reorder=True)
    assert torch.equal(packed.predict(x, index), packed.predict(x, graph))
    for other in (index[:, 1:], Graph(*graph_parts(index[:, :-1]))):
        with pytest.raises(GraphError, match="cached=True"):
            packed.predict(x, other)
    with pytest.raises(GraphError, match="cached=True"):
        packed.predict(x, index, values("weights", index.size(1)))


def graph_parts(index: Tensor) -> tuple[Tensor, Tensor, int]:
    matrix = MATRICES["csr"](index, torch.ones(index.size(1)))
    return matrix.crow_indices(), matrix.col_indices().int(), NODES


@pytest.mark.parametrize("kind", ["ones", "weights"])
@pytest.mark.parametrize("form", ["csr", "SparseTensor"])
def test_reordered_graphs_keep_loops_values_and_form(form: str, kind: str) -> None:
    index, x = edges("loops"), torch.randn(NODES, WIDTH)
    value = values(kind, index.size(1))
    adjacency = SparseTensor(index, value) if form == "SparseTensor" else coo(index, value)
    prepared = nodebits.prepare(
        Net(GCNConv(WIDTH, 4, improved=True)), nodebits.UniformConfig(bits=8, mode="ptq")
    )
    nodebits.calibrate(prepared, x, adjacency)
    packed = nodebits.convert(prepared)
    graph = packed.prepare_graph(adjacency, NODES)
    order = torch.randperm(NODES)
    expected = packed.predict(x, adjacency)
    assert torch.equal(packed.predict(x, graph), expected)
    assert torch.equal(packed.predict(x, ReorderedGraph(graph, order)), expected)
