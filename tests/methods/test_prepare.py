"""prepare: what is swapped, what is left, what is said about it."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import ARMAConv, ChebConv, GATConv, GCNConv, GraphConv, SAGEConv

import nodebits
from nodebits.core.errors import ConfigError, NothingToQuantizeError, UnsupportedLayerWarning
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.nn.gcn_conv import QuantGCNConv
from nodebits.nn.linear import QuantLinear
from nodebits.nn.propagate.layer import QuantMessagePassing
from nodebits.runtime import convert

CONFIG = UniformConfig(bits=4)


class Net(nn.Module):
    """A convolution, another layer, and a head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first = GCNConv(6, 8)
        self.middle = middle
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        return self.head(self.norm(self.middle(x, edge_index)))


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(10, 6), torch.randint(10, (2, 30))


def test_a_copy_is_changed_unless_asked() -> None:
    model = Net(GCNConv(8, 8))
    prepared = nodebits.prepare(model, CONFIG)
    assert type(model.first) is GCNConv and isinstance(prepared.first, QuantGCNConv)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in prepared.parameters()}
    assert type(model.norm) is nn.LayerNorm and isinstance(prepared.norm, nn.LayerNorm)
    assert nodebits.prepare(model, CONFIG, inplace=True) is model
    assert isinstance(model.first, QuantGCNConv) and isinstance(model.head, QuantLinear)


def test_parameters_keep_names_and_values() -> None:
    model = Net(GATConv(8, 4, heads=2))
    prepared = nodebits.prepare(model, CONFIG)
    mine = dict(prepared.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(mine[name], parameter)
    missing = prepared.load_state_dict(model.state_dict(), strict=False)
    assert not missing.unexpected_keys


def test_no_warning_without_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnsupportedLayerWarning)
        nodebits.prepare(Net(SAGEConv(8, 8)), CONFIG)


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_kept(training: bool) -> None:
    prepared = nodebits.prepare(Net(GCNConv(8, 8)).train(training), CONFIG)
    assert all(m.training is training for m in prepared.modules())


@pytest.mark.parametrize("frozen", ["first", "middle", "head", "norm"])
def test_every_module_keeps_its_own_mode(frozen: str) -> None:
    """A norm that is kept in evaluation does not go back into training, nor do other layers."""
    model = Net(GATConv(8, 8))
    model.norm = nn.BatchNorm1d(8)  # type: ignore[assignment]
    model.train()
    getattr(model, frozen).eval()
    prepared = nodebits.prepare(model, CONFIG)

    def check() -> None:
        for name, child in prepared.named_children():
            assert all(m.training is (name != frozen) for m in child.modules()), name
        assert prepared.training

    check()
    before = copy.deepcopy(prepared.norm.state_dict())
    nodebits.calibrate(prepared, *inputs())
    check()
    after = prepared.norm.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    prepared(*inputs())
    assert int(prepared.norm.num_batches_tracked) == (frozen != "norm")


@pytest.mark.parametrize(
    "layer",
    [
        ARMAConv(8, 8, aggr="mean"),
        SAGEConv(8, 8, aggr="max"),
        GraphConv(8, 8, aggr="max"),
        GCNConv(8, 8, flow="target_to_source"),
        GCNConv(8, 8, aggr="mean"),
    ],
    ids=["arma mean", "sage max", "graph max", "flow", "gcn mean"],
)
@pytest.mark.filterwarnings("error::nodebits.core.errors.UnsupportedLayerWarning")
def test_options_without_a_form_of_their_own_run_the_layer_s_messages(layer: nn.Module) -> None:
    model = Net(layer).eval()
    prepared = nodebits.prepare(model, CONFIG)
    assert isinstance(prepared.middle, type(layer)) and isinstance(prepared.first, QuantGCNConv)
    assert isinstance(prepared.middle, QuantMessagePassing)
    nodebits.calibrate(prepared, *inputs())
    assert prepared(*inputs()).shape == (10, 3)
    assert nodebits.convert(prepared).predict(*inputs()).shape == (10, 3)


def test_a_layer_that_no_form_fits_is_named_and_still_runs() -> None:
    model = Net(OwnPropagate()).eval()
    reason = "OwnPropagate.* defines propagate\\(\\) itself"
    with pytest.warns(UnsupportedLayerWarning, match=f"'middle' .*{reason}.*Supported: .*GCNConv"):
        prepared = nodebits.prepare(model, CONFIG)
    assert type(prepared.middle) is OwnPropagate and isinstance(prepared.first, QuantGCNConv)
    nodebits.calibrate(prepared, *inputs())
    assert prepared(*inputs()).shape == (10, 3)
    assert nodebits.convert(prepared).predict(*inputs()).shape == (10, 3)


