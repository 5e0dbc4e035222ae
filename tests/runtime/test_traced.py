"""Packed models under torch.compile and torch.export: one operator, for graphs of any size."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import ConfigError, UnsupportedLayerError
from nodebits.plan.operator import described
from nodebits.plan.plan import Plan
from nodebits.runtime.planned import NOTHING
from nodebits.runtime.traced import operator_plan
from packed_models import Case, make_case, small_graph

OTHER = small_graph(57, seed=5)


def ready(name: str, task: str = "node") -> tuple[nodebits.PackedModel, tuple[Tensor, ...], Any]:
    case: Case = make_case(name, task=task)
    args = (case.x, case.edge_index, *case.extra.values())
    case.packed.plan(*args)
    other = (*OTHER, torch.arange(57) // 9) if task == "graph" else OTHER
    return case.packed, args, other


@pytest.mark.parametrize(("name", "task"), [("gcn", "node"), ("gat", "node"), ("gin", "graph")])
def test_compiled_without_a_break(name: str, task: str) -> None:
    packed, args, other = ready(name, task)
    torch._dynamo.reset()
    compiled = torch.compile(packed, fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.equal(compiled(*args), packed.predict(*args))
    assert torch.equal(compiled(*other), packed.predict(*other))


@pytest.mark.parametrize(("name", "task"), [("gcn", "node"), ("gin", "graph")])
def test_exported_saved_and_loaded(name: str, task: str, tmp_path: Path) -> None:
    packed, args, other = ready(name, task)
    auto = torch.export.Dim.AUTO
    by_place = ({0: auto}, {1: auto}, {0: auto})[: len(args)]
    by_name = dict(zip(("x", "edge_index", "batch"), by_place, strict=False))
    for sizes in (by_name, by_place):
        program = torch.export.export(packed, args, dynamic_shapes=sizes)
    assert [n.target for n in program.graph.nodes].count(torch.ops.nodebits.run_plan.default) == 1
    torch.export.save(program, tmp_path / "program.pt2")
    again = torch.export.load(tmp_path / "program.pt2").module()
    assert torch.equal(again(*args), packed.predict(*args))
    assert torch.equal(again(*other), packed.predict(*other))


def test_a_model_that_was_changed_is_compiled_as_it_is() -> None:
    packed, args, _ = ready("gcn")
    before = packed.predict(*args)
    with torch.no_grad():
        for bias in (p for name, p in packed.module.named_parameters() if name.endswith("bias")):
            bias.add_(1.0)
    torch._dynamo.reset()
    compiled = torch.compile(packed, fullgraph=True, dynamic=True, backend="aot_eager")
    found = compiled(*args)
    assert torch.equal(found, packed.predict(*args)) and not torch.equal(found, before)


def changes() -> list[Any]:
    """Ways to change a packed model in place."""

    def bias(packed: nodebits.PackedModel) -> None:
        with torch.no_grad():
            next(p for n, p in packed.module.named_parameters() if n.endswith("bias")).add_(1.0)

    def attribute(packed: nodebits.PackedModel) -> None:
        packed.module.another = 3  # type: ignore[assignment]

    return [bias, attribute]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_a_model_that_is_changed_after_it_was_compiled_says_so(change: Any) -> None:
    packed, args, _ = ready("gcn")
    torch._dynamo.reset()
    compiled = torch.compile(packed, fullgraph=True, dynamic=True, backend="aot_eager")
    compiled(*args)
    change(packed)
    with pytest.raises(ConfigError, match=r"torch\.compiler\.reset"):
        compiled(*args)
    torch.compiler.reset()
    assert torch.equal(compiled(*args), packed.predict(*args))


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
@pytest.mark.parametrize("loaded", [False, True])
def test_a_model_that_is_changed_before_it_is_exported_says_so(
    change: Any, loaded: bool, tmp_path: Path
) -> None:
    packed, args, _ = ready("gcn")
    if loaded:
        packed.save(tmp_path / "m")
        packed = nodebits.load(tmp_path / "m")
        packed.plan(*args)
    change(packed)
    with pytest.raises(ConfigError, match=r"packed\.plan"):
        torch.export.export(packed, args)
    packed.plan(*args)
    assert torch.equal(torch.export.export(packed, args).module()(*args), packed.predict(*args))


def test_a_model_is_exported_again() -> None:
    packed, args, other = ready("gcn")
    sizes = ({0: torch.export.Dim.AUTO}, {1: torch.export.Dim.AUTO})
    for _ in range(2):
        program = torch.export.export(packed, args, dynamic_shapes=sizes).module()
        assert torch.equal(program(*other), packed.predict(*other))
    assert packed._plans.result(args, {}) is not NOTHING
    bias = next(p for name, p in packed.module.named_parameters() if name.endswith("bias"))
    with torch.no_grad():
        bias.add_(1.0)
    with pytest.raises(ConfigError, match=r"packed\.plan"):
        torch.export.export(packed, args)


def test_a_plan_of_packed_features_is_no_operator() -> None:
    packed, (x, edges), _ = ready("gcn")
    ahead = packed.pack_input(x)
    plan = packed.plan(ahead, edges)
    assert isinstance(plan, Plan)
    with pytest.raises(ConfigError, match="float matrix"):
        operator_plan(plan, -1)
    assert torch.equal(torch.export.export(packed, (x, edges)).module()(x, edges), packed(x, edges))


class Weighted(nn.Module):
    """Takes more than features and edges."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(12, 3)

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None, alpha: float = 1.0
    ) -> Tensor:
        result: Tensor = self.conv(x, edge_index, edge_weight) * alpha
        return result


