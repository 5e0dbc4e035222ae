"""What every method of the registry keeps: settings, options, training, packing, files."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor, nn

import nodebits
from nodebits.cli.app import app
from nodebits.cli.registered import method_options
from nodebits.core.errors import ConfigError
from nodebits.core.options import options_of
from nodebits.methods import QuantConfig, make_config, method_names
from nodebits.models import ModelSpec, build_model
from nodebits.tasks import GRAPH, NODE
from nodebits.train import FitConfig
from packed_models import CLASSES, FEATURES, small_graph

from .settings import wrong_values

every_method = pytest.mark.parametrize("method", method_names())
SPEC = ModelSpec("gcn", FEATURES, 16, CLASSES)
# Fields that the job itself has an option for, under the same name or a shorter one.
JOB_FIELDS = {"bits", "dropout", "preset", "overrides"}


@every_method
def test_json_round_trip(method: str) -> None:
    config = make_config(method)
    data = json.loads(json.dumps(config.to_json()))
    assert data.pop("method") == method
    assert make_config(method, **data) == config
    assert config.bits == data["bits"] and hash(repr(config))


@every_method
def test_every_option_is_documented_and_generated(method: str) -> None:
    generated = {option.name for option in method_options()} | JOB_FIELDS
    command = typer.main.get_command(app).commands["quantize"]  # type: ignore[attr-defined]
    shown = {parameter.name for parameter in command.params}
    for option in options_of(type(make_config(method))):
        assert option.help, f"{method}: {option.name} is not among the Attributes of its class"
        assert option.name in generated
        assert option.name in shown or (option.name == "overrides" and "override" in shown)


@every_method
def test_values_of_another_type_are_refused_by_the_fields_name(method: str) -> None:
    for name, value in wrong_values(type(make_config(method))):
        with pytest.raises(ValueError, match=name):
            make_config(method, **{name: value})


@every_method
def test_an_unknown_option_names_the_nearest(method: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'message_bits'"):
        make_config(method, mesage_bits=4)


@functools.cache
def trained(method: str) -> tuple[nn.Module, nodebits.PackedModel, Tensor, Tensor]:
    """A GCN that went through all that a method does in training, and its packed form."""
    x, edge_index = small_graph()
    config: QuantConfig = make_config(method, bits=4)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        model = nodebits.prepare(build_model(SPEC), config).train()
        optimizer = torch.optim.Adam(config.parameter_groups(model, 0.01))
        labels = torch.arange(len(x)) % CLASSES
        for step in range(6):
            config.advance(model, step / 5)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x, edge_index), labels)
            (loss + config.penalty(model)).backward()
            optimizer.step()
        assert config.admissible(model)
    model.eval()
    return model, nodebits.convert(model, SPEC), x, edge_index


@every_method
def test_the_published_training_has_no_teacher(method: str) -> None:
    config, fit = make_config(method, 4, "published"), FitConfig()
    for level in (NODE, GRAPH):
        published = config.published_fit(fit, level)
        assert published.distill == 0.0 and published.seed == fit.seed
    assert isinstance(config.published_warm_start, bool)


@every_method
def test_every_parameter_is_trained_once(method: str) -> None:
    model = nodebits.prepare(build_model(SPEC), make_config(method))
    groups = make_config(method).parameter_groups(model, 0.01, 0.5, 0.001)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in model.parameters()}
    assert all(0 < group["lr"] for group in groups)


@every_method
def test_trained_packed_and_saved_are_the_same(method: str, tmp_path: Path) -> None:
    model, packed, x, edge_index = trained(method)
    with torch.no_grad():
        expected = model(x, edge_index)
    assert bool(expected.isfinite().all()) and float(expected.std()) > 0
    assert torch.equal(packed.predict(x, edge_index), expected)
    packed.save(tmp_path / "model.safetensors", {"method": make_config(method).to_json()})
    loaded = nodebits.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded.predict(x, edge_index), expected)
    assert loaded.metadata["method"] == json.loads(json.dumps(make_config(method).to_json()))


@every_method
def test_a_checkpoint_in_training_goes_on_alike(method: str) -> None:
    model, _, x, edge_index = trained(method)
    fresh = nodebits.prepare(build_model(SPEC), make_config(method, bits=4))
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x, edge_index), model(x, edge_index))


@pytest.mark.parametrize("bits", [8, 2, 1])
@every_method
def test_every_width(method: str, bits: int) -> None:
    x, edge_index = small_graph()
    model = build_model(replace(SPEC, name="sage"))
    prepared = nodebits.prepare(model, make_config(method, bits))
    with torch.enable_grad():
        prepared.train()(x, edge_index).square().mean().backward()
    make_config(method, bits).advance(prepared, 1.0)
    prepared.train()(x, edge_index)
    with torch.no_grad():
        expected = prepared.eval()(x, edge_index)
    packed = nodebits.convert(prepared)
    assert torch.equal(packed.predict(x, edge_index), expected)
    assert packed.account(x, edge_index).average_site_bits <= 8