def test_attention_over_edge_features_runs_on_quantized_linears() -> None:
    layer = GATConv(6, 8, edge_dim=3).eval()
    prepared = nodebits.prepare(layer, UniformConfig(bits=8))
    assert isinstance(prepared, GATConv) and isinstance(prepared.lin_edge, QuantLinear)
    x, index = inputs()
    attributes = torch.randn(index.size(1), 3)
    nodebits.calibrate(prepared, x, index, attributes)
    expected = layer(x, index, attributes)
    assert (prepared(x, index, attributes) - expected).abs().max() < 0.2
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        simulated = prepared(x, index, attributes)
    torch.testing.assert_close(packed.predict(x, index, attributes), simulated)


def test_the_root_can_be_the_layer() -> None:
    assert isinstance(nodebits.prepare(GCNConv(6, 8), CONFIG), QuantGCNConv)
    with (
        pytest.warns(UnsupportedLayerWarning, match="layer 'model'"),
        pytest.raises(NothingToQuantizeError),
    ):
        nodebits.prepare(OwnPropagate(), CONFIG)


class OwnPropagate(ChebConv):
    """No linears, and messages that only it knows."""

    def __init__(self) -> None:
        super().__init__(2, 2, K=1)
        self.lins = nn.ModuleList()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x)

    def propagate(self, edge_index: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.index_add(0, edge_index[1], x[edge_index[0]])


def test_nothing_to_quantize() -> None:
    with pytest.raises(NothingToQuantizeError, match=r"Sequential .*Supported: .*torch\.Linear"):
        nodebits.prepare(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), CONFIG)
    with pytest.raises(NothingToQuantizeError, match=r"call nodebits\.prepare"):
        nodebits.convert(nn.Linear(3, 3))


def test_a_subclass_keeps_its_own_messages() -> None:
    class Mine(GCNConv):
        def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
            return 2 * super().message(x_j, edge_weight)

    model = Net(Mine(8, 8)).eval()
    prepared = nodebits.prepare(model, UniformConfig(bits=8))
    assert isinstance(prepared.middle, Mine) and isinstance(prepared.middle, QuantMessagePassing)
    given = inputs()
    nodebits.calibrate(prepared, *given)
    expected = model(*given)
    assert (prepared(*given) - expected).norm() < 0.05 * expected.norm()


def test_a_layer_used_twice_stays_one_layer() -> None:
    model = Net(GCNConv(8, 8))
    model.again = model.middle
    prepared = nodebits.prepare(model, CONFIG)
    assert isinstance(prepared.again, QuantGCNConv) and prepared.again is prepared.middle


def test_prepared_twice_is_prepared_once() -> None:
    prepared = nodebits.prepare(Net(GCNConv(8, 8)), CONFIG)
    with pytest.raises(NothingToQuantizeError):
        nodebits.prepare(prepared, CONFIG)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    (
        (None, UniformConfig(), "model to prepare is a NoneType"),
        (nn.Linear(2, 2), UniformConfig, r"is UniformConfig: pass an object such as"),
        (nn.Linear(2, 2), "uniform", r"is 'uniform': pass an object such as"),
    ),
)
def test_other_arguments_are_named(model: object, config: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(model, config)  # type: ignore[arg-type]


def test_why_nothing_was_left_to_quantize() -> None:
    with (
        pytest.warns(UnsupportedLayerWarning, match="lazy"),
        pytest.raises(NothingToQuantizeError, match=r"layer '0' \(LazyLinear\).*run the float"),
    ):
        prepare(nn.Sequential(nn.LazyLinear(4)), UniformConfig())


def test_a_function_that_keeps_its_layer() -> None:
    """It runs the float layer of the model it was made for, so nothing of it is quantized."""
    model = nn.Sequential(GCNConv(4, 4))
    old = model[0].forward
    model[0].forward = lambda *inputs: 2 * old(*inputs)
    with (
        pytest.warns(UnsupportedLayerWarning, match=r"forward\(\) was replaced"),
        pytest.raises(NothingToQuantizeError, match=r"layer '0' .*forward\(\) was replaced"),
    ):
        prepare(model, UniformConfig())


def test_only_prepared_models_are_calibrated() -> None:
    x = torch.rand(5, 4)
    prepared = prepare(nn.Linear(4, 3), UniformConfig(bits=8, mode="ptq"))
    calibrate(prepared, x)
    for model in (nn.Linear(4, 3), convert(prepared)):
        with pytest.raises(NothingToQuantizeError, match=r"no ranges to calibrate.*prepare"):
            calibrate(model, x)
