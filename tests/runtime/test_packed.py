"""The packed model as an object: modes, packed features, prepared graphs, copies."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_torch_csr_tensor

from nodebits.core.errors import ConfigError, NonFiniteError, ShapeError
from nodebits.engine.recording import recording
from nodebits.graph import Graph
from nodebits.methods import UniformConfig
from nodebits.runtime import convert, load
from packed_models import FEATURES, NODES, UserModel, make_case, small_graph, threads, two_steps

NAMES = ("gcn", "gin", "gat", "sage")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ("node", "graph"))
def test_training_mode_stays_off(name: str, task: str) -> None:
    """Dropout is 0.5 in these models: it would show."""
    case = make_case(name, task=task)
    assert case.packed.train() is case.packed
    assert not any(module.training for module in case.packed.modules())
    for _ in range(2):
        assert torch.equal(case.packed(case.x, case.edge_index, **case.extra), case.simulated)
    assert not case.packed(case.x, case.edge_index, **case.extra).requires_grad


def test_converted_from_training_mode() -> None:
    case = make_case()
    case.prepared.train()
    packed = convert(case.prepared)
    assert not any(module.training for module in packed.modules())
    assert torch.equal(packed.predict(case.x, case.edge_index), case.simulated)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float16, torch.bfloat16))
def test_other_float_types_are_cast(dtype: torch.dtype) -> None:
    case = make_case()
    x = case.x.to(dtype)
    expected = case.packed.predict(x.float(), case.edge_index)
    assert torch.equal(case.packed.predict(x, case.edge_index), expected)
    assert torch.equal(case.packed.predict(case.packed.pack_input(x), case.edge_index), expected)


def test_float64_beyond_float32_is_refused() -> None:
    case = make_case()
    x = case.x.double()
    x[3, 4] = 1e300
    for call in (
        lambda: case.packed.predict(x, case.edge_index),
        lambda: case.packed.pack_input(x),
    ):
        with pytest.raises(NonFiniteError, match=r"\[3, 4\]"):
            call()


def test_strided_features() -> None:
    case = make_case("sage")
    for x in (case.x.t().contiguous().t(), torch.cat([case.x, case.x], 1)[:, :FEATURES]):
        assert not x.is_contiguous()
        assert torch.equal(case.packed.predict(x, case.edge_index), case.simulated)
        assert torch.equal(
            case.packed.predict(case.packed.pack_input(x), case.edge_index), case.simulated
        )


def test_inputs_are_left_alone() -> None:
    case = make_case("gat")
    x, edge_index = case.x.clone(), case.edge_index.clone()
    case.packed.predict(x, edge_index)
    assert torch.equal(x, case.x) and torch.equal(edge_index, case.edge_index)


def test_features_changed_in_place_are_seen() -> None:
    case = make_case()
    x = case.x.clone()
    assert torch.equal(case.packed.predict(x, case.edge_index), case.simulated)
    x.mul_(-1)
    assert torch.equal(
        case.packed.predict(x, case.edge_index), case.packed.predict(-case.x, case.edge_index)
    )
    edge_index = case.edge_index.clone()
    case.packed.predict(case.x, edge_index)
    edge_index[0, :40] = 0
    assert torch.equal(
        case.packed.predict(case.x, edge_index), case.packed.predict(case.x, edge_index.clone())
    )


def test_other_adjacency_forms() -> None:
    case = make_case()
    edge_index = case.edge_index.unique(dim=1)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]  # loops: see the contract of forms
    expected = case.packed.predict(case.x, edge_index)
    forms = {
        "int32": edge_index.int(),
        "csr": to_torch_csr_tensor(edge_index.flip(0), size=(NODES, NODES)),
        "graph": case.packed.prepare_graph(edge_index, NODES),
    }
    for name, form in forms.items():
        assert torch.equal(case.packed.predict(case.x, form), expected), name


# ---- packed features ----


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", (8, 3, 1))
def test_packed_features_are_small(name: str, bits: int) -> None:
    case = make_case(name, bits=bits)
    rows = case.packed.pack_input(case.x)
    assert rows.shape == (NODES, FEATURES)
    sites = 2 if name == "sage" else 1
    assert len(rows.rows) == sites
    for site, packed in rows.rows.items():
        assert site.startswith("convs.0.")
        assert packed.data.name == "dense" and packed.bits == bits
        assert packed.data.packed.shape == (NODES, (FEATURES * bits + 7) // 8)
    assert torch.equal(case.packed.predict(rows, case.edge_index), case.simulated)


def test_features_packed_for_a_named_layer() -> None:
    case = make_case()
    named = case.packed.pack_input(case.x, layer="convs.0")
    first = case.packed.pack_input(case.x)
    assert named.rows.keys() == first.rows.keys() == {"convs.0.lin.input"}
    assert case.packed.layer_paths() == ["convs.0", "convs.0.lin", "convs.1", "convs.1.lin"]
    with pytest.raises(ConfigError, match=r"'convs.7'.*Known: convs\.0"):
        case.packed.pack_input(case.x, layer="convs.7")
    with pytest.raises(ConfigError, match="Known"):
        case.packed.pack_input(case.x, layer="convs.0.lin.input")


def test_features_packed_for_another_site() -> None:
    gcn, gin = make_case("gcn"), make_case("gin")
    with pytest.raises(ConfigError, match=r"packed for convs\.0\.message.*convs\.0\.lin\.input"):
        gcn.packed.predict(gin.packed.pack_input(gin.x), gcn.edge_index)
    wide = torch.randn(NODES, 16)
    with pytest.raises(ShapeError, match=r"16\], expected rows of 12"):
        gcn.packed.predict(gcn.packed.pack_input(wide, layer="convs.1"), gcn.edge_index)


@pytest.mark.parametrize("other", ({"bits": 2}, {"method": "degree-quant"}), ids=str)
def test_features_packed_by_another_model(other: dict[str, Any], tmp_path: Path) -> None:
    """The same site by name, but other codes."""
    case, stranger = make_case("gat"), make_case("gat", **other)
    with pytest.raises(ConfigError, match=r"convs\.0\.lin\.input of another model"):
        case.packed.predict(stranger.packed.pack_input(case.x), case.edge_index)
    case.packed.save(tmp_path / "model.safetensors")
    twin = load(tmp_path / "model.safetensors")
    assert torch.equal(
        twin.predict(case.packed.pack_input(case.x), case.edge_index), case.simulated
    )


@pytest.mark.parametrize("name", NAMES)
def test_packed_features_need_a_converted_model(name: str) -> None:
    case = make_case(name)
    rows = case.packed.pack_input(case.x)
    with pytest.raises(ConfigError, match="convert"):
        case.prepared(rows, case.edge_index)


def test_what_reads_features_packed_ahead_as_floats_is_named() -> None:
    rows = make_case().packed.pack_input(make_case().x)
    assert torch.nn.functional.dropout(rows, 0.5, training=False) is rows
    assert not hasattr(rows, "norm") and not hasattr(rows, "no_tensor_has_this")
    for name, call in {
        "dropout": lambda: torch.nn.functional.dropout(rows),
        "add": lambda: rows + torch.ones(1),
        "norm": lambda: rows.norm(),
    }.items():
        with pytest.raises(ConfigError, match=f"computes '{name}' of features.*the float matrix"):
            call()


def test_pack_input_checks_like_predict() -> None:
    packed = make_case().packed
    with pytest.raises(NonFiniteError, match="feature matrix"):
        packed.pack_input(torch.full((3, FEATURES), torch.nan))
    for bad in (torch.ones(FEATURES), torch.ones(3, FEATURES, dtype=torch.int64)):
        with pytest.raises(ShapeError, match="expected a float"):
            packed.pack_input(bad)


@pytest.mark.parametrize("name", NAMES)
def test_packed_features_of_another_width(name: str) -> None:
    packed = make_case(name).packed
    with pytest.raises(ShapeError, match=f"{FEATURES}"):
        packed.predict(packed.pack_input(torch.ones(NODES, 5)), torch.zeros(2, 0).long())


# ---- prepared graphs ----


def test_prepared_graph_is_reused() -> None:
    case = make_case("gat")
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    assert isinstance(graph, Graph)
    assert (graph.num_src, graph.num_dst) == (NODES, NODES)
    case.packed.predict(case.x, graph)
    loops = graph.with_self_loops()
    case.packed.predict(case.x, graph)
    assert graph.with_self_loops() is loops
    assert case.packed.prepare_graph(graph, NODES) is graph


def test_batches_of_graphs() -> None:
    """Graphs of one batch do not see one another."""
    case = make_case("gin", task="graph")
    graphs = [Data(*small_graph(nodes=6 + k, seed=k)) for k in range(4)]
    graphs = [Data(x=data.x, edge_index=data.edge_index) for data in graphs]
    batch = Batch.from_data_list(graphs)
    together = case.packed.predict(batch.x, batch.edge_index, batch=batch.batch)
    assert together.shape == (4, 3)
    for row, data in zip(together, graphs, strict=True):
        alone = case.packed.predict(data.x, data.edge_index)
        torch.testing.assert_close(row, alone[0], rtol=1e-5, atol=1e-5)


# ---- the object ----


def test_deepcopy_and_state_dict() -> None:
    case = make_case("sage")
    twin = copy.deepcopy(case.packed)
    assert torch.equal(twin.predict(case.x, case.edge_index), case.simulated)
    other = make_case("sage", bits=4, method="degree-quant").packed
    other.load_state_dict(case.packed.state_dict())
    assert torch.equal(other.predict(case.x, case.edge_index), case.simulated)


def test_recording_ends_after_an_error() -> None:
    case = make_case()
    with pytest.raises(ShapeError):
        case.packed.account(case.x[:, :3], case.edge_index)
    with recording() as records:
        pass
    case.packed.predict(case.x, case.edge_index)
    assert records == []


def test_user_module_with_keywords() -> None:
    x, edge_index = small_graph()
    prepared = two_steps(UserModel(), UniformConfig(bits=4), x, edge_index)
    packed = convert(prepared)
    assert torch.equal(packed.predict(x, edge_index=edge_index), packed(x, edge_index))
    rows = packed.pack_input(x)
    assert torch.equal(packed.predict(rows, edge_index), packed(x, edge_index))


@pytest.mark.usefixtures("no_collector")
def test_the_weights_go_with_the_model() -> None:
    case = make_case()
    packed = copy.deepcopy(case.packed)
    held = [weakref.ref(t) for t in (packed, *packed.module.buffers())]
    for _ in range(2):
        packed.predict(case.x, case.edge_index)
    packed.predict(packed.pack_input(case.x), case.edge_index)
    packed.plan(case.x, case.edge_index)
    forward = packed.forward
    del packed
    assert not [one for one in held if one() is not None]
    with pytest.raises(ConfigError, match="keep the model"):
        forward(case.x, case.edge_index)
