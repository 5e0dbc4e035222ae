"""Layers of PyG and of users, prepared and packed: the class stays, the messages read codes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import (
    EGConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GENConv,
    SAGEConv,
    TransformerConv,
)
from user_layers import (
    EdgeAttention,
    GatedSum,
    MaxOfDifferences,
    OwnGATv2,
    OwnTransformer,
    Plain,
)

import nodebits
from nodebits.core.errors import ConfigError, GraphError, NodeIndexError, ShapeError
from nodebits.nn.propagate.layer import QuantMessagePassing

N, C, E = 30, 8, 120
PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
FLOAT = nodebits.UniformConfig(bits=32, attention_bits=32)
METHODS = (
    nodebits.UniformConfig(bits=4),
    nodebits.DegreeQuantConfig(bits=4),
    nodebits.A2QConfig(),
    nodebits.SGQuantConfig(bits=4),
    nodebits.SMPConfig(bits=4),
    nodebits.make_config("mixq"),
)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(N, C), torch.randint(N, (2, E)), torch.randn(E, 3)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def calibrated(layer: nn.Module, *args: Any, config: Any = PTQ) -> Any:
    prepared = nodebits.prepare(layer.eval(), config)
    nodebits.calibrate(prepared, *args)
    return prepared.eval()


USERS = {
    "attention": (lambda: EdgeAttention(C, 3), 3),
    "gated": (lambda: GatedSum(C), 2),
    "differences": (lambda: MaxOfDifferences(C), 2),
}


@pytest.mark.parametrize("name", USERS)
def test_a_user_s_layer_needs_no_line_of_ours(
    name: str, counted: list[Any], tmp_path: Path
) -> None:
    make, count = USERS[name]
    layer, args = make().eval(), inputs()[:count]
    with torch.no_grad():
        expected = layer(*args)
        as_float = calibrated(layer, *args, config=FLOAT)
        torch.testing.assert_close(as_float(*args), expected)
        prepared = calibrated(layer, *args)
        simulated = prepared(*args)
    assert isinstance(prepared, type(layer)) and prepared.runs == "tiled"
    assert error(simulated, expected) < 0.02
    packed = nodebits.convert(prepared)
    counted.clear()
    found = packed.predict(*args)
    assert len(counted) > 5
    torch.testing.assert_close(found, simulated, rtol=1e-5, atol=1e-5)
    packed.save(tmp_path / "layer.safetensors")
    loaded = nodebits.load(tmp_path / "layer.safetensors", model=make())
    assert torch.equal(loaded.predict(*args), found) and loaded.module.runs == "tiled"


def test_functions_without_annotations_and_arguments_left_out(counted: list[Any]) -> None:
    layer, (x, edges, _) = Plain(C), inputs()
    with torch.no_grad():
        messages = torch.tanh(0.5 * layer.lin(x))
        expected = torch.zeros(N, C).index_add(0, edges[1], messages[edges[0]])
        torch.testing.assert_close(calibrated(layer, x, edges, config=FLOAT)(x, edges), expected)
        prepared = calibrated(layer, x, edges)
        simulated = prepared(x, edges)
    assert prepared.runs == "tiled" and error(simulated, expected) < 0.02
    counted.clear()
    torch.testing.assert_close(nodebits.convert(prepared).predict(x, edges), simulated)
    assert counted


def test_a_file_of_another_layer_is_refused(tmp_path: Path) -> None:
    x, edges, _ = inputs()
    packed = nodebits.convert(calibrated(GatedSum(C), x, edges))
    packed.save(tmp_path / "layer.safetensors")

    class Other(GatedSum):
        pass

    with pytest.raises(ConfigError, match=r"a Other in the module, a .*GatedSum in the file"):
        nodebits.load(tmp_path / "layer.safetensors", model=Other(C))


def test_the_layer_keeps_its_class_attributes_and_hooks() -> None:
    conv = OwnGATv2(C, 4, heads=2, edge_dim=3)
    conv.note, seen = "mine", []
    conv.register_forward_hook(lambda *args: seen.append(args[0]))
    x, edges, attributes = inputs()
    prepared = calibrated(conv, x, edges, attributes)
    assert isinstance(prepared, GATv2Conv) and isinstance(prepared, QuantMessagePassing)
    assert prepared.heads == 2 and prepared.note == "mine" and seen == [prepared]
    assert "QuantOwnGATv2" in repr(prepared) and "runs integer sum" in repr(prepared)
    assert conv.fuse == GATv2Conv(C, 4).fuse and not hasattr(conv, "course")


def test_attention_weights_follow_the_user_s_edges(counted: list[Any]) -> None:
    x, edges, attributes = inputs()
    for layer, keep in (
        (OwnTransformer(C, 4, heads=2, edge_dim=3), {"return_attention_weights": True}),
        (OwnGATv2(C, 4, heads=2, edge_dim=3), {"return_attention_weights": True}),
    ):
        layer.eval()
        with torch.no_grad():
            prepared = calibrated(layer, x, edges, attributes)
            out, (index, alpha) = layer(x, edges, attributes, **keep)
            counted.clear()
            found, (found_index, found_alpha) = prepared(x, edges, attributes, **keep)
        assert len(counted) > 5
        assert torch.equal(index, found_index) and error(found, out) < 0.02
        assert (alpha - found_alpha).abs().max() < 0.02
    attention = calibrated(EdgeAttention(C, 3), x, edges, attributes)
    with torch.no_grad():
        once = attention(x, edges, attributes, keep=True)[1]
    assert once.shape == (E, 2)


@pytest.mark.parametrize("config", METHODS, ids=lambda c: c.method)
def test_every_method_trains_the_layer(config: Any) -> None:
    torch.manual_seed(0)
    x, edges, attributes = inputs()
    conv = OwnTransformer(C, 4, heads=2, edge_dim=3)
    prepared = nodebits.prepare(conv, config)
    nodebits.calibrate(prepared, x, edges, attributes)
    prepared.train()
    prepared(x, edges, attributes).square().mean().backward()
    assert all(p.grad is not None for p in conv.parameters() if p.requires_grad) or all(
        prepared.get_parameter(name).grad is not None
        for name, p in prepared.named_parameters()
        if "lin_" in name and "weight" in name and "quantized" not in name
    )
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        simulated = prepared.eval()(x, edges, attributes)
    torch.testing.assert_close(
        packed.predict(x, edges, attributes), simulated, rtol=1e-4, atol=1e-5
    )


def test_pairs_of_sources_and_targets(counted: list[Any]) -> None:
    source, target = torch.randn(N, C), torch.randn(12, 5)
    edges = torch.stack([torch.randint(N, (E,)), torch.randint(12, (E,))])
    attributes = torch.randn(E, 3)
    conv = OwnGATv2((C, 5), 4, heads=2, add_self_loops=False, edge_dim=3).eval()
    prepared = calibrated(conv, (source, target), edges, attributes)
    assert prepared.message_x_dst.known
    with torch.no_grad():
        expected = conv((source, target), edges, attributes)
        assert error(prepared((source, target), edges, attributes), expected) < 0.02
    packed = nodebits.convert(prepared)
    counted.clear()
    assert error(packed.predict((source, target), edges, attributes), expected) < 0.02
    assert len(counted) > 5
    alone = SAGEConv(C, 4, aggr="max", root_weight=False).eval()
    prepared = calibrated(alone, (source, None), edges)
    with torch.no_grad():
        expected = alone((source, None), edges, size=(N, 12))
        found = prepared((source, None), edges, size=(N, 12))
    assert found.shape == (12, 4) and error(found, expected) < 0.02


def test_adjacency_forms_give_one_result(counted: list[Any]) -> None:
    x = torch.randn(N, C)
    edges = (torch.rand(N, N) < 0.15).nonzero().t().contiguous()
    conv = SAGEConv(C, 4, aggr="median").eval()  # of which there is no integer form
    packed = nodebits.convert(calibrated(conv, x, edges))
    expected = packed.predict(x, edges)
    matrix = torch.sparse_coo_tensor(edges.flip(0), torch.ones(edges.size(1)), (N, N)).coalesce()
    lying = EdgeIndex(edges, sparse_size=(N, N), sort_order="col")  # they are sorted by row
    for form in (matrix, matrix.to_sparse_csr(), lying, packed.prepare_graph(edges, N)):
        counted.clear()
        assert torch.equal(packed.predict(x, form), expected), type(form)
        assert counted


@pytest.mark.parametrize("aggregators", [["symnorm"], ["sum", "symnorm", "std"], ["sum"]])
def test_values_that_a_layer_puts_into_its_matrix_are_its_weights(aggregators: list[str]) -> None:
    x, edges, _ = inputs()
    values = torch.rand(edges.size(1)) + 0.1
    matrix = torch.sparse_coo_tensor(edges.flip(0), values, (N, N)).coalesce().to_sparse_csr()
    conv = EGConv(C, 8, aggregators, add_self_loops=False).eval()
    if "symnorm" not in aggregators:  # PyG's product multiplies with them, its messages do not
        with pytest.raises(GraphError, match="no edge weights in its messages"):
            calibrated(conv, x, matrix)
        return
    packed = nodebits.convert(calibrated(conv, x, matrix))
    with torch.no_grad():
        assert error(packed.predict(x, matrix), conv(x, matrix)) < 0.02


def test_wrong_inputs_are_named() -> None:
    x, edges, attributes = inputs()
    packed = nodebits.convert(
        calibrated(GENConv(C, C, edge_dim=3, aggr="power"), x, edges, attributes)
    )
    with pytest.raises(NodeIndexError, match="30"):
        packed.predict(x, torch.tensor([[0], [N]]), attributes[:1])
    with pytest.raises(ShapeError, match="size or another tensor says 7"):
        packed.predict(x, edges, attributes, size=(N, 7))
    with pytest.raises(ShapeError, match=r"'edge_attr'.*\[119.*120 edges"):
        packed.predict(x, edges, attributes[1:])


@pytest.mark.parametrize(
    "edges",
    [torch.zeros(1, 4, dtype=torch.int64), torch.zeros(2, 4), torch.zeros(4, dtype=torch.int64), 3],
    ids=["one row", "floats", "a vector", "a number"],
)
def test_what_is_no_adjacency_is_named(edges: Any) -> None:
    prepared = calibrated(GatedSum(C), *inputs()[:2])
    with pytest.raises(GraphError, match="GatedSum"):
        prepared(torch.randn(N, C), edges)


@pytest.mark.parametrize("make", [TransformerConv, GENConv, GATv2Conv])
def test_features_of_other_edges_are_named_before_any_range_is_taken(make: Any) -> None:
    x, edges, attributes = inputs()
    prepared = nodebits.prepare(make(C, C, edge_dim=3), PTQ)
    with pytest.raises(ShapeError, match=r"edge_attr'? .*\[119, 3\].*120 edges"):
        nodebits.calibrate(prepared, x, edges, attributes[1:])


@pytest.mark.parametrize("make", [GCNConv, SAGEConv, GATConv, GATv2Conv])
def test_flags_of_an_adjacency_that_lie_change_nothing(make: Any) -> None:
    x, edges, _ = inputs()
    packed = nodebits.convert(calibrated(make(C, C), x, edges))
    lying = EdgeIndex(edges, sparse_size=(N, N), sort_order="col", is_undirected=True)
    torch.testing.assert_close(packed.predict(x, lying), packed.predict(x, edges))
    if make is GATv2Conv:
        return  # its forward makes new edges, with loops, of as many nodes as there are
    small = EdgeIndex(edges, sparse_size=(N - 5, N - 5))
    with pytest.raises((NodeIndexError, ShapeError, GraphError)):
        packed.predict(x, small)


@pytest.mark.parametrize("name", USERS)
def test_a_user_s_layer_is_trained_at_4_bits(name: str, tmp_path: Path) -> None:
    make, count = USERS[name]
    x, edges, attributes = inputs()
    part = torch.arange(N) % 3
    data = Data(x=x, edge_index=edges, y=(x[:, 0] > 0).long())
    for i, split in enumerate(("train", "val", "test")):
        data[f"{split}_mask"] = part == i
    if count == 3:
        data.edge_attr = attributes
    model = make()
    before = [p.detach().clone() for p in model.parameters()]
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    nodebits.fit(prepared, data, nodebits.FitConfig(epochs=50, lr=0.02, progress=False))
    assert any(not torch.equal(a, b) for a, b in zip(before, prepared.parameters(), strict=False))
    args = (x, edges, attributes)[:count]
    with torch.no_grad():
        simulated = prepared.eval()(*args)
    accuracy = (simulated.argmax(1) == data.y)[data.train_mask].float().mean()
    assert accuracy > 0.7
    packed = nodebits.convert(prepared)
    found = packed.predict(*args)
    torch.testing.assert_close(found, simulated, rtol=1e-4, atol=1e-4)
    packed.save(tmp_path / "layer.safetensors")
    loaded = nodebits.load(tmp_path / "layer.safetensors", model=make())
    assert torch.equal(loaded.predict(*args), found)


def test_copies_and_pickles_compute_the_same() -> None:
    x, edges, _ = inputs()
    prepared = calibrated(SAGEConv(C, 4, aggr="max"), x, edges)
    with torch.no_grad():
        expected = prepared(x, edges)
        for other in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
            assert torch.equal(other(x, edges), expected)


def test_messages_can_be_explained() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GatedSum(C)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index).log_softmax(-1)

    x, edges, _ = inputs()
    prepared = calibrated(Net(), x, edges)
    explainer = Explainer(
        prepared,
        GNNExplainer(epochs=3),
        explanation_type="model",
        edge_mask_type="object",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "node",
            "return_type": "log_probs",
        },
    )
    assert explainer(x, edges).edge_mask.shape == (E,)
    with torch.no_grad():
        assert prepared(x, edges).shape == (N, C)


def test_ranges_can_be_trained_without_calibration() -> None:
    """The trial is then made at the first evaluation."""
    x, edges, _ = inputs()
    prepared = nodebits.prepare(GatedSum(C), nodebits.UniformConfig(bits=8)).train()
    prepared(x, edges).sum().backward()
    packed = nodebits.convert(prepared)
    assert packed.module.course.form == "untried"
    first = packed.predict(x, edges)
    assert packed.module.runs == "tiled"
    torch.testing.assert_close(packed.predict(x, edges), first)
