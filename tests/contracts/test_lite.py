"""What the file of a packed model computes without torch: the bits of nodebits, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GENConv, SAGEConv, TransformerConv

import nodebits
from nodebits import lite
from nodebits.core.errors import ConfigError, PlanRefused
from nodebits.runtime import container
from packed_models import FEATURES, make_case, small_graph

from . import layers
from . import test_models as models


def _named(model: lite.Model, given: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments by the names that lite has for them."""
    arrays = [value.numpy() for value in given if isinstance(value, Tensor)]
    return dict(zip((item.name for item in model.inputs), arrays, strict=True))


def _compare(packed: nodebits.PackedModel, given: tuple[Any, ...], path: Path) -> None:
    expected = packed.predict(*given)
    plan = packed.plan(*given)
    packed.save(path)
    if isinstance(plan, str):
        with pytest.raises(ConfigError, match="no plan"):
            lite.load(path)
        pytest.skip(f"no plan: {plan}")
    try:
        model = lite.load(path)
    except PlanRefused as error:
        # Only where torch computes something, which the refusal names.
        assert any(f"'{name.rpartition(': ')[2]}'" in str(error) for name in plan.leaves)
        pytest.skip(str(error))
    found = model.predict(**_named(model, given))
    if plan.leaves:  # exp and the like of our own: equal to rounding
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    else:
        assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("bits", [8, 4, 1])
@models.every_model
def test_models(name: str, task: str, bits: int, tmp_path: Path) -> None:
    with torch.no_grad():
        packed = models.calibrated(name, task, bits)[1]
        _compare(packed, models.inputs(task), tmp_path / "m")


@pytest.mark.parametrize("kind", layers.SAMPLES, ids=lambda kind: kind.__name__)
def test_layers(kind: type[torch.nn.Module], tmp_path: Path) -> None:
    with torch.no_grad():
        _compare(layers.packed(kind), layers.inputs(kind), tmp_path / "m")


