"""What every method's models keep as plans: nothing of Python, in nodebits and without torch.

The only steps that torch runs within nodebits are those that it rounds in its own way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nodebits
import typed_models
from nodebits import lite
from nodebits.core.errors import GraphMismatchError
from nodebits.graph import graph_scope
from nodebits.methods import make_config, method_names
from nodebits.models import ModelSpec, build_model
from nodebits.plan.plan import Plan
from packed_models import CLASSES, FEATURES, Case, make_case, small_graph
from typed_models import MODELS, arguments, typed_data

# Further settings of methods, under which rows have widths in other ways.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in method_names()},
    "a2q, any graph": ("a2q", {"fallback": True}),
    "a2q, float scales": ("a2q", {"scale_bits": 32}),
    "a2q, columns": ("a2q", {"message": "column"}),
    "sgquant, by degree": ("sgquant", {"splits": (4, 8), "degree_bits": (8, 4, 2)}),
    "degree-quant, mixed": ("degree-quant", {"input_bits": 8, "message_bits": 2}),
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)
# What torch rounds in its own way, in models of these layers.
ROUNDED = {"gcn": [], "gin": [], "sage": [], "gat": ["elu"]}


def compare(
    packed: nodebits.PackedModel, tensors: dict[str, Tensor], path: Path, rounded: list[str]
) -> None:
    """The module, its plan and lite; on prepared edges too."""
    plan = packed.plan(**tensors)
    assert isinstance(plan, Plan), plan
    assert plan.leaves == rounded
    with torch.no_grad():
        expected = packed.module(**tensors)
    for _ in range(3):
        assert torch.equal(packed.predict(**tensors), expected)
    prepared = nodebits.graph.as_graph(
        tensors["edge_index"], tensors["x"].size(0), tensors["x"].size(0)
    )
    for _ in range(3):
        assert torch.equal(packed.predict(**{**tensors, "edge_index": prepared}), expected)
    packed.save(path)
    found = lite.load(path).predict(**{name: t.numpy() for name, t in tensors.items()})
    if rounded:
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    else:
        assert np.array_equal(found, expected.numpy())


@every_setting
@pytest.mark.parametrize("name", ROUNDED)
def test_node_models(name: str, setting: str, tmp_path: Path) -> None:
    method, options = SETTINGS[setting]
    case: Case = make_case(name, method, **options)
    tensors = {"x": case.x, "edge_index": case.edge_index}
    compare(case.packed, tensors, tmp_path / "m", ROUNDED[name])
    assert torch.equal(case.packed.predict(case.x, case.edge_index), case.simulated)
    if method != "a2q" or options.get("fallback"):
        x, edge_index = small_graph(57, seed=3)
        others = {"x": x, "edge_index": edge_index}
        compare(case.packed, others, tmp_path / "others", ROUNDED[name])


class _Batched(nn.Module):
    """A model of graphs, which says in training which graph every node belongs to."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = build_model(ModelSpec(name, FEATURES, 16, CLASSES, heads=4, task="graph"))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        with graph_scope(batch=batch):
            out: Tensor = self.model(x, edge_index, batch)
        return out


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "sgquant, by degree"])
@pytest.mark.parametrize("name", ["gin", "gat"])
def test_graph_models(name: str, setting: str, tmp_path: Path) -> None:
    method, options = SETTINGS[setting]
    x, edge_index = small_graph()
    batch = torch.arange(len(x)) // 10
    edge_index = edge_index[:, batch[edge_index[0]] == batch[edge_index[1]]]
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        prepared = nodebits.prepare(_Batched(name), make_config(method, 4, **options)).train()
        for _ in range(2):
            out = prepared(x, edge_index, batch)
            nn.functional.cross_entropy(out, torch.arange(len(out)) % CLASSES).backward()
    packed = nodebits.convert(prepared.eval())
    tensors = {"x": x, "edge_index": edge_index, "batch": batch}
    compare(packed, tensors, tmp_path / "m", ROUNDED[name])
    order = torch.cat([torch.arange(30, 40), torch.arange(0, 20)])
    place = torch.full((len(x),), -1)
    place[order] = torch.arange(len(order))
    inside = (place[edge_index] >= 0).all(0)
    some = {
        "x": x[order], "edge_index": place[edge_index[:, inside]], "batch": torch.arange(30) // 10,
    }  # fmt: skip
    compare(packed, some, tmp_path / "some", ROUNDED[name])


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "sgquant, by degree"])
@pytest.mark.parametrize("name", ["HeteroConv", "HeteroData", "HGT"])
def test_models_of_several_types(name: str, setting: str, tmp_path: Path) -> None:
    method, options = SETTINGS[setting]
    data, other = typed_data(), typed_data(77, 31, 300, seed=1)
    args = arguments(name, data)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        model = MODELS[name]()
        prepared = nodebits.prepare(model, make_config(method, 4, **options)).train()
        for _ in range(2):
            made = prepared(*args)
            sum(t.square().mean() for t in (made.values() if isinstance(made, dict) else [made]))
    packed = nodebits.convert(prepared.eval())
    bound = method == "a2q" and not options.get("fallback")
    for some in (data,) if bound else (data, other):
        args = arguments(name, some)
        plan = packed.plan(*args)
        assert isinstance(plan, Plan) and set(plan.leaves) <= {"gelu"}, plan
        expected = typed_models.compare(packed, *args)
        packed.save(tmp_path / "m")
        alone = lite.load(tmp_path / "m")
        found = alone.predict(*[typed_models.as_arrays(one) for one in args])
        for mine, theirs in zip(
            typed_models.leaves(expected), typed_models.leaves(found), strict=True
        ):
            if plan.leaves:  # a code that follows from gelu may be the next one
                assert np.isclose(mine, theirs, rtol=1e-4, atol=1e-5).mean() > 0.95
            else:
                assert np.array_equal(mine, theirs)


