"""What every registered layer keeps, from the float layer to the file and back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import GraphError, NodebitsError, NodeIndexError, ShapeError
from nodebits.engine.weight import PackedWeight
from nodebits.nn import registry as layers
from nodebits.nn.layer import QuantLayer
from nodebits.nn.quantizers import Quantizer, WeightQuantizer
from nodebits.nn.registry import layer_for
from nodebits.runtime import PackedModel

from .layers import (
    BITS,
    ELSEWHERE,
    NODES,
    SAMPLES,
    WIDTH,
    edges,
    float_layer,
    inputs,
    packed,
    trained,
)

FLOAT = nodebits.UniformConfig(bits=32, attention_bits=32)
Kind = type[nn.Module]


def named(kinds: Iterable[Kind]) -> pytest.MarkDecorator:
    ids = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in kinds]
    return pytest.mark.parametrize("kind", kinds, ids=ids)


every_layer = named(SAMPLES)
every_graph_layer = named([k for k, s in SAMPLES.items() if s.reads in ("graph", "start")])
# What float types document of themselves, and models read.
READABLE = (
    "num_embeddings", "embedding_dim", "in_channels", "out_channels", "in_features",
    "out_features", "heads", "aggr", "K", "alpha", "cached", "node_dim", "flow",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def both(kind: Kind) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The layer prepared and packed, to be called."""
    return trained(kind), packed(kind).predict


def test_every_registered_type_has_a_sample() -> None:
    assert {*SAMPLES, *ELSEWHERE} == set(layers._by_float_type)


@every_layer
def test_float_sites_compute_what_the_float_layer_does(kind: Kind) -> None:
    layer = float_layer(kind).eval()
    prepared = nodebits.prepare(layer, FLOAT).eval()
    expected = layer(*inputs(kind))
    torch.testing.assert_close(prepared(*inputs(kind)), expected, rtol=1e-5, atol=1e-5)


@every_layer
def test_a_step_of_training_reaches_every_parameter(kind: Kind) -> None:
    prepared = trained(kind).train()
    with torch.enable_grad():
        prepared(*inputs(kind)).square().mean().backward()
    reached = {n: p.grad for n, p in prepared.named_parameters() if p.grad is not None}
    assert {n for n, _ in float_layer(kind).named_parameters()} <= reached.keys()
    assert all(bool(gradient.isfinite().all()) for gradient in reached.values())


@every_layer
def test_packed_equals_prepared_and_holds_no_float_weight(kind: Kind) -> None:
    expected, found = (run(*inputs(kind)) for run in both(kind))
    assert bool(expected.isfinite().all()) and float(expected.std()) > 0
    assert torch.equal(found, expected)
    for path, module in packed(kind).named_modules():
        assert not isinstance(module, Quantizer | WeightQuantizer), path
        if isinstance(module, PackedWeight):
            wanted = 8 if path.endswith("att_weight") else BITS  # one of few values: attention_bits
            assert module.bits == wanted and module.packed.dtype == torch.uint8, path


@every_layer
def test_saved_and_loaded_is_the_same(kind: Kind, tmp_path: Path) -> None:
    packed(kind).save(tmp_path / "layer.safetensors")
    loaded = nodebits.load(tmp_path / "layer.safetensors", model=float_layer(kind))
    assert torch.equal(loaded.predict(*inputs(kind)), packed(kind).predict(*inputs(kind)))
    assert loaded.state_dict().keys() == packed(kind).state_dict().keys()
    for layer in (trained(kind), packed(kind).module, loaded.module):
        assert_stands_in(layer, kind)


def assert_stands_in(layer: nn.Module, kind: Kind) -> None:
    """A layer is of the type it replaces, and says what that type documents."""
    module = float_layer(kind)
    assert isinstance(layer, kind) and isinstance(layer, QuantLayer)
    assert isinstance(layer, nn.Linear) == issubclass(kind, nn.Linear)
    assert layer_for(layer) is None, "a prepared layer is not prepared again"
    assert type(layer).__name__ in repr(layer)
    for name in READABLE:
        if hasattr(module, name):
            assert getattr(layer, name) == getattr(module, name), name


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
@every_layer
def test_copies_compute_the_same(kind: Kind, copied: Callable[[nn.Module], nn.Module]) -> None:
    for layer in (trained(kind), packed(kind)):
        again = copied(layer)
        assert isinstance(again.module if isinstance(again, PackedModel) else again, kind)
        stored = {t.data_ptr() for t in layer.state_dict().values() if t.numel()}
        assert stored.isdisjoint(t.data_ptr() for t in again.state_dict().values())
        assert torch.equal(again(*inputs(kind)), layer(*inputs(kind)))