ROUNDED: dict[str, Callable[[], torch.nn.Module]] = {
    "gates of rows": lambda: TransformerConv(FEATURES, 4, heads=2, beta=True),
    "norms of messages": lambda: GENConv(FEATURES, 6, msg_norm=True, learn_msg_scale=True),
    "normalised rows": lambda: SAGEConv(FEATURES, 6, normalize=True),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_what_torch_rounds_has_steps_of_our_own(name: str, tmp_path: Path) -> None:
    x, edges = small_graph()
    prepared = nodebits.prepare(ROUNDED[name]().eval(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    packed = nodebits.convert(prepared)
    plan = packed.plan(x, edges)
    assert not isinstance(plan, str) and plan.is_portable and plan.leaves
    with torch.no_grad():
        _compare(packed, (x, edges), tmp_path / "m")


PACKED: dict[str, dict[str, Any]] = {
    "dense": {"method": "uniform", "bits": 4},
    "sparse": {"method": "uniform", "bits": 4, "features": 300},
    "by degree": {"method": "sgquant", "splits": (4, 8), "degree_bits": (8, 4, 2)},
    "by degree, raw": {
        "method": "sgquant", "splits": (4, 8), "degree_bits": (8, 4, 2), "features": 300,
    },
    "bound": {"method": "a2q"},
    "bound, float scales": {"method": "a2q", "scale_bits": 32},
    "bound, raw": {"method": "a2q", "features": 300},
    "nearest": {"method": "a2q", "fallback": True},
}  # fmt: skip


@pytest.mark.parametrize("name", ["gcn", "gin"])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_features(kind: str, name: str, tmp_path: Path) -> None:
    case = make_case(name, **PACKED[kind])
    packed, edges = case.packed, case.edge_index
    features = packed.pack_input(case.x, edge_index=edges)
    expected = packed.predict(features, edges)
    assert torch.equal(expected, case.simulated)
    plan = packed.plan(features, edges)
    assert not isinstance(plan, str), plan
    assert not plan.leaves
    for _ in range(3):
        assert torch.equal(packed.predict(features, edges), expected)
    packed.save(tmp_path / "m")
    packed.save_input(features, tmp_path / "x")
    model = lite.load(tmp_path / "m")
    with pytest.raises(lite.errors.ConfigError, match="set_features"):
        model.predict(edge_index=edges.numpy())
    model.set_features(tmp_path / "x")
    assert np.array_equal(model.predict(edge_index=edges.numpy()), expected.numpy())
    model.set_features(lite.Features(tmp_path / "x", checksums=False))
    model.set_graph(edges.numpy(), len(case.x))
    assert np.array_equal(model.predict(), expected.numpy())


def test_rows_without_a_model(tmp_path: Path) -> None:
    """What pack_features wrote fits every site that packs features alike."""
    case = make_case("gcn", features=300)
    packed, edges = case.packed, case.edge_index

    def stored(name: str, x: Tensor = case.x, bits: int = 4, granularity: str = "row") -> Path:
        packing = nodebits.Packing(bits=bits, granularity=granularity)
        return nodebits.pack_features(x.numpy(), tmp_path / name, packing).path

    features = nodebits.PackedFeatures(stored("rows")).input_of(packed)
    expected = packed.predict(case.x, edges)
    assert not isinstance(packed.plan(features, edges), str)
    assert torch.equal(packed.predict(features, edges), expected)
    packed.save(tmp_path / "m")
    model = lite.load(tmp_path / "m")
    for checksums in (True, False):
        model.set_features(lite.Features(tmp_path / "rows", checksums=checksums))
        assert np.array_equal(model.predict(edge_index=edges.numpy()), expected.numpy())
    for path, words in (
        (stored("wide", bits=8), "it has 8 bits"),
        (stored("columns", granularity="column"), "a scale per column, the site one per row"),
        (stored("narrow", case.x[:, :290]), "it has 290 columns"),
        (stored("signed", -case.x), "its codes have a sign"),
    ):
        model.set_features(path)
        with pytest.raises(lite.errors.ConfigError, match=words):
            model.predict(edge_index=edges.numpy())
    other = make_case("gcn")
    other.packed.plan(other.packed.pack_input(other.x), other.edge_index)
    other.packed.save(tmp_path / "fixed")
    model = lite.load(tmp_path / "fixed")
    model.set_features(tmp_path / "rows")
    with pytest.raises(lite.errors.ConfigError, match="scales of the model"):
        model.predict(edge_index=other.edge_index.numpy())


HOSTILE: dict[str, dict[str, Any]] = {
    "no bits": {"bits": None},
    "nine bits": {"bits": 9},
    "other bits": {"bits": 8},
    "a text": {"bits": "4"},
    "fewer rows": {"shape": [5, 20]},
    "below zero": {"shape": [-6, 20]},
    "too wide": {"shape": [6, 2**62]},
    "one size": {"shape": [6]},
    "no sign": {"signed": 1},
    "no granularity": {"granularity": None},
    "too few scales": {"scale": torch.ones(5)},
    "other scales": {"scale": torch.ones(6, dtype=torch.float64)},
    "a flat tensor": {"packed": torch.zeros(60, dtype=torch.uint8)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_rows_whose_header_is_wrong(name: str, tmp_path: Path) -> None:
    header: dict[str, Any] = {"shape": [6, 20], "bits": 4, "granularity": "row", "signed": False}
    tensors = {"scale": torch.ones(6), "zero_point": torch.zeros(1)}
    tensors["packed"] = torch.zeros(6, 10, dtype=torch.uint8)
    container.write(tmp_path / "rows", container.ROWS, header, tensors)
    assert lite.Features(tmp_path / "rows")
    for key, value in HOSTILE[name].items():
        (tensors if key in tensors else header)[key] = value
    container.write(tmp_path / "rows", container.ROWS, header, tensors)
    with pytest.raises(lite.errors.FileFormatError):
        lite.Features(tmp_path / "rows")


def test_packed_features_of_another_model(tmp_path: Path) -> None:
    one, other = make_case("gcn"), make_case("gcn", bits=8)
    one.packed.save_input(one.packed.pack_input(one.x), tmp_path / "x")
    with pytest.raises(lite.errors.FileFormatError, match="'nodebits features'"):
        lite.load(tmp_path / "x")
    one.packed.save(tmp_path / "floats")
    with pytest.raises(lite.errors.ConfigError, match="takes float features"):
        lite.load(tmp_path / "floats").set_features(tmp_path / "x")
    other.packed.plan(other.packed.pack_input(other.x), other.edge_index)
    other.packed.save(tmp_path / "m")
    model = lite.load(tmp_path / "m")
    with pytest.raises(lite.errors.FileFormatError, match="'nodebits', not a file of packed"):
        model.set_features(tmp_path / "m")
    with pytest.raises(lite.errors.UnknownNameError, match="did you mean 'x'"):
        model.set_features(tmp_path / "x", name="xx")
    model.set_features(tmp_path / "x")
    with pytest.raises(lite.errors.ConfigError, match="another model"):
        model.predict(edge_index=other.edge_index.numpy())
