"""What a packed model says about data beyond its ranges, and conversion about empty ranges."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import nodebits
from nodebits.core.context import Context
from nodebits.core.errors import DegenerateSiteWarning, SaturationWarning
from nodebits.models import ModelSpec, build_model
from nodebits.runtime import PackedModel
from nodebits.runtime.saturation import Schedule

NODES = 300


def graph(edges: int) -> Tensor:
    return torch.randint(NODES, (2, edges), generator=torch.Generator().manual_seed(edges))


def packed_gcn(bits: int, *graphs: Tensor) -> tuple[PackedModel, Tensor, ModelSpec]:
    torch.manual_seed(0)
    x, spec = torch.randn(NODES, 12), ModelSpec("gcn", 12, 16, 3)
    mode = "ptq" if bits > 2 else "qat"
    prepared = nodebits.prepare(build_model(spec), nodebits.UniformConfig(bits=bits, mode=mode))
    nodebits.calibrate(prepared, [(x, g) for g in graphs])
    return nodebits.convert(prepared, spec), x, spec


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_other_graphs_are_warned_about_once(bits: int, tmp_path: Path) -> None:
    dense, sparse = graph(20_000), graph(200)
    packed, x, _ = packed_gcn(bits, dense)
    packed.save(tmp_path / "m")
    for model in (packed, nodebits.load(tmp_path / "m")):
        with warnings.catch_warnings():
            warnings.simplefilter("error", SaturationWarning)
            for _ in range(3):
                model.predict(x, dense)
        with pytest.warns(SaturationWarning, match=r"site 'convs\.\d.*Calibrate"):
            model.predict(x, sparse)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SaturationWarning)
            model.predict(x, sparse)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("order", [1, -1])
def test_both_graphs_fit_after_calibration_on_both(bits: int, order: int) -> None:
    dense, sparse = graph(20_000), graph(200)
    packed, x, _ = packed_gcn(bits, *(sparse, dense)[::order])
    for one in (sparse, dense):
        uses = packed.watch(x, one)
        assert {use.site for use in uses} <= set(packed.row_sites()) and uses
        assert all(use.expected is not None and use.excess <= 0.02 for use in uses)
        assert all(0.0 <= use.saturated <= 1.0 for use in uses)


def test_a_file_that_does_not_know_says_nothing(tmp_path: Path) -> None:
    packed, x, _ = packed_gcn(8, graph(20_000))
    for site in packed.row_sites().values():
        site.ends = None
    packed.save(tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SaturationWarning)
        nodebits.load(tmp_path / "m").predict(x, graph(200))


def test_watching_changes_no_bit() -> None:
    packed, x, _ = packed_gcn(4, graph(2000))
    first = packed.predict(x, graph(2000))
    packed.watch(x, graph(2000))
    assert all(torch.equal(first, packed.predict(x, graph(2000))) for _ in range(4))


def test_features_that_turn_negative() -> None:
    linear = nodebits.prepare(torch.nn.Linear(300, 4), nodebits.UniformConfig(bits=8))
    x = torch.rand(20, 300)
    nodebits.calibrate(linear, x)
    packed = nodebits.convert(linear)
    with pytest.warns(SaturationWarning, match="'input'"):
        packed.predict(-x)


def test_the_schedule_thins_out() -> None:
    schedule, one = Schedule(), object()
    due = [schedule.due((one,), Context()) for _ in range(64)]
    assert sum(due) <= 8 and due[0]
    many = [object() for _ in range(200)]
    assert sum(schedule.due((other,), Context()) for other in many) < 40


@pytest.mark.parametrize("method", ["uniform", "degree-quant", "smp", "sgquant"])
def test_ranges_that_say_nothing_are_named(method: str) -> None:
    from torch_geometric.nn import GINConv

    layer = GINConv(torch.nn.Linear(6, 4))
    config = nodebits.methods.make_config(method, bits=8)
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    outlier = torch.rand(40, 6)
    outlier[0] *= 1e6
    for x, text in ((torch.zeros(40, 6), "nothing but zeros"), (outlier, r"\d+% of its rows")):
        prepared = nodebits.prepare(layer, config)
        nodebits.calibrate(prepared, x, edges)
        with pytest.warns(DegenerateSiteWarning, match=f"message.*{text}"):
            nodebits.convert(prepared)


@pytest.mark.parametrize("inside", [False, True])
def test_zeros_that_follow_from_a_layer_are_no_fault_of_data(inside: bool) -> None:
    """MFConv maps the sums of nodes without neighbours, which are zeros."""
    from torch_geometric.nn import MFConv, Sequential

    layer: torch.nn.Module = MFConv(6, 4, max_degree=1)
    layer = Sequential("x, e", [(layer, "x, e -> x")]) if inside else layer
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=8))
    nodebits.calibrate(prepared, torch.rand(4, 6), torch.tensor([[0, 1], [1, 2]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nodebits.convert(prepared)


def test_rows_lost_beside_an_outlier_are_named_with_a_scale_per_column() -> None:
    from torch_geometric.nn import SAGEConv

    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    edges = torch.stack([torch.arange(40), torch.arange(40).roll(1)])
    config = nodebits.UniformConfig(bits=8, mode="ptq")
    for factor, warned in ((1.0, False), (1000.0, True)):
        given = x.clone()
        given[3] *= factor
        prepared = nodebits.prepare(SAGEConv(16, 8), config)
        nodebits.calibrate(prepared, given, edges)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            nodebits.convert(prepared)
        assert any("'message'" in str(w.message) for w in caught) is warned
