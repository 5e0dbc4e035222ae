"""What every kind of rows keeps that files may name: its config, its tensors, hostile values.

A new kind joins by a model of ``MODELS`` that has a site of it.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv

import nodebits
from nodebits.core.errors import FileFormatError, NodebitsError
from nodebits.engine.sites import CodedRows, row_fields, row_kinds, rows_from_config
from nodebits.graph.scope import graph_scope
from nodebits.methods import make_config
from nodebits.models import ModelSpec, build_model
from nodebits.runtime import PackedModel, container
from packed_models import FEATURES, make_case, small_graph, two_steps


def with_edge_weights() -> PackedModel:
    x, edge_index = small_graph()
    prepared = nodebits.prepare(GCNConv(FEATURES, 8), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edge_index, torch.rand(edge_index.size(1)) + 0.1)
    return nodebits.convert(prepared)


def without_targets() -> PackedModel:
    """Sites of targets of their own, which no call reached; attention in float."""
    config = nodebits.UniformConfig(bits=4, mode="ptq", overrides={"message": 32})
    prepared = nodebits.prepare(GATConv(FEATURES, 8), config)
    nodebits.calibrate(prepared, *small_graph())
    return nodebits.convert(prepared)


def of_graphs() -> PackedModel:
    """A2Q where nodes are not the same ones at every call: the nearest of some groups."""
    x, edge_index = small_graph()
    spec = ModelSpec("gcn", FEATURES, 16, 3, task="graph")
    batch = torch.arange(len(x)) // 10
    with graph_scope(batch=batch):
        prepared = two_steps(build_model(spec), make_config("a2q", 4), x, edge_index, batch=batch)
    return nodebits.convert(prepared, spec)


def with_ternary_messages() -> PackedModel:
    packed = make_case("gcn", bits=2).packed
    for layer in packed.module.modules():
        site = layer._modules.get("message")
        if site is not None:
            scale = site.get_buffer("scale")
            coded = CodedRows(scale, torch.ones_like(scale), 2, "ternary")
            coded.site_name = site.site_name
            layer._modules["message"] = coded
    return packed


def float_module(packed: PackedModel) -> nn.Module | None:
    """What a file needs besides: the user's own module, where the model is not a named one."""
    own = {"GCNConv": GCNConv(FEATURES, 8), "GATConv": GATConv(FEATURES, 8)}
    return None if packed.spec else own[packed.module.layer_type]  # type: ignore[index]


MODELS: dict[str, Callable[[], PackedModel]] = {
    "gcn": lambda: make_case("gcn").packed,
    "gcn, raw features": lambda: make_case("gcn", features=300).packed,
    "gcn, a2q": lambda: make_case("gcn", "a2q").packed,
    "gcn, a2q, graphs": of_graphs,
    "gcn, sgquant": lambda: make_case("gcn", "sgquant", degree_bits=(8, 4, 2, 2)).packed,
    "gcn, sgquant, raw": lambda: (
        make_case("gcn", "sgquant", features=300, degree_bits=(8, 4, 2, 2)).packed
    ),
    "gcn, sgquant, published": lambda: make_case("gcn", "sgquant", preset="published").packed,
    "appnp, smp": lambda: make_case("appnp", "smp", bits=2, snap="bt_skew").packed,
    "edge weights": with_edge_weights,
    "targets": without_targets,
    "ternary": with_ternary_messages,
}


class Example(NamedTuple):
    """A site of a kind, and the model it is in."""

    packed: PackedModel
    path: str
    site: Any


@functools.cache
def examples() -> dict[str, Example]:
    """A site of every kind that the models have."""
    found: dict[str, Example] = {}
    for make in MODELS.values():
        packed = make()
        for path, module in packed.module.named_modules():
            kind = getattr(module, "kind", None)
            if kind in row_kinds() and kind not in found:
                found[kind] = Example(packed, path, module)
    return found


every_kind = pytest.mark.parametrize("kind", row_kinds())


def test_every_kind_is_in_a_model() -> None:
    assert set(examples()) == set(row_kinds())


@every_kind
def test_a_config_says_what_the_class_declares_and_builds_it_again(kind: str) -> None:
    site = examples()[kind].site
    config = site.to_json()
    assert config["kind"] == kind
    assert set(config) - {"ends"} == set(row_fields(kind)) - {"ends"}
    again = rows_from_config(json.loads(json.dumps(config)))
    again.load_state_dict(site.state_dict())
    again.check_loaded()
    assert type(again) is type(site) and again.to_json() == config
    assert again.granularity == site.granularity
    assert again.scale_bytes(40) == site.scale_bytes(40)


@every_kind
def test_what_is_saved_computes_the_same(kind: str, tmp_path: Path) -> None:
    """The whole model, since a site of edges or of nodes is nothing by itself."""
    packed, path, site = examples()[kind]
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors", float_module(packed))
    again = loaded.module.get_submodule(path)
    assert type(again) is type(site)
    state = site.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


HOSTILE = (None, True, -1, 0, 9, 2**40, 1.5, float("nan"), "x", [], [0], [1] * 99, {}, {"a": 1})


@every_kind
def test_hostile_values_of_a_config(kind: str) -> None:
    """Whatever the config says, rows are built of a bounded size, or the field is named."""
    config = examples()[kind].site.to_json()
    for field in config:
        for value in HOSTILE:
            try:
                with torch.device("meta"):
                    made = rows_from_config({**config, field: value})
            except NodebitsError as error:
                assert field in str(error) or field == "kind"
            else:
                assert made.to_json()[field] == value
        without = {name: value for name, value in config.items() if name != field}
        if getattr(row_fields(kind)[field], "absent", False):  # older files are without it
            assert rows_from_config(without).to_json().keys() >= without.keys()
        elif field != "kind":
            with pytest.raises(FileFormatError, match=f"lacks the field '{field}'"):
                rows_from_config(without)
    with pytest.raises(FileFormatError, match="unknown field 'more'"):
        rows_from_config({**config, "more": 1})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 0.0, -1.0])
@every_kind
def test_hostile_values_of_tensors(kind: str, value: float) -> None:
    site = examples()[kind].site
    again = rows_from_config(site.to_json())
    again.load_state_dict(site.state_dict())
    for name in (*site.positive, *site.finite):
        values = getattr(again, name, None)
        if values is None or (name in site.finite and math.isfinite(value)):
            continue
        kept = values.view(-1)[0].clone()
        values.view(-1)[0] = value
        with pytest.raises(FileFormatError, match=rf"{name}\[0\] is"):
            again.check_loaded()
        values.view(-1)[0] = kept


@every_kind
def test_a_files_tensor_of_another_shape_or_type(kind: str, tmp_path: Path) -> None:
    packed, path, site = examples()[kind]
    file = tmp_path / "model.safetensors"
    packed.save(file)
    for name in site.state_dict():
        key = f"{path}.{name}".removeprefix(".")
        for change in (lambda t: t.double(), lambda t: torch.cat([t.view(-1), t.view(-1)[:1]])):
            header, tensors = container.read(file, container.MODEL)
            if key not in tensors or not tensors[key].numel():
                continue
            tensors[key] = change(tensors[key])
            header.pop("checksums")
            container.write(tmp_path / "changed", container.MODEL, header, tensors)
            with pytest.raises(FileFormatError, match=re.escape(key)):
                nodebits.load(tmp_path / "changed", float_module(packed))


def test_a_kind_that_is_none_names_the_nearest() -> None:
    with pytest.raises(NodebitsError, match="did you mean 'static'"):
        rows_from_config({"kind": "statik"})
