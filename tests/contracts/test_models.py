"""What every named model keeps: its spec, its recipe, its sites, its packed form and its file."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import ConfigError, NodebitsError
from nodebits.core.registry import MODELS
from nodebits.methods import UniformConfig
from nodebits.models import ModelSpec, build_model, model_names
from nodebits.train import find_recipe
from packed_models import CLASSES, FEATURES, NODES, small_graph

SPEC = ModelSpec("", FEATURES, 8, CLASSES, heads=2, steps=3)
FLOAT = UniformConfig(bits=32, attention_bits=32)
# A model and each task that it has a recipe for.
PAIRS = [(name, task) for name in model_names() for task in sorted(MODELS.get(name).recipes)]
every_model = pytest.mark.parametrize(("name", "task"), PAIRS)


def inputs(task: str) -> tuple[Tensor, ...]:
    """Features, edges that go both ways, and four graphs where the task is of graphs."""
    x, index = small_graph()
    both = torch.cat([index, index.flip(0)], 1).unique(dim=1)
    return (x, both, torch.arange(NODES) // 10) if task == "graph" else (x, both)


@functools.cache
def built(name: str, task: str) -> nn.Module:
    """The float model; not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(replace(SPEC, name=name, task=task)).eval()


@functools.cache
def calibrated(name: str, task: str, bits: int) -> tuple[nn.Module, nodebits.PackedModel]:
    prepared = nodebits.prepare(built(name, task), UniformConfig(bits=bits, mode="ptq")).eval()
    nodebits.calibrate(prepared, *inputs(task))
    return prepared, nodebits.convert(prepared, replace(SPEC, name=name, task=task))


@every_model
def test_float_sites_compute_what_the_float_model_does(name: str, task: str) -> None:
    model = built(name, task)
    with torch.no_grad():
        expected = model(*inputs(task))
        assert expected.shape == (4 if task == "graph" else NODES, CLASSES)
        found = nodebits.prepare(model, FLOAT).eval()(*inputs(task))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bits", [8, 4, 1])
@every_model
def test_packed_saved_and_loaded_equal_prepared(
    name: str, task: str, bits: int, tmp_path: Path
) -> None:
    prepared, packed = calibrated(name, task, bits)
    with torch.no_grad():
        expected = prepared(*inputs(task))
    assert bool(expected.isfinite().all())
    assert torch.equal(packed.predict(*inputs(task)), expected)
    assert not packed.account(*inputs(task)).float_layers
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors")
    assert loaded.spec == packed.spec
    assert torch.equal(loaded.predict(*inputs(task)), expected)


@every_model
def test_a_spec_builds_the_same_model_again(name: str, task: str) -> None:
    spec = replace(SPEC, name=name, task=task)
    again = build_model(ModelSpec.from_json(spec.to_json()))
    assert again.load_state_dict(built(name, task).state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(*inputs(task)), built(name, task)(*inputs(task)))


@every_model
def test_it_has_a_recipe(name: str, task: str) -> None:
    recipe = find_recipe(name, task, "Cora")
    assert recipe.hidden % recipe.heads == 0
    assert recipe.float_fit.epochs > 0 and recipe.quantized_fit.epochs > 0


@pytest.mark.parametrize(
    "changes",
    [{"hidden_channels": 0}, {"num_layers": 0}, {"out_channels": -1}, {"steps": 0}, {"task": "e"}],
    ids=str,
)
@every_model
def test_sizes_that_make_no_model(name: str, task: str, changes: dict[str, Any]) -> None:
    (field,) = changes
    with pytest.raises(ConfigError, match=f"{field} is"):
        build_model(replace(SPEC, **{"name": name, "task": task, **changes}))


@every_model
def test_other_features_are_refused(name: str, task: str) -> None:
    x, *others = inputs(task)
    prepared, packed = calibrated(name, task, 8)
    for wrong in (x[:, 1:], x.long()):
        for run in (prepared, packed.predict):
            with pytest.raises(NodebitsError, match="expected"):
                run(wrong, *others)
