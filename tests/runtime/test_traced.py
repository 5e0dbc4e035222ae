"""Packed models under torch.compile and torch.export: one operator, for graphs of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import ConfigError, UnsupportedLayerError
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
    sizes = {"args": ({0: auto}, {1: auto}, {0: auto})[: len(args)]}
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


def test_a_plan_of_packed_features_is_no_operator() -> None:
    packed, (x, edges), _ = ready("gcn")
    packed.plan(packed.pack_input(x), edges)
    with pytest.raises(ConfigError, match="float matrix"):
        torch.export.export(packed, (x, edges))


def test_a_program_says_what_is_wrong_with_its_inputs() -> None:
    packed, args, _ = ready("gcn")
    text, constants, *_ = packed.operator  # type: ignore[misc]
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
            self.one, self.two = pyg.GCNConv(12, 8), pyg.GATv2Conv(8, 3)

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
