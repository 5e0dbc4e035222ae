"""From prepared to packed: named models, user modules, and what loading needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, GraphConv, MFConv, SAGEConv

from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    NotCalibratedError,
    NothingToQuantizeError,
    ShapeError,
    UnsupportedLayerWarning,
)
from nodebits.engine.weight import PackedWeight
from nodebits.methods import DegreeQuantConfig, UniformConfig, calibrate, prepare
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.runtime import PackedModel, convert, load
from packed_models import (
    CLASSES,
    FEATURES,
    UserModel,
    make_case,
    small_graph,
    threads,
    two_steps,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.mark.parametrize("name", ("gcn", "gin", "gat", "sage"))
def test_no_float_copy_of_a_weight_remains(name: str) -> None:
    packed = make_case(name).packed
    assert not [m for m in packed.modules() if isinstance(m, Quantizer | WeightQuantizer)]
    assert [m for m in packed.modules() if isinstance(m, PackedWeight)]
    held = dict([*packed.named_parameters(), *packed.named_buffers()])
    for path, module in packed.named_modules():
        # An attribute may hold a tensor that is neither parameter nor buffer.
        held |= {f"{path}.{k}": v for k, v in vars(module).items() if isinstance(v, torch.Tensor)}
    assert any(tensor.dtype == torch.uint8 for tensor in held.values())
    wide = {name: t.shape for name, t in held.items() if t.is_floating_point() and t.dim() > 1}
    assert not wide, "all that is left in float is one value per channel"
    assert max(t.numel() for t in held.values() if t.is_floating_point()) <= 16
    assert not [p for p in packed.parameters() if p.requires_grad or p.grad is not None]


def test_convert_leaves_the_prepared_model_as_it_was() -> None:
    case = make_case("gat")
    before = {k: v.clone() for k, v in case.prepared.state_dict().items()}
    case.prepared.train()
    convert(case.prepared)
    assert case.prepared.training
    after = case.prepared.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    case.prepared.eval()
    with torch.no_grad():
        assert torch.equal(case.prepared(case.x, case.edge_index), case.simulated)


def test_convert_twice() -> None:
    packed = make_case().packed
    assert convert(packed) is packed


def test_float_model_is_refused() -> None:
    with pytest.raises(NothingToQuantizeError, match=r"UserModel.*prepare"):
        convert(UserModel())


def test_uncalibrated_model_is_refused() -> None:
    with pytest.raises(NotCalibratedError, match="calibrate"):
        convert(prepare(UserModel(), UniformConfig(bits=4)))


# ---- user modules ----


def user_case(
    config: Any = None, model: nn.Module | None = None
) -> tuple[PackedModel, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, edge_index = small_graph()
    torch.manual_seed(3)
    model = UserModel() if model is None else model
    prepared = two_steps(model, config or UniformConfig(bits=4), x, edge_index)
    with torch.no_grad():
        return convert(prepared), x, edge_index, prepared(x, edge_index)


@pytest.mark.parametrize("bits", (8, 4, 2, 1))
@pytest.mark.parametrize("config", (UniformConfig, DegreeQuantConfig))
def test_user_module(config: Any, bits: int, tmp_path: Path) -> None:
    packed, x, edge_index, simulated = user_case(config(bits=bits))
    assert packed.spec is None
    assert packed.folded == ["norm"]
    assert torch.equal(packed.predict(x, edge_index), simulated)
    packed.save(tmp_path / "user.safetensors", {"note": "mine"})
    plain = UserModel()
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    loaded = load(tmp_path / "user.safetensors", model=plain)
    assert torch.equal(loaded.predict(x, edge_index), simulated)
    assert loaded.metadata == {"note": "mine"}
    assert not loaded.training and not loaded.module.training
    assert type(plain.first) is GCNConv, "the module that was passed is not changed"
    assert all(torch.equal(before[k], v) for k, v in plain.state_dict().items())


def test_loading_into_the_prepared_model(tmp_path: Path) -> None:
    packed, x, edge_index, simulated = user_case()
    packed.save(tmp_path / "user.safetensors")
    loaded = load(tmp_path / "user.safetensors", prepare(UserModel(), UniformConfig(bits=4)))
    assert torch.equal(loaded.predict(x, edge_index), simulated)


def test_a_single_layer(tmp_path: Path) -> None:
    """The layer is the model: its path is empty."""
    packed, x, edge_index, simulated = user_case(model=GCNConv(FEATURES, CLASSES))
    packed.save(tmp_path / "layer.safetensors")
    loaded = load(tmp_path / "layer.safetensors", model=GCNConv(FEATURES, CLASSES))
    assert torch.equal(loaded.predict(x, edge_index), simulated)
    assert torch.equal(loaded.predict(loaded.pack_input(x), edge_index), simulated)


class Every(nn.Module):
    """All convolutions, a list, a dict, and a float path beside."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(FEATURES, 8, improved=True), GraphConv(8, 8)])
        self.more = nn.ModuleDict(
            {
                "gat": GATConv(8, 4, heads=2, residual=True),
                "gin": GINConv(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))),
            }
        )
        self.sage = SAGEConv(8, CLASSES, project=True)
        self.gate = nn.Parameter(torch.ones(8))

    def forward(self, x: Any, edge_index: Any) -> torch.Tensor:
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        x = self.more["gin"](self.more["gat"](x, edge_index), edge_index) * self.gate
        return self.sage(x, edge_index)