def weighted() -> tuple[nodebits.PackedModel, Tensor, Tensor, Tensor]:
    x, edges = small_graph()
    torch.manual_seed(0)
    prepared = nodebits.prepare(Weighted(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    return nodebits.convert(prepared), x, edges, torch.rand(edges.size(1))


def test_every_kind_of_call_is_compiled_with_its_own_plan() -> None:
    packed, x, edges, weight = weighted()
    torch._dynamo.reset()
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((x, edges), {}),
        ((x, edges, weight), {}),
        ((x, edges), {"alpha": 3.0}),
        ((x, edges), {"alpha": 2.0}),  # torch makes a number that changes a symbol
        ((x, edges), {"alpha": -0.5}),
        ((x, edges, weight, 4.0), {}),
        ((x, edges.int()), {}),
        ((x, edges), {}),
    ]
    for args, keywords in calls:
        packed.use_plans = False
        expected = packed.predict(*args, **keywords)
        packed.use_plans = True
        assert torch.equal(compiled(*args, **keywords), expected), keywords


def test_predict_is_compiled_as_the_model_is() -> None:
    packed, (x, edges), _ = ready("gcn")
    torch._dynamo.reset()
    compiled = torch.compile(packed.predict, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, edges), packed.predict(x, edges))


def test_a_kind_of_call_without_a_plan_is_not_exported_as_another() -> None:
    packed, x, edges, weight = weighted()
    with pytest.raises(ConfigError, match=r"'edge_weight' left out.*packed\.plan"):
        torch.export.export(packed, (x, edges, weight))
    packed.plan(x, edges, weight)
    program = torch.export.export(packed, (x, edges, weight)).module()
    assert torch.equal(program(x, edges, weight), packed.predict(x, edges, weight))
    with pytest.raises(ConfigError, match="a call with x, edge_index, edge_weight, alpha"):
        torch.export.export(packed, (x, edges, weight, 3.0))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_that_was_changed_is_compiled_as_it_is(copied: Any) -> None:
    original, args, _ = ready("gcn")
    packed = copied(original)
    conv = next(m for m in packed.module.modules() if isinstance(getattr(m, "bias", None), Tensor))
    conv.bias = nn.Parameter(conv.bias.detach() + 1, requires_grad=False)
    torch._dynamo.reset()
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    expected = packed.predict(*args)
    assert torch.equal(compiled(*args), expected)
    assert not torch.equal(expected, original.predict(*args))


def test_backward_through_a_compiled_model_is_refused_as_of_the_model() -> None:
    packed, (x, edges), _ = ready("gcn")
    torch._dynamo.reset()
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    given = x.clone().requires_grad_()
    result = compiled(given, edges)
    assert torch.equal(result, packed.predict(x, edges))
    with pytest.raises(UnsupportedLayerError, match="no gradients"):
        result.sum().backward()


def test_a_program_says_what_is_wrong_with_its_inputs() -> None:
    packed, args, _ = ready("gcn")
    plan = packed.plan(*args)
    assert isinstance(plan, Plan)
    text, constants = described(plan)
    x, edges = args
    with pytest.raises(nodebits.core.errors.NodeIndexError, match="40"):
        torch.ops.nodebits.run_plan(text, constants, [x, edges + 9])
    with pytest.raises(nodebits.core.errors.ShapeError):
        torch.ops.nodebits.run_plan(text, constants, [x[:, :5].contiguous(), edges])
    with pytest.raises(nodebits.core.errors.NonFiniteError):
        torch.ops.nodebits.run_plan(text, constants, [x * float("nan"), edges])


def test_models_whose_layers_have_no_steps_are_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = pyg.GCNConv(12, 8), pyg.FeaStConv(8, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.two(self.one(x, edge_index).relu(), edge_index)

    x, edges = small_graph()
    prepared = nodebits.prepare(Two(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    packed = nodebits.convert(prepared)
    with pytest.raises(ConfigError, match="module: two"):
        torch.export.export(packed, (x, edges))


def test_other_translations_name_what_runs_a_file_without_torch() -> None:
    packed, args, _ = ready("gcn")
    with pytest.raises(UnsupportedLayerError, match=r"nodebits\.lite"):
        torch.jit.trace(packed, args)