@every_layer
def test_a_state_dict_says_it_all(kind: Kind) -> None:
    layer = trained(kind)
    fresh = nodebits.prepare(float_layer(kind), nodebits.UniformConfig(bits=BITS)).eval()
    fresh.reset_parameters()  # type: ignore[operator]
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(*inputs(kind)), layer(*inputs(kind)))


@every_layer
def test_the_account_counts_every_site(kind: Kind) -> None:
    account = packed(kind).account(*inputs(kind))
    stored = {
        path: module
        for path, module in packed(kind).module.named_modules()
        if isinstance(module, PackedWeight)
    }
    assert {f"{w.layer}.{w.site}".strip(".") for w in account.weights if w.at_site} == set(stored)
    counted = [entry for entry in (*account.sites, *account.weights) if entry.at_site]
    assert counted and not account.float_layers
    widths = {entry.bits for entry in counted if not entry.site.startswith("att")}
    found = layer_for(float_layer(kind))
    sums = found is not None and found.reads_sums(float_layer(kind)) is not None
    assert widths == ({BITS, 8} if sums else {BITS})


@every_layer
def test_what_is_saved_is_what_the_class_declares(kind: Kind) -> None:
    for module in packed(kind).modules():
        if isinstance(module, QuantLayer):
            named = type(module).quant_type or type(module)
            assert layers.layer_by_name(named.__name__) is named
            assert set(module.config()) == set(named.options)
            assert module.required_sites() <= module.sites_config().keys()


WRONG: dict[str, Callable[[Any], Any]] = {
    "one row": lambda x: x[0],
    "whole numbers": lambda x: x.long(),
    "a wider matrix": lambda x: torch.cat([x, x[:, :1]], 1),
    "text": lambda x: "x",
    "nothing": lambda x: None,
}


@pytest.mark.parametrize("wrong", WRONG)
@every_layer
def test_wrong_rows_are_refused_with_the_layers_name(kind: Kind, wrong: str) -> None:
    if SAMPLES[kind].reads == "indices":
        pytest.skip("indices are tried in the test of indices")
    try:
        # Some float layers take rows of any width.
        float_layer(kind).eval()(WRONG[wrong](inputs(kind)[0]), *inputs(kind)[1:])
    except Exception:
        for run in both(kind):
            with pytest.raises(ShapeError, match=r"(layer|argument) .*expected"):
                run(WRONG[wrong](inputs(kind)[0]), *inputs(kind)[1:])


@every_graph_layer
def test_wrong_edges_are_refused(kind: Kind) -> None:
    *rows, good = inputs(kind)
    far = good.clone()
    far[0, 3] = NODES
    for edge_index in (far, far - NODES - 1, good.float(), good[0], good[:, 0], "edges", None):
        for run in both(kind):
            with pytest.raises((GraphError, NodeIndexError)):
                run(*rows, edge_index)


@pytest.mark.parametrize("rows", [0, 1, NODES])
@every_layer
def test_graphs_without_edges(kind: Kind, rows: int) -> None:
    none = torch.empty(2, 0, dtype=torch.int64)
    columns = float_layer(kind).eval()(*inputs(kind)).shape[1:]
    simulated, found = (run(*inputs(kind, rows, none)) for run in both(kind))
    assert torch.equal(found, simulated)
    assert found.shape == (rows, *columns) and bool(found.isfinite().all())


@every_graph_layer
def test_nodes_without_edges_stay_by_themselves(kind: Kind) -> None:
    """What the last two nodes get does not depend on the rest of the graph."""
    x, *others = inputs(kind)
    for run in both(kind):
        last = run(x, *others)[-2:]
        moved = run(torch.cat([x[:-2].flip(0), x[-2:]]), *others)[-2:]
        assert bool(last.isfinite().all()) and torch.equal(moved, last)


@every_graph_layer
def test_pairs_where_the_float_layer_takes_them(kind: Kind) -> None:
    x, edge_index = torch.randn(NODES, WIDTH), edges()
    pair, few = (x, x[:5].clone()), edge_index[:, edge_index[1] < 5]
    arguments = (pair, x[:5], few) if SAMPLES[kind].reads == "start" else (pair, few)
    layer = float_layer(kind).eval()
    try:
        expected = layer(*arguments)
    except Exception:
        expected = None
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=8, mode="ptq")).eval()
    if expected is None:
        with pytest.raises(NodebitsError):
            prepared(*arguments)
        return
    nodebits.calibrate(prepared, *arguments)
    simulated = prepared(*arguments)
    assert torch.equal(nodebits.convert(prepared).predict(*arguments), simulated)
    assert float((simulated - expected).norm() / expected.norm()) < 0.1


@every_layer
def test_reset_forgets_the_ranges(kind: Kind) -> None:
    layer = trained(kind)
    layer.reset_parameters()
    again = nodebits.prepare(float_layer(kind), nodebits.UniformConfig(bits=BITS))
    assert layer.unseen_sites() == again.unseen_sites()