@pytest.mark.parametrize("bits", (8, 3))
def test_every_layer_in_every_container(bits: int, tmp_path: Path) -> None:
    packed, x, edge_index, simulated = user_case(UniformConfig(bits=bits), Every())
    assert torch.equal(packed.predict(x, edge_index), simulated)
    packed.save(tmp_path / "every.safetensors")
    loaded = load(tmp_path / "every.safetensors", model=Every())
    assert torch.equal(loaded.predict(x, edge_index), simulated)
    assert loaded.layer_paths() == packed.layer_paths()


def test_edge_weights(tmp_path: Path) -> None:
    case = make_case()
    weight = torch.rand(case.edge_index.size(1)) + 0.1
    prepared = two_steps(
        nn_model(), UniformConfig(bits=4), case.x, case.edge_index, edge_weight=weight
    )
    with torch.no_grad():
        simulated = prepared(case.x, case.edge_index, edge_weight=weight)
    packed = convert(prepared)
    packed.save(tmp_path / "weighted.safetensors")
    loaded = load(tmp_path / "weighted.safetensors", model=nn_model())
    for model in (packed, loaded):
        found = model.predict(case.x, case.edge_index, edge_weight=weight)
        assert torch.equal(found, simulated)
        graph = model.prepare_graph(case.edge_index, case.x.size(0), weight)
        assert torch.equal(model.predict(case.x, graph), simulated)


def nn_model() -> nn.Module:
    from nodebits.models import ModelSpec, build_model

    return build_model(ModelSpec("gcn", FEATURES, 16, CLASSES))


@pytest.mark.parametrize(
    "overrides",
    (
        {"*.input": 32},
        {"*.weight": 32},
        {"*.message": 32},
        {"convs.0.*": 32},
        {"*.output": 8},
    ),
    ids=str,
)
@pytest.mark.parametrize("name", ("gcn", "gin", "gat", "sage"))
def test_sites_left_in_float(name: str, overrides: dict[str, int], tmp_path: Path) -> None:
    """Where float remains, sums may round differently, but the file still keeps every bit."""
    case = make_case(name, overrides=overrides)
    found = case.packed.predict(case.x, case.edge_index)
    torch.testing.assert_close(found, case.simulated, rtol=1e-4, atol=1e-4)
    case.packed.save(tmp_path / "mixed.safetensors")
    loaded = load(tmp_path / "mixed.safetensors")
    assert torch.equal(loaded.predict(case.x, case.edge_index), found)


# ---- modules that do not fit the file ----


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "user.safetensors"
    user_case()[0].save(path)
    return path


def test_module_is_needed(user_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"'UserModel'.*model=") as caught:
        load(user_file)
    assert not isinstance(caught.value, FileFormatError)
    assert "user.safetensors" in str(caught.value)


class OtherConv(UserModel):
    def __init__(self) -> None:
        super().__init__()
        self.second = GCNConv(16, 16)


class LinearForConv(UserModel):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(16, 16)


class ConvForLinear(UserModel):
    def __init__(self) -> None:
        super().__init__()
        self.head = SAGEConv(16, CLASSES)


class OneMore(UserModel):
    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Linear(2, 2)


class OtherNorm(UserModel):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)


class NoNorm(UserModel):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()


class OtherName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = GCNConv(FEATURES, 16)


