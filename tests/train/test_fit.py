from __future__ import annotations

import os
import signal
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv, PointNetConv

import nodebits
from nodebits.core.errors import ConfigError, NonFiniteError, ShapeError, UnknownNameError
from nodebits.methods import make_config, prepare
from nodebits.methods.prepare import method_of
from nodebits.models import ModelSpec, build_model
from nodebits.nn.quantizers import Quantizer
from nodebits.tasks import Metrics, find_task
from nodebits.train import (
    DivergedError,
    FitConfig,
    UntrainedParameterError,
    UntrainedParameterWarning,
    evaluate,
    fit,
    predict_logits,
)
from nodebits.train.loop import Best, Loop
from nodebits.train.optimizer import make_optimizer

SHORT = FitConfig(epochs=30, lr=0.02, progress=False)


def same_state(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_float_model_learns_and_is_left_at_its_best_epoch(model, graph):
    result = fit(model, graph, SHORT)
    assert result.val.accuracy == max(result.history["val_accuracy"])
    assert evaluate(model, graph, "val").accuracy == result.val.accuracy
    assert evaluate(model, graph).accuracy > 0.8
    assert not model.training


def test_a_frozen_norm_stays_frozen(graph):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = GCNConv(graph.num_features, 8), nn.BatchNorm1d(8)
            self.head = nn.Linear(8, 2)

        def forward(self, x, edge_index):
            return self.head(self.norm(self.conv(x, edge_index)).relu())

    for frozen in (True, False):
        model = prepare(Net(), make_config("uniform", bits=4)).train()
        model.norm.train(not frozen)
        fit(model, graph, FitConfig(epochs=2, progress=False))
        assert (int(model.norm.num_batches_tracked) == 0) is frozen


def test_same_seed_gives_same_weights_and_leaves_global_randomness_alone(model, graph):
    twin = deepcopy(model)
    before = torch.get_rng_state()
    fit(model, graph, SHORT)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    fit(twin, graph, SHORT)
    assert same_state(model, twin)


def test_test_split_is_never_read(model, graph):
    twin = deepcopy(model)
    fit(model, graph, SHORT)
    hidden = graph.clone()
    hidden.y = torch.where(graph.test_mask, 1 - graph.y, graph.y)
    fit(twin, hidden, SHORT)
    assert same_state(model, twin)


@pytest.mark.parametrize(("method", "bits"), [("degree-quant", 4), ("uniform", 2)])
def test_quantized_model_follows_its_teacher(model, graph, method, bits):
    fit(model, graph, SHORT)
    teacher = predict_logits(model, graph)
    config = make_config(method, bits)
    quantized = prepare(model, config)
    result = fit(quantized, graph, SHORT, method=config, teacher_logits=teacher)
    assert evaluate(quantized, graph).accuracy > 0.8
    assert result.epochs == 30 and not result.interrupted


@pytest.mark.parametrize("method", ["mixq", "a2q", "degree-quant"])
def test_a_method_takes_part_without_being_named_again(model, graph, method):
    config = make_config(method, bits=4)
    prepared = prepare(model, config)
    other = deepcopy(prepared)
    short = SHORT.replace(epochs=6)
    fit(prepared, graph, short, method=config)
    fit(other, graph, short)
    assert same_state(prepared, other)
    parts = nn.Sequential(prepared, prepare(model, make_config("uniform", bits=2)))
    if method == "degree-quant":
        assert method_of(parts) is None
    else:
        with pytest.raises(ConfigError, match="takes part in training"):
            method_of(parts)
    assert method_of(nodebits.convert(prepared.eval()).module) is None
    assert method_of(model) is None


def test_graph_task_trains_in_batches(graphs):
    torch.manual_seed(0)
    model = build_model(ModelSpec("gin", 4, 8, 2, task="graph", norm="batch_norm"))
    config = SHORT.replace(epochs=12, batch_size=23, select="loss", schedule="step", step_size=5)
    fit(model, graphs, config)
    assert evaluate(model, graphs).accuracy > 0.8
    method = make_config("degree-quant", 8)
    quantized = prepare(model, method)
    fit(quantized, graphs, config, method=method, teacher_logits=predict_logits(model, graphs))
    assert evaluate(quantized, graphs).accuracy > 0.8


@pytest.mark.parametrize(("epochs", "size", "halved"), [(8, None, 4), (3, None, 3), (8, 5, 1)])
def test_a_short_training_has_as_many_rates_as_a_long_one(graphs, epochs, size, halved):
    rates = []
    config = SHORT.replace(epochs=epochs, lr=0.01, schedule="step", step_size=size)
    model = build_model(ModelSpec("gin", 4, 8, 2, task="graph"))

    def note(loop: Loop) -> None:
        rates.append(loop.optimizer.param_groups[0]["lr"])

    fit(model, graphs, config, on_epoch=note)
    assert rates[-1] == pytest.approx(0.01 / 2**halved)


def test_resumed_run_equals_an_unbroken_one(model, graph, tmp_path):
    straight, broken = deepcopy(model), deepcopy(model)
    config = SHORT.replace(checkpoint_seconds=0.0)
    fit(straight, graph, config)
    path = tmp_path / "run.checkpoint"

    def stop_at_ten(loop: Loop) -> None:
        if loop.epoch == 10:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fit(broken, graph, config, checkpoint=path, on_epoch=stop_at_ten)
    seen: list[int] = []
    again = deepcopy(model)
    result = fit(
        again, graph, config, checkpoint=path, on_epoch=lambda loop: seen.append(loop.epoch)
    )
    assert seen[0] == 10 and result.epochs == 30
    assert same_state(straight, again)
    fit(deepcopy(model), graph, config, checkpoint=path, on_epoch=stop_at_ten)


def test_quantized_run_resumes_exactly(model, graph, tmp_path):
    method = make_config("degree-quant", 4)
    config = SHORT.replace(epochs=12, checkpoint_seconds=0.0)
    straight = prepare(model, method)
    fit(straight, graph, config, method=method)

    def stop(loop: Loop) -> None:
        if loop.epoch == 6:
            raise RuntimeError("power cut")

    path = tmp_path / "run.checkpoint"
    with pytest.raises(RuntimeError):
        fit(prepare(model, method), graph, config, method=method, checkpoint=path, on_epoch=stop)
    again = prepare(model, method)
    fit(again, graph, config, method=method, checkpoint=path)
    assert same_state(straight, again)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint"])
def test_damaged_or_foreign_checkpoint_starts_anew(model, graph, tmp_path, damage):
    path = tmp_path / "run.checkpoint"
    path.write_bytes(damage)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert fit(model, graph, SHORT.replace(epochs=2), checkpoint=path).epochs == 2


def test_checkpoint_of_other_settings_starts_anew(model, graph, tmp_path):
    path = tmp_path / "run.checkpoint"
    fit(model, graph, SHORT.replace(epochs=2), checkpoint=path)
    with pytest.warns(UserWarning, match="other settings"):
        fit(model, graph, SHORT.replace(epochs=3), checkpoint=path)


def test_ctrl_c_keeps_the_best_state(model, graph, tmp_path):
    def press(loop: Loop) -> None:
        if loop.epoch == 5:
            os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "run.checkpoint"
    result = fit(model, graph, SHORT, on_epoch=press, checkpoint=path)
    assert result.interrupted and result.epochs == 5
    assert evaluate(model, graph, "val").accuracy == result.val.accuracy
    assert fit(model, graph, SHORT, checkpoint=path).epochs == 30


def test_patience_stops_early(model, graph):
    result = fit(model, graph, SHORT.replace(epochs=200, patience=5))
    assert result.epochs == result.best_epoch + 6 < 200


def test_diverged_loss_is_an_error(model, graph):
    with pytest.raises(DivergedError, match=r"epoch 0; lower the learning rate"):
        fit(model, graph, SHORT.replace(lr=1e30))
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"nan before the first step of training"):
        fit(model, graph, SHORT)


