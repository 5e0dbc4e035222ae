"""Tensors are made where their data are, whatever the default device is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import nodebits
from nodebits import FitConfig
from nodebits.methods import make_config, method_names
from nodebits.models import ModelSpec, build_model
from packed_models import CLASSES, FEATURES, NODES, make_case, small_graph

SOURCE = Path(__file__).resolve().parents[1] / "src" / "nodebits"
FACTORIES = {
    "arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "ones",
    "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor", "zeros",
}  # fmt: skip
# What a module consists of is made where torch's own modules make theirs, on the default device,
# and moves with the module.
CONSTRUCTORS = ("__init__", "build")
STATE = ("register_buffer", "Parameter")


def without_device(source: str) -> Iterator[str]:
    """Yields the calls of torch's factories that leave the device to the default."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef) and node.name in CONSTRUCTORS:
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in STATE:
                continue
            of_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
            named = any(keyword.arg == "device" for keyword in node.keywords)
            if of_torch and node.func.attr in FACTORIES and not named:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        waiting.extend(ast.iter_child_nodes(node))


def test_every_factory_says_its_device() -> None:
    found = {
        str(path.relative_to(SOURCE)): list(without_device(path.read_text(encoding="utf-8")))
        for path in sorted(SOURCE.rglob("*.py"))
    }
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "source",
    [
        "torch.zeros(3)",
        "def build():\n    pass\ntorch.zeros(3)",
        "class A:\n    def forward(self, x):\n        return x + torch.zeros(3)",
    ],
)
def test_the_rule_catches(source: str) -> None:
    (line,) = without_device(source)
    assert line.endswith("torch.zeros(3)")


@pytest.mark.parametrize(
    "source",
    [
        "torch.zeros(3, device=x.device); x.new_zeros(3)",
        "class A:\n    def __init__(self):\n        self.one = torch.ones(1)",
        "def start(self): self.register_buffer('one', torch.ones(1))",
    ],
)
def test_the_rule_allows(source: str) -> None:
    assert not list(without_device(source))


def data_and_model(name: str) -> tuple[Data, ModelSpec, nn.Module]:
    """A small graph with masks, and a float model for it."""
    x, edge_index = small_graph()
    both = torch.cat([edge_index, edge_index.flip(0)], 1).unique(dim=1)
    parts = torch.arange(NODES) % 4
    masks = {"train_mask": parts < 2, "val_mask": parts == 2, "test_mask": parts == 3}
    data = Data(x=x, edge_index=both, y=torch.arange(NODES) % CLASSES, **masks)
    spec = ModelSpec(name, FEATURES, 8, CLASSES, heads=2, steps=3)
    return data, spec, build_model(spec)


def packed_logits(data: Data, spec: ModelSpec, model: nn.Module, method: str, file: Path) -> Tensor:
    """What a model says that was prepared, trained, packed, saved and loaded."""
    config = make_config(method, bits=4)
    prepared = nodebits.prepare(model, config)
    torch.manual_seed(0)
    nodebits.fit(prepared, data, FitConfig(epochs=3, progress=False), method=config)
    packed = nodebits.convert(prepared, spec)
    packed.save(file)
    loaded = nodebits.load(file)
    assert loaded.account(data.x, data.edge_index).average_site_bits > 0
    return loaded.predict(data.x, data.edge_index)


# What a default device of another kind gets wrong: a tensor made there meets those of the data.
@pytest.mark.parametrize(
    ("name", "method"),
    [("gcn", method) for method in method_names()]
    + [(name, "uniform") for name in ("gat", "agnn", "appnp")],
)
def test_another_default_device_changes_nothing(name: str, method: str, tmp_path: Path) -> None:
    data, spec, model = data_and_model(name)
    expected = packed_logits(data, spec, model, method, tmp_path / "expected")
    with torch.device("meta"):
        found = packed_logits(data, spec, model, method, tmp_path / "found")
    assert torch.equal(found, expected)


def kept_tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Tensors that a module keeps, wherever: registered, in attributes, in what these hold."""
    if id(value) in seen or isinstance(value, (type, str, bytes)):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from kept_tensors(part, seen)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from kept_tensors(part, seen)
    elif type(value).__module__.startswith(("nodebits", "torch")):
        yield from kept_tensors(getattr(value, "__dict__", None), seen)
        for name in getattr(type(value), "__slots__", ()):
            yield from kept_tensors(getattr(value, name, None), seen)


@pytest.mark.parametrize(
    ("name", "method"),
    [("gcn", method) for method in method_names()]
    + [(name, "uniform") for name in ("gat", "gin", "sage", "agnn", "appnp")],
)
def test_a_model_moves_as_a_whole(name: str, method: str) -> None:
    """Also what its layers keep of earlier calls; without data the meta device will do."""
    case = make_case(name, method)
    case.packed.predict(case.x, case.edge_index)
    moved = case.packed.to("meta")
    left = [t for t in kept_tensors(moved.module, set()) if t.device.type != "meta"]
    assert not left
    plan = moved.plan(case.x.to("meta"), case.edge_index)
    assert isinstance(plan, str) and "the model is on meta" in plan


def test_rows_of_nodes_are_read_anew_where_they_were_moved() -> None:
    case = make_case("gcn", "a2q")
    expected = case.packed.predict(case.x, case.edge_index)
    packed = case.packed.pack_input(case.x)
    case.packed.to("cpu")  # not moved: rows that were packed for it are still its own
    assert torch.equal(case.packed.predict(packed, case.edge_index), expected)


def test_everything_around_a_model_neither(tmp_path: Path) -> None:
    """Data sets, their splits, a reordered graph, packed features, the search."""
    with torch.device("meta"):
        graphs = nodebits.load_dataset("digits-graphs", split=1)
        assert graphs.train_idx.device == torch.device("cpu")
        data = nodebits.load_dataset("digits", split=1).data
        spec = ModelSpec("gcn", 64, 8, 10)
    model = build_model(spec)
    with torch.device("meta"):
        prepared = nodebits.prepare(model, nodebits.SGQuantConfig(bits=4, mode="ptq"))
        nodebits.calibrate(prepared, data.x, data.edge_index)
        packed = nodebits.convert(prepared, spec)
        graph = packed.prepare_graph(data.edge_index, len(data.x), reorder=True)
        plain = packed.predict(data.x, data.edge_index)
        assert torch.equal(packed.predict(data.x, graph), plain)
        rows = packed.pack_input(data.x)
        packed.save_input(rows, tmp_path / "rows")
        again = packed.load_input(tmp_path / "rows")
        assert torch.equal(packed.predict(again, data.edge_index), plain)
        assert nodebits.check(model, data.x, data.edge_index).layers