@pytest.mark.parametrize(
    ("module", "named"),
    (
        (OtherConv(), "second"),
        (LinearForConv(), "second"),
        (ConvForLinear(), "head"),
        (OneMore(), "tail"),
        (OtherNorm(), "norm"),
        (NoNorm(), "norm"),
        (OtherName(), "first"),
        (UserModel(hidden=8), "16"),
        (nn.Linear(FEATURES, CLASSES), "first"),
    ),
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_module_that_does_not_fit(user_file: Path, module: nn.Module, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        load(user_file, model=module)
    assert "user.safetensors" in str(caught.value)


def test_named_model_loads_into_its_module_too(tmp_path: Path) -> None:
    case = make_case("sage")
    case.packed.save(tmp_path / "sage.safetensors")
    from nodebits.models import build_model

    loaded = load(tmp_path / "sage.safetensors", model=build_model(case.spec))
    assert torch.equal(loaded.predict(case.x, case.edge_index), case.simulated)
    with pytest.raises(ConfigError, match="convs"):
        load(tmp_path / "sage.safetensors", model=make_case("gcn").prepared)


def test_calibrated_only() -> None:
    x, edge_index = small_graph()
    model = prepare(UserModel().eval(), UniformConfig(bits=8, mode="ptq"))
    calibrate(model, x, edge_index)
    with torch.no_grad():
        simulated = model(x, edge_index)
    assert torch.equal(convert(model).predict(x, edge_index), simulated)
    with pytest.raises(ShapeError, match="12"):
        convert(model).predict(x[:, :5], edge_index)


# ---- layers that saw no data ----


class Heads(nn.Module):
    """Inference takes one head, training both; a third one reads a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(FEATURES, 8)
        self.head, self.projection = nn.Linear(8, CLASSES), nn.Linear(8, 4)
        self.tied = nn.Linear(8, CLASSES)

    def forward(self, x: Any, edge_index: Any, project: bool = False) -> torch.Tensor:
        hidden = self.conv(x, edge_index).relu()
        if project:
            return self.projection(hidden)
        return self.head(hidden) + nn.functional.linear(hidden, self.tied.weight, self.tied.bias)


@pytest.mark.parametrize("config", (UniformConfig(mode="ptq"), DegreeQuantConfig(bits=4)))
def test_a_layer_that_did_not_run_is_named(config: Any, tmp_path: Path) -> None:
    x, edge_index = small_graph()
    model = Heads().eval()
    prepared = prepare(model, config)
    with pytest.raises(NotCalibratedError, match=r"site 'conv\.lin\.input'.*calibrate"):
        prepared(x, edge_index)
    calibrate(prepared, x, edge_index)
    wanted = r"layer 'projection' .*'projection\.input' \(2 layers.*did not run.*leave_unseen"
    with pytest.raises(NotCalibratedError, match=wanted):
        convert(prepared)
    with pytest.warns(UnsupportedLayerWarning, match=r"in float.*'projection', 'tied'"):
        packed = convert(prepared, leave_unseen="float")
    with torch.no_grad():
        assert torch.equal(packed.predict(x, edge_index), prepared(x, edge_index))
        hidden = packed.module.conv(x, edge_index).relu()
        expected = nn.functional.linear(hidden, model.projection.weight, model.projection.bias)
        torch.testing.assert_close(packed.predict(x, edge_index, project=True), expected)
    packed.save(tmp_path / "heads.safetensors")
    loaded = load(tmp_path / "heads.safetensors", model=model)
    for project in (False, True):
        found = loaded.predict(x, edge_index, project=project)
        assert torch.equal(found, packed.predict(x, edge_index, project=project))
    with pytest.raises(ConfigError, match="leave_unseen is 'skip'"):
        convert(prepared, leave_unseen="skip")  # type: ignore[arg-type]


def test_a_layer_that_ran_without_being_calibrated() -> None:
    x, edge_index = small_graph()
    prepared = prepare(Heads().eval(), UniformConfig(mode="ptq"))
    prepared.projection(torch.empty(0, 8))
    calibrate(prepared, x, edge_index)
    with pytest.raises(NotCalibratedError):
        prepared(x, edge_index, project=True)
    with pytest.raises(NotCalibratedError, match=r"'projection'.*the layer ran, but never"):
        convert(prepared)


class NoTargets(nn.Module):
    """A convolution whose second linear has nothing to map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(FEATURES, CLASSES)

    def forward(self, x: Any, edge_index: Any) -> torch.Tensor:
        return self.conv((x, None), edge_index)


@pytest.mark.parametrize("stored", (False, True))
@pytest.mark.parametrize("config", (UniformConfig(bits=4), UniformConfig(bits=4, mode="ptq")))
def test_a_linear_that_a_convolution_does_without(
    config: Any, stored: bool, tmp_path: Path
) -> None:
    x, edge_index = small_graph()
    prepared = prepare(NoTargets().eval(), config)
    calibrate(prepared, x, edge_index)
    if stored:  # a fresh object knows only what the state says
        state = prepared.state_dict()
        prepared = prepare(NoTargets().eval(), config)
        prepared.load_state_dict(state)
    with pytest.warns(UnsupportedLayerWarning, match=r"'conv\.lin_r'"):
        packed = convert(prepared)
    with torch.no_grad():
        assert torch.equal(packed.predict(x, edge_index), prepared(x, edge_index))
    packed.save(tmp_path / "sage.safetensors")
    loaded = load(tmp_path / "sage.safetensors", model=NoTargets())
    assert torch.equal(loaded.predict(x, edge_index), packed.predict(x, edge_index))


def test_degrees_that_do_not_occur() -> None:
    x, edge_index = small_graph()[0][:6], torch.stack([torch.arange(6), torch.arange(6).roll(1)])
    prepared = prepare(MFConv(FEATURES, CLASSES).eval(), UniformConfig(mode="ptq"))
    calibrate(prepared, x, edge_index)
    with pytest.warns(UnsupportedLayerWarning, match=r"'lins_l\.\d+'"):
        packed = convert(prepared)
    with torch.no_grad():
        assert torch.equal(packed.predict(x, edge_index), prepared(x, edge_index))