def test_parameter_outside_every_group_is_an_error(model):
    class Forgetful:
        def parameter_groups(self, model, *rates):
            return [{"params": list(model.parameters())[1:]}]

    with pytest.raises(UntrainedParameterError, match=r"convs\.0"):
        make_optimizer(model, SHORT, Forgetful())


def test_a_range_that_data_gave_up_is_no_news(graph):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = PointNetConv(nn.Linear(graph.num_features + 2, 2))
            self.never = nn.Linear(2, 2) if forgotten else None

        def forward(self, x, edge_index):
            return self.conv(x, x[:, :2], edge_index)

    for forgotten in (False, True):
        model = prepare(Net(), make_config("uniform", bits=4))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fit(model, graph, FitConfig(epochs=1, progress=False))
        assert any(site.idle for site in model.modules() if isinstance(site, Quantizer))
        said = [str(w.message) for w in told if w.category is UntrainedParameterWarning]
        assert bool(said) is forgotten
        assert all("conv" not in text for text in said)


def test_scales_have_their_own_rate_without_decay(model):
    method = make_config("uniform", 4)
    optimizer = make_optimizer(prepare(model, method), SHORT, method)
    weights, scales = optimizer.param_groups
    assert (weights["lr"], weights["weight_decay"]) == (0.02, 5e-4)
    assert (scales["lr"], scales["weight_decay"]) == (1e-3, 0.0)


