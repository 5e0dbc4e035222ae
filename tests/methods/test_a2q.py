"""A2Q: targets met, selection, bit identity of mixed widths, bytes as small as the average says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import nodebits
from nodebits import ops
from nodebits.core.errors import ConfigError, GraphMismatchError
from nodebits.graph import graph_scope
from nodebits.methods import A2QConfig, make_config
from nodebits.methods.budget import Budget
from nodebits.models import ModelSpec, build_model
from nodebits.nn.quantizers import NodeQuantizer, RawNodeQuantizer
from nodebits.runtime import PackedModel, load
from nodebits.train import FitConfig, fit
from packed_models import CLASSES, NODES, small_graph, two_steps

NAMES = ("gcn", "gin", "gat", "sage")


def mixed_case(
    name: str, features: int = 12, task: str = "node", **options: Any
) -> tuple[nn.Module, PackedModel, Tensor, Tensor, dict[str, Tensor]]:
    """A model after two steps whose rows were given random widths."""
    torch.manual_seed(1)
    x, edge_index = small_graph(features=features, binary=features > 12)
    spec = ModelSpec(name, features, 16, CLASSES, heads=4, task=task)
    extra = {"batch": torch.arange(NODES) // (NODES // 4)} if task == "graph" else {}
    config = make_config("a2q", bits=2, groups=20, **options)
    with graph_scope(batch=extra.get("batch")):
        prepared = two_steps(build_model(spec), config, x, edge_index, **extra)
    for module in prepared.modules():
        if isinstance(module, NodeQuantizer):
            module.width.data.uniform_(1, 8)
    return prepared, nodebits.convert(prepared, spec), x, edge_index, extra


@pytest.mark.parametrize("features", (12, 300))
@pytest.mark.parametrize("message", ("node", "column"))
@pytest.mark.parametrize("name", NAMES)
def test_packed_equals_simulated(name: str, message: str, features: int, tmp_path: Path) -> None:
    prepared, packed, x, edge_index, _ = mixed_case(name, features, message=message)
    with torch.no_grad():
        expected = prepared(x, edge_index)
    assert expected.isfinite().all() and expected.std() > 0
    packed.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    shuffled = edge_index[:, torch.randperm(edge_index.size(1))]
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            for model in (packed, loaded):
                assert torch.equal(model.predict(x, edge_index.clone()), expected), isa
                ahead = model.pack_input(x)
                graph = model.prepare_graph(shuffled, NODES)
                assert torch.equal(model.predict(ahead, graph), expected), isa


@pytest.mark.parametrize("name", NAMES)
def test_graph_tasks_find_pairs(name: str, tmp_path: Path) -> None:
    prepared, packed, x, edge_index, extra = mixed_case(name, task="graph")
    other, edges = torch.randn(31, 12), torch.randint(0, 31, (2, 90))
    batch = torch.arange(31) // 8
    packed.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    for features, index, of in ((x, edge_index, extra["batch"]), (other, edges, batch)):
        with torch.no_grad(), graph_scope(batch=of):
            expected = prepared(features, index, batch=of)
        for model in (packed, loaded):
            assert torch.equal(model.predict(features, index, batch=of), expected)


@pytest.mark.parametrize("name", NAMES)
def test_other_graphs_are_refused_or_served(name: str, tmp_path: Path) -> None:
    _, packed, _, edge_index, _ = mixed_case(name)
    other, edges = torch.randn(31, 12), torch.randint(0, 31, (2, 90))
    with pytest.raises(GraphMismatchError, match="serve_other_graphs"):
        packed.predict(other, edges)
    with pytest.raises(GraphMismatchError, match="other edges"):
        packed.predict(torch.randn(NODES, 12), edge_index[:, :-1])
    packed.serve_other_graphs()
    expected = packed.predict(other, edges)
    assert expected.isfinite().all() and expected.std() > 0
    packed.save(tmp_path / "model.safetensors")
    assert torch.equal(load(tmp_path / "model.safetensors").predict(other, edges), expected)
    packed.serve_other_graphs(False)
    with pytest.raises(GraphMismatchError):
        packed.predict(other, edges)


def test_bytes_are_as_small_as_the_average_says(tmp_path: Path) -> None:
    _, packed, x, edge_index, _ = mixed_case("gcn", 300)
    account = packed.account(x, edge_index)
    for site in account.sites:
        assert site.rows_per_width is not None
        by_width = enumerate(site.rows_per_width, start=1)
        assert site.bytes == sum(n * ((site.num_cols * b + 7) // 8) for b, n in by_width)
    total = sum(site.bits * site.elements for site in account.sites)
    assert account.average_bits == pytest.approx(total / sum(s.elements for s in account.sites))
    # In the process: what passes the sites takes these bytes and no others.
    rows = packed.pack_input(x)
    made = next(iter(rows.rows.values()))
    assert made.data.packed.untyped_storage().nbytes() == account.sites[0].bytes
    # In the file: three bits of width and eight of scale per node and learned site.
    state = packed.module.state_dict()
    for name, value in state.items():
        if name.endswith("packed_widths"):
            assert value.numel() == (3 * NODES + 7) // 8
        if name.endswith("scale_index"):
            assert value.dtype == torch.uint8 and value.numel() == NODES


def graph_problem(features: int = 20, nodes: int = 60) -> Data:
    x, edge_index = small_graph(nodes, features)
    y = (x[:, :4].sum(1) > 0).long() + (x[:, 4:8].sum(1) > 0).long()
    order = torch.randperm(nodes)
    masks = {}
    for name, part in zip(("train", "val", "test"), order.split(nodes // 3), strict=True):
        masks[f"{name}_mask"] = torch.zeros(nodes, dtype=torch.bool).index_fill(0, part, True)
    return Data(x=x, edge_index=edge_index, y=y, **masks)


def trained(config: A2QConfig, name: str = "gcn", epochs: int = 40, **fit_options: Any) -> Any:
    data = graph_problem()
    spec = ModelSpec(name, 20, 16, CLASSES, heads=4, dropout=0.0)
    model = nodebits.prepare(build_model(spec), config)
    settings = FitConfig(epochs=epochs, distill=0.0, progress=False)
    return model, data, fit(model, data, settings, method=config, **fit_options), spec


@pytest.mark.parametrize(
    ("name", "target", "count", "message"),
    [
        ("gcn", 2.0, "codes", "node"),
        ("gcn", 7.5, "all", "node"),
        ("gcn", 1.7, "published", "column"),
        ("gin", 2.5, "codes", "node"),
        ("sage", 4.0, "codes", "node"),
        ("gat", 5.0, "codes", "column"),
    ],
)
def test_the_target_is_met(name: str, target: float, count: str, message: str) -> None:
    config = A2QConfig(bits=2, target_bits=target, count=count, message=message)
    model, data, result, spec = trained(config, name)
    assert 0.95 * target <= Budget(model, count).average() <= target * 1.0001
    assert result.best_epoch >= 40 * config.settle  # nothing above the target was selected
    packed = nodebits.convert(model, spec)
    account = packed.account(data.x, data.edge_index)
    if count == "codes":
        assert account.average_bits == pytest.approx(Budget(model, count).average(), rel=1e-3)
    if count == "all":
        assert account.average_bits_with_scales <= target * 1.01
    if count == "published":
        found = [site.bits for site in account.sites if site.site == "input"]
        assert sum(found) / len(found) == pytest.approx(Budget(model, count).average(), rel=1e-3)
    with torch.no_grad():
        assert torch.equal(packed.predict(data.x, data.edge_index), model(data.x, data.edge_index))


def test_widths_are_learned_from_the_rows() -> None:
    """Rows of larger values, whose errors weigh more, get more bits than others."""
    config = A2QConfig(bits=3, settle=0.8)
    model, _, _, _ = trained(config, epochs=60)
    first = next(m for m in model.modules() if type(m) is NodeQuantizer)
    assert first.rounded_widths().unique().numel() > 1
    ranges, widths = first.log_range.detach(), first.rounded_widths()
    wide = ranges > ranges.median()
    assert widths[wide].mean() > widths[~wide].mean()


def test_a_target_out_of_reach_is_said() -> None:
    with pytest.raises(ConfigError, match=r"cannot be met.*attention_bits"):
        trained(A2QConfig(bits=2, message="column"), "gat")


def test_protection_combines_with_learned_widths() -> None:
    config = A2QConfig(bits=2, p_min=0.1, p_max=0.3)
    model, data, _, spec = trained(config)
    assert all(m.protectable for m in model.modules() if isinstance(m, NodeQuantizer))
    packed = nodebits.convert(model, spec)
    with torch.no_grad():
        assert torch.equal(packed.predict(data.x, data.edge_index), model(data.x, data.edge_index))


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    """Prices, widths and what is fixed are in the checkpoint."""

    def run(epochs: int, stop: int | None, path: Path) -> dict[str, Tensor]:
        torch.manual_seed(3)
        config = A2QConfig(bits=2)
        model = nodebits.prepare(
            build_model(ModelSpec("gcn", 20, 16, CLASSES, dropout=0.0)), config
        )
        settings = FitConfig(epochs=epochs, distill=0.0, progress=False, checkpoint_seconds=0.0)

        def halt(loop: Any) -> None:
            if loop.epoch == stop:
                raise RuntimeError("stopped")

        torch.manual_seed(4)
        data = graph_problem()
        try:
            fit(model, data, settings, method=config, checkpoint=path, on_epoch=halt)
        except RuntimeError:
            return {}
        return model.state_dict()

    whole = run(30, None, tmp_path / "whole")
    for stop in (7, 22):  # before and after widths are fixed
        path = tmp_path / str(stop)
        assert run(30, stop, path) == {}
        resumed = run(30, None, path)
        assert resumed.keys() == whole.keys()
        for name, value in whole.items():
            assert torch.equal(resumed[name], value), name


def test_sites_with_a_given_width_are_not_learned() -> None:
    config = A2QConfig(bits=2, input_bits=4, message_bits=3)
    model = nodebits.prepare(build_model(ModelSpec("gcn", 300, 16, 3)), config)
    assert not any(isinstance(m, NodeQuantizer | RawNodeQuantizer) for m in model.modules())
    assert model.convs[0].message.bits == 3 and model.convs[1].lin.input.bits == 4  # type: ignore


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"target_bits": 0.5}, "target_bits is 0.5"),
        ({"count": "some"}, "count is 'some'"),
        ({"message": "edge"}, "message is 'edge'"),
        ({"gradient": "none"}, "gradient is 'none'"),
        ({"scale_bits": 3}, "scale_bits is 3"),
        ({"initial_bits": 9}, "initial_bits is 9"),
        ({"groups": 0}, "groups is 0"),
        ({"settle": 1.0}, "settle is 1.0"),
        ({"p_min": 0.5, "p_max": 0.1}, "p_min=0.5"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        A2QConfig(bits=2, **options)
