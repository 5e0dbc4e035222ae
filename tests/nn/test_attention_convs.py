"""GATv2Conv and TransformerConv: integer scores of both ends, GATConv's integer softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import GATv2Conv, TransformerConv

import nodebits
from nodebits.core.errors import AccumulatorOverflowError, ConfigError, ShapeError
from nodebits.methods import SGQuantConfig, UniformConfig
from nodebits.nn import pairs
from nodebits.nn.gatv2_conv import QuantGATv2Conv
from nodebits.nn.transformer_conv import QuantTransformerConv

from .cases import (
    BITS,
    NODES,
    TARGETS,
    WIDTH,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    configs,
    edges,
    features,
    quantized,
)

OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    (GATv2Conv, {}),
    (GATv2Conv, {"heads": 3, "share_weights": True}),
    (GATv2Conv, {"heads": 3, "concat": False, "negative_slope": 0.01}),
    (GATv2Conv, {"heads": 2, "residual": True, "add_self_loops": False}),
    (GATv2Conv, {"heads": 2, "concat": False, "residual": True, "bias": False}),
    (TransformerConv, {}),
    (TransformerConv, {"heads": 3, "beta": True}),
    (TransformerConv, {"heads": 2, "concat": False, "root_weight": False}),
    (TransformerConv, {"heads": 2, "concat": False, "beta": True, "bias": False}),
]
each = pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
both = pytest.mark.parametrize("kind", [GATv2Conv, TransformerConv])


@each
def test_float_sites(kind: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "EDGE_BLOCK", 17)
    assert_equals_float(kind(WIDTH, 4, **options), features(), edges())
    loops = {"add_self_loops": False} if kind is GATv2Conv else {}
    pair = features(), features(TARGETS, 7)
    layer = kind(
        (WIDTH, 7), 4, **{**options, **loops, "share_weights": False} if loops else options
    )
    assert_equals_float(layer, pair, edges(NODES, TARGETS))


@pytest.mark.parametrize("bits", BITS)
@each
def test_packed_is_the_simulation(kind: Any, bits: int, options: dict[str, Any]) -> None:
    layer = kind(WIDTH, 4, **options)
    own = {"message*": 3, "att*": 6}, {"attention": 32}, {"att*": 32}, {"message*": 32}
    degrees = SGQuantConfig(bits=bits, degree_bits=(2, 4, 8, 8))
    for config in (*configs(bits, *own), degrees):
        assert_converts(layer, config, features(), edges())


@both
def test_pairs_are_packed(kind: Any) -> None:
    options = {"add_self_loops": False} if kind is GATv2Conv else {}
    pair = features(), features(TARGETS, 7)
    for bits in (8, 2):
        layer = kind((WIDTH, 7), 4, heads=2, **options)
        assert_converts(layer, UniformConfig(bits=bits), pair, edges(NODES, TARGETS))
    prepared = quantized(layer, UniformConfig(bits=4), pair, edges(NODES, TARGETS))
    with pytest.raises(ShapeError, match="both ends"):
        prepared((pair[0], None), edges(NODES, TARGETS))


@both
def test_states(kind: Any) -> None:
    assert_state_survives(kind(WIDTH, 4, heads=2), UniformConfig(bits=4), features(), edges())


@both
def test_eight_bits_are_close_and_the_plan_is_whole(kind: Any) -> None:
    layer = kind(WIDTH, 16, heads=2).eval()
    x, index = features(), edges()
    prepared = quantized(layer, UniformConfig(bits=8, mode="ptq"), x, index)
    packed = nodebits.convert(prepared)
    expected, found = layer(x, index), packed.predict(x, index)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    plan = packed.plan(x, index)
    assert not isinstance(plan, str), plan
    steps = [step["op"] for step in plan.about["steps"]]
    assert "attention_codes" in steps and "fused_spmm" in steps and "module" not in steps
    assert packed.module.runs == "integer sum"


@both
def test_attention_weights_are_those_of_the_user_s_edges(kind: Any) -> None:
    layer = kind(WIDTH, 4, heads=2).eval()
    x, index = features(), edges()
    prepared = quantized(layer, UniformConfig(bits=8, mode="ptq"), x, index).eval()
    packed = nodebits.convert(prepared)
    out, (theirs, alpha) = layer(x, index, return_attention_weights=True)
    for model in (prepared, packed):
        found, (mine, weights) = model(x, index, return_attention_weights=True)
        assert torch.equal(mine, theirs)
        assert float((weights - alpha).abs().max()) < 0.02
        assert float((found - out).norm() / out.norm()) < 0.03


@both
def test_gradients_follow_float(kind: Any) -> None:
    x, index = features(), edges()
    layer = kind(WIDTH, 4, heads=2)
    prepared = quantized(layer, UniformConfig(bits=8), x, index)
    upstream = torch.randn(NODES, 8)
    for model in (layer, prepared):
        model(x, index).backward(upstream)
    pairs_of = [(prepared.get_parameter(n).grad, p.grad) for n, p in layer.named_parameters()]
    mine, wanted = (torch.cat([g.flatten() for g in side]) for side in zip(*pairs_of, strict=True))
    assert torch.cosine_similarity(mine, wanted, dim=0) > 0.97


@both
def test_the_order_of_edges_is_of_no_matter(kind: Any) -> None:
    x, index = features(), edges()
    prepared = quantized(kind(WIDTH, 4, heads=2), UniformConfig(bits=4), x, index)
    packed = nodebits.convert(prepared)
    other = index[:, torch.randperm(index.size(1))]
    assert torch.equal(packed.predict(x, other), packed.predict(x, index))


def test_both_ends_have_one_scale() -> None:
    """The larger of both maps gives the range, in whatever order they come."""
    layer = GATv2Conv(WIDTH, 4, add_self_loops=False)
    with torch.no_grad():
        layer.lin_r.weight.mul_(20)
    x, index = features(), edges()
    prepared = quantized(layer, UniformConfig(bits=8, mode="ptq"), x, index)
    assert isinstance(prepared, QuantGATv2Conv)
    scale, _ = prepared.message.qparams()  # type: ignore[union-attr, operator]
    extent = layer.lin_r(x).abs().amax(0)
    assert bool((scale * 255 > 0.5 * extent).all())


def test_scores_that_could_pass_int32_are_refused() -> None:
    for kind in (GATv2Conv, TransformerConv):
        with pytest.raises(AccumulatorOverflowError, match="20000 columns"):
            nodebits.prepare(kind(2, 20_000), UniformConfig(bits=8))


def test_a_scale_per_row_is_refused() -> None:
    layer = TransformerConv(WIDTH, 4)
    prepared = quantized(layer, UniformConfig(bits=8, mode="ptq"), features(), edges())
    assert isinstance(prepared, QuantTransformerConv)
    prepared.message_key = nodebits.nn.quantizers.DynamicRowQuantizer(8)
    with pytest.raises(ConfigError, match="'message_key' holds rows that meet others"):
        prepared(features(), edges())
