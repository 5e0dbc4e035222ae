"""Inputs and comparisons that the tests of every layer share."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex

import nodebits
from nodebits.engine.weight import PackedWeight
from nodebits.nn import QuantLayer
from nodebits.nn.propagation import Propagation, observing_states

NODES, TARGETS, WIDTH = 24, 10, 12
FLOAT = nodebits.UniformConfig(bits=32, attention_bits=32)
BITS = (8, 4, 2, 1)


def configs(bits: int, *overrides: dict[str, Any]) -> list[Any]:
    """What the tests of a layer prepare it with: presets and sites of their own width at 4 bits."""
    uniform, degrees = nodebits.UniformConfig, nodebits.DegreeQuantConfig
    found = [
        uniform(bits=bits),
        uniform(bits=bits, attention_bits=bits),
        uniform(bits=bits, mode="ptq", output_bits=6),
        degrees(bits=bits),
    ]
    if bits == 4:
        found += [kind(bits=bits, preset="published") for kind in (uniform, degrees)]
        found += [uniform(bits=bits, overrides=one) for one in overrides]
    return found


def features(rows: int = NODES, cols: int = WIDTH) -> Tensor:
    return torch.randn(rows, cols)


def edges(num_src: int = NODES, num_dst: int = NODES, count: int = 80) -> Tensor:
    """Random edges, duplicates and (where nodes are both) loops; the last two targets isolated."""
    index = torch.stack([torch.randint(num_src, (count,)), torch.randint(num_dst - 2, (count,))])
    loops = torch.tensor([[1, 3], [1, 3]])
    return torch.cat([index, index[:, :10], loops], 1)


def simple_edges() -> Tensor:
    """Without loops and duplicates: sparse matrices merge the ones, PyG adds the others twice."""
    dense = (torch.rand(NODES, NODES) < 0.15).fill_diagonal_(False)
    dense[:, -1] = False
    return dense.nonzero().t().contiguous()


def adjacency_forms(index: Tensor) -> dict[str, Any]:
    """Forms that both PyG and nodebits take, for a square graph."""
    ones = torch.ones(index.size(1))
    matrix = torch.sparse_coo_tensor(index.flip(0), ones, (NODES, NODES)).coalesce()
    return {
        "edge_index": index,
        "EdgeIndex": EdgeIndex(index, sparse_size=(NODES, NODES)),
        "coo": matrix,
        "csr": matrix.to_sparse_csr(),
    }


def assert_equals_float(layer: nn.Module, *inputs: Any, **keywords: Any) -> None:
    """With every site in float, ``layer`` computes what PyG computes, gradients included."""
    layer.eval()
    prepared = nodebits.prepare(layer, FLOAT)
    assert isinstance(prepared, QuantLayer)
    sources = [t for t in _tensors(inputs) if t.is_floating_point() and t.layout == torch.strided]
    for tensor in sources:
        tensor.requires_grad_()
    expected, actual = layer(*inputs, **keywords), prepared(*inputs, **keywords)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    if not expected.requires_grad:
        return
    upstream = torch.randn_like(expected)
    parameters = dict(layer.named_parameters())
    mine = dict(prepared.named_parameters())
    assert mine.keys() == parameters.keys()
    wanted = _gradients(expected, [*parameters.values(), *sources], upstream)
    got = _gradients(actual, [*(mine[name] for name in parameters), *sources], upstream)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def _gradients(y: Tensor, sources: list[Tensor], upstream: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(y, sources, upstream, allow_unused=True)
    return [torch.zeros_like(s) if g is None else g for s, g in zip(sources, found, strict=True)]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, tuple) else []


def quantized(layer: nn.Module, config: Any, *inputs: Any) -> nn.Module:
    prepared = nodebits.prepare(layer, config).eval()
    nodebits.calibrate(prepared, *inputs)
    return prepared


def assert_converts(layer: nn.Module, config: Any, *inputs: Any) -> nodebits.PackedModel:
    """Packed and simulated outputs are the same bits, and no float copy of a weight remains."""
    prepared = quantized(layer, config, *inputs)
    # Only the module is asked. A call of the model makes the plan, which takes the most time here.
    with mock.patch.object(nodebits.PackedModel, "be_ready_for", _keep_example):
        packed = nodebits.convert(prepared)
    with torch.no_grad():
        expected = prepared(*inputs)
        assert torch.isfinite(expected).all()
        assert torch.equal(packed.module(*inputs), expected)
    assert_no_float_weights(packed)
    return packed


def _keep_example(packed: nodebits.PackedModel, example: Any) -> None:
    packed.example = example


def assert_no_float_weights(packed: nn.Module) -> None:
    for path, module in packed.named_modules():
        if not isinstance(module, QuantLayer):
            continue
        own = dict(module.named_parameters(recurse=False))
        for name, weight in module.named_children():
            if isinstance(weight, PackedWeight) and weight.bits is not None:
                assert weight.packed.dtype == torch.uint8, f"{path}.{name}"
                assert not own.keys() & {"weight", "att_src", "att_dst"}, path
    for name, tensor in packed.state_dict().items():
        if name.endswith(".packed"):
            assert tensor.dtype in (torch.uint8, torch.float32)


def assert_state_survives(layer: nn.Module, config: Any, *inputs: Any) -> None:
    """deepcopy, state_dict and reset_parameters of a prepared layer."""
    prepared = quantized(layer, config, *inputs)
    with torch.no_grad():
        expected = prepared(*inputs)
        assert torch.equal(copy.deepcopy(prepared)(*inputs), expected)
        fresh = nodebits.prepare(layer, config).eval()
        fresh.reset_parameters()  # type: ignore[operator]
        fresh.load_state_dict(prepared.state_dict())
        assert torch.equal(fresh(*inputs), expected)


def assert_fused_steps_are_the_steps(
    layer: nn.Module, index: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One operator call computes, and accounts for, what the steps one by one do."""
    packed = nodebits.convert(quantized(layer, nodebits.UniformConfig(bits=3), features(), index))
    x = features()
    calls = []
    plain = Propagation.run_packed

    def counted(self: Propagation, *args: Any) -> Tensor | None:
        out = plain(self, *args)
        calls.append(out is not None)
        return out

    monkeypatch.setattr(Propagation, "run_packed", counted)
    fused, account = packed.predict(x, index), packed.account(x, index)
    with observing_states() as states:
        expected, stepwise = packed.predict(x, index), packed.account(x, index)
    assert calls == [True, True, False, False] and len(states) == 2 * layer.K
    assert torch.equal(fused, expected) and account == stepwise
