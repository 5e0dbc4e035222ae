"""GMMConv: sums weighed by codes of Gaussians, then one map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GMMConv

import nodebits
from nodebits.core.errors import ShapeError
from nodebits.methods import DegreeQuantConfig, UniformConfig
from nodebits.nn.propagate.layer import QuantMessagePassing

from .cases import (
    BITS,
    NODES,
    TARGETS,
    WIDTH,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    edges,
    features,
    quantized,
)

DIM, OUT, KERNELS = 2, 5, 3
LAYERS: dict[str, dict[str, Any]] = {
    "mean": {},
    "sum without bias": {"aggr": "add", "bias": False},
}
each = pytest.mark.parametrize("name", LAYERS)


def made(name: str, width: Any = WIDTH) -> nn.Module:
    return GMMConv(width, OUT, DIM, KERNELS, **LAYERS[name])


def inputs(x: Any = None, index: Tensor | None = None) -> tuple[Any, ...]:
    x, index = features() if x is None else x, edges() if index is None else index
    return x, index, features(index.size(1), DIM)


def pair() -> tuple[Any, ...]:
    return inputs((features(), features(TARGETS, 4)), edges(NODES, TARGETS))


@each
def test_float_sites(name: str) -> None:
    assert_equals_float(made(name), *inputs())
    assert_equals_float(made(name, (WIDTH, 4)), *pair())


@pytest.mark.parametrize("bits", BITS)
@each
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    given = inputs()
    for config in (
        UniformConfig(bits=bits),
        UniformConfig(bits=bits, attention_bits=bits, mode="ptq", output_bits=6),
        DegreeQuantConfig(bits=bits),
        UniformConfig(bits=bits, overrides={"message": 32}),
        UniformConfig(bits=bits, overrides={"att_weight_edge": 32}),
    ):
        assert_converts(made(name), config, *given)
    assert_converts(made(name, (WIDTH, 4)), UniformConfig(bits=bits), *pair())


@each
def test_eight_bits_are_close_and_the_plan_is_whole(name: str) -> None:
    layer, given = made(name).eval(), inputs()
    packed = nodebits.convert(quantized(layer, UniformConfig(bits=8, mode="ptq"), *given))
    expected, found = layer(*given).detach(), packed.predict(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    steps = [step["op"] for step in packed.plan(*given).about["steps"]]
    assert "fused_outer_sum" in steps and not {"module", "torch"} & {*steps}
    assert torch.equal(packed.predict(*given), found)
    assert_state_survives(layer, UniformConfig(bits=4), *given)


def test_a_layer_that_was_lazy() -> None:
    layer, given = made("mean", -1), inputs()
    layer(*given)
    assert_equals_float(layer, *given)


def test_what_has_no_such_form_runs_on_tiles() -> None:
    for options in ({"separate_gaussians": True}, {"aggr": "max"}):
        layer = GMMConv(WIDTH, OUT, DIM, KERNELS, **options)
        prepared = nodebits.prepare(layer, UniformConfig(bits=8))
        assert isinstance(prepared, QuantMessagePassing)


def test_what_does_not_fit_is_refused() -> None:
    x, index, attr = inputs()
    prepared = quantized(made("mean"), UniformConfig(bits=8), x, index, attr)
    for bad in (None, attr[1:], features(index.size(1), DIM + 1)):
        with pytest.raises(ShapeError, match="edge_attr"):
            prepared(x, index, bad)