def test_teacher_of_another_graph_is_refused(model, graph):
    with pytest.raises(ShapeError, match="7 rows for 120 labels"):
        fit(model, graph, SHORT, teacher_logits=torch.zeros(7, 2))


def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch():
    task = find_task("node")

    def beaten(accuracy: float, loss: float, select: str = "metric") -> bool:
        best = Best(3, Metrics("accuracy", 0.8, 0.5, 10))
        return best.beaten_by(Metrics("accuracy", accuracy, loss, 10), task, select)

    assert beaten(0.8, 0.4) and not beaten(0.8, 0.5)
    assert not beaten(0.9, 0.6, "loss") and beaten(0.1, 0.4, "loss")


@pytest.mark.parametrize(
    "field",
    [{"epochs": 0}, {"lr": float("nan")}, {"distill": 1.5}, {"select": "test"}, {"patience": -1}],
)
def test_bad_settings_name_the_field(field):
    with pytest.raises(ConfigError, match=next(iter(field))):
        FitConfig(**field)


def test_unwritable_checkpoint_is_a_typed_error(model, graph, tmp_path: Path):
    from nodebits.train import OutputError

    with pytest.raises(OutputError, match="cannot write"):
        (tmp_path / "file").write_text("")
        fit(model, graph, SHORT.replace(epochs=1), checkpoint=tmp_path / "file" / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": None},
        {"lr": float("nan")},
        {"lr": "0.1"},
        {"lr": True},
        {"weight_decay": None},
        {"quantizer_lr": 0},
        {"distill": "half"},
        {"distill": float("nan")},
        {"epochs": 2.5},
        {"seed": None},
        {"seed": 2**64},
        {"progress": "yes"},
        {"checkpoint_seconds": float("nan")},
        {"select": None},
        {"schedule": "linear"},
    ],
)
def test_settings_out_of_range_are_named(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        FitConfig(**changes)
    with pytest.raises(UnknownNameError, match="did you mean 'epochs'"):
        FitConfig().replace(epoch=3)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: torch.full((120, 2), float("nan")), NonFiniteError, "teacher_logits"),
        (lambda: torch.zeros(120, 5), ShapeError, "5 classes, the model has 2"),
        (lambda: torch.zeros(7, 2), ShapeError, "7 rows for 120"),
        (lambda: torch.zeros(120), ShapeError, r"\[120\]"),
        (lambda: [[0.0, 1.0]] * 120, ShapeError, "list"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(model, graph, make, error, words):
    with pytest.raises(error, match=words):
        fit(model, graph, SHORT, teacher_logits=make())


def test_a_teacher_with_a_graph_of_its_own_is_detached(model, graph):
    teacher = torch.zeros(120, 2, requires_grad=True) * 2.0
    fit(model, graph, SHORT.replace(epochs=2), teacher_logits=teacher)


def test_what_cannot_be_trained_is_named(model, graph):
    method = make_config("uniform", 4)
    with pytest.raises(ConfigError, match="keyword method"):
        fit(model, graph, method)
    with pytest.raises(ConfigError, match="config that prepare was given"):
        fit(model, graph, SHORT, method="uniform")
    prepared = prepare(model, method)
    fit(prepared, graph, SHORT.replace(epochs=1), method=method)
    with pytest.raises(ConfigError, match="packed model cannot be trained"):
        fit(nodebits.convert(prepared), graph, SHORT)
    with pytest.raises(ConfigError, match=r"parameter 'convs.* is torch.float16"):
        fit(deepcopy(model).half(), graph, SHORT)
    with pytest.raises(ConfigError, match="split is 'tset'"):
        evaluate(model, graph, "tset")