def test_bound_models_refuse_other_graphs(tmp_path: Path) -> None:
    case = make_case("gcn", "a2q")
    case.packed.plan(case.x, case.edge_index)
    others = case.edge_index.flip(0)
    with pytest.raises(GraphMismatchError, match="other edges"):
        case.packed.predict(case.x, others)
    case.packed.save(tmp_path / "m")
    model = lite.load(tmp_path / "m")
    with pytest.raises(lite.errors.GraphMismatchError, match="other edges"):
        model.predict(case.x.numpy(), others.numpy())
    with pytest.raises(lite.errors.GraphMismatchError, match="40 nodes"):
        model.predict(case.x.numpy()[:39], case.edge_index.numpy()[:, :0])


def test_a_plan_of_rows_with_widths_stores_nothing_again(tmp_path: Path) -> None:
    case = make_case("gcn", "a2q")
    case.packed.plan(case.x, case.edge_index)
    case.packed.save(tmp_path / "m")
    plan = case.packed.plan(case.x, case.edge_index)
    assert isinstance(plan, Plan)
    state = {t.data_ptr() for t in case.packed.module.state_dict().values()}
    own = [t for t in plan.constants.values() if t.data_ptr() not in state]
    assert all(t.numel() < 40 or t.size(0) != 40 for t in own)


def test_a_model_that_begins_to_serve_other_graphs() -> None:
    case = make_case("sage", "a2q")
    assert isinstance(case.packed.plan(case.x, case.edge_index), Plan)
    assert torch.equal(case.packed.predict(case.x, case.edge_index), case.simulated)
    x, edge_index = small_graph(57, seed=3)
    with pytest.raises(GraphMismatchError):
        case.packed.predict(x, edge_index)
    case.packed.serve_other_graphs()
    with torch.no_grad():
        expected = case.packed.module(x, edge_index)
    for _ in range(4):
        assert torch.equal(case.packed.predict(x, edge_index), expected)
        assert torch.equal(case.packed.predict(case.x, case.edge_index), case.simulated)
